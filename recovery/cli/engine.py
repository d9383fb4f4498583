"""``rekindle engine``: the engine as a service. Windows (the TUI, other terminals) are its clients."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from types import FrameType

import click

from recovery.cli.meanwhile import meanwhile
from recovery.engine.api import SOCKET
from recovery.errors import UsageError
from recovery.systemd import notify


@click.command()
@click.option("--socket", "path", type=click.Path(path_type=Path), default=Path(SOCKET), show_default=True,
              help="Unix socket to listen on; only the same user may speak to it.")  # fmt: skip
@click.option(
    "--log-directory", type=click.Path(path_type=Path, file_okay=False), help="Where to keep log and report."
)
@click.option("--loops", is_flag=True, help="Loop devices may be targets.")
@click.option(
    "--windows", is_flag=True, help="Turn on SSH and status page as medium and kernel words ask (the medium)."
)
@click.option("--look-inside/--no-look-inside", default=True,
              help="Mount filesystems read-only to find repositories and systems on them.")  # fmt: skip
@click.option(
    "--machine",
    "recorded",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    metavar="FILE",
    help="Rehearse in front of a recorded machine ('rekindle machine --json'): nothing can be written.",
)
@click.option("--repository", type=click.Path(path_type=Path, file_okay=False, exists=True), metavar="DIRECTORY",
              help="With --machine: stands for a repository on a disk of the machine.")  # fmt: skip
@click.option("--meanwhile", "command", default="", metavar="COMMAND",
              help="Runs while the engine is read; clients are answered when it has ended (the medium).")  # fmt: skip
def engine(
    path: Path,
    log_directory: Path | None,
    loops: bool,
    windows: bool,
    look_inside: bool,
    recorded: Path | None,
    repository: Path | None,
    command: str,
) -> None:
    """Run the engine as a service on a unix socket, until it gets SIGTERM. A run that goes on is stopped then."""
    wait = meanwhile(command)
    from recovery.engine.engine import Engine
    from recovery.engine.rehearsal import RecordedProber, Rehearsal
    from recovery.engine.server import EngineServer
    from recovery.machine.model import load_machine

    if recorded is not None:
        if windows or loops:
            raise UsageError(
                "A rehearsal (--machine) has neither --loops nor --windows: nothing is written or opened."
            )
        prober = RecordedProber(load_machine(recorded), repository)
        service: Engine = Rehearsal(prober, log_directory=log_directory)
    elif repository is not None:
        raise UsageError("--repository goes with --machine: else repositories are found on the disks.")
    else:
        service = Engine(log_directory=log_directory, loops=loops, look_inside=look_inside)
    server = EngineServer(service, path)

    def stop(number: int, frame: FrameType | None) -> None:
        server.stop()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    wait()
    click.echo(f"The engine listens on {path}.", err=True)
    notify("READY=1")
    if windows:
        line = Path("/proc/cmdline").read_text(errors="replace")
        threading.Thread(target=service.open_windows, args=(line,), daemon=True, name="windows").start()
    try:
        server.serve()
    finally:
        notify("STOPPING=1")
        service.close()
