"""``rekindle tui``: the recovery console on this terminal."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from recovery.cli.meanwhile import meanwhile
from recovery.engine.api import SOCKET
from recovery.errors import RekindleError, UsageError


@click.command(name="tui")
@click.option(
    "--socket", default=SOCKET, show_default=True, type=click.Path(path_type=Path), help="The engine's socket."
)
@click.option(
    "--meanwhile",
    "command",
    default="",
    metavar="COMMAND",
    help="Runs on this terminal while the console is read; drawn is when it has ended (the medium).",
)
@click.option(
    "--log-directory",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where the engine keeps its log: a bug of the console is reported there.",
)
def tui(socket: Path, command: str, log_directory: Path | None) -> None:
    """Open the recovery console: choose a point, choose disks, restore, restart.

    It is a client of 'rekindle engine'. Works on the Linux console, on serial lines and over SSH.
    """
    if not (os.isatty(0) and os.isatty(2)):
        raise UsageError(
            "The console needs a terminal on its input and its error output.",
            hint="In a systemd unit set StandardInput=tty and StandardError=tty; else use 'rekindle restore'.",
        )
    wait = meanwhile(command)
    from recovery.tui import crash, terminal

    terminal.prepare()

    from recovery.engine.client import EngineClient
    from recovery.tui.app import ConsoleApp

    wait()
    folder = crash.log_folder(log_directory)
    app = ConsoleApp(EngineClient(socket), terminal.ConsoleDriver, terminal.charset(os.environ))
    app.session.crash = crash.take_notice(folder)
    app.run(mouse=False)
    if app.failure is not None:
        report = crash.keep_report(app.failure, folder, [type(screen).__name__ for screen in app.screen_stack])
        raise RekindleError(
            f"The console stopped: {type(app.failure).__name__}. A report is in {report}.",
            hint="A running restore goes on. Start 'rekindle tui' again, and send the report to the maintainers.",
        )
    sys.stdout.flush()
