"""``rekindle unattended``: restore by answers given beforehand, and the plain window in which it is watched."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from recovery.cli.console import printable
from recovery.engine.api import SOCKET
from recovery.errors import PlanRefusedError, UsageError


@click.command()
@click.option(
    "--socket", default=SOCKET, show_default=True, type=click.Path(path_type=Path), help="The engine's socket."
)
@click.option("--watch", is_flag=True, help="Only show it on this terminal, and let a key stop it.")
@click.option("--check", metavar="FILE", type=click.Path(path_type=Path), help="Only look whether FILE is right.")
@click.option("--patience", default=600.0, show_default=True, help="Seconds to wait for engine, network and server.")
def unattended(socket: Path, watch: bool, check: Path | None, patience: float) -> None:
    """Restore without a person, by 'rekindle.toml' on a volume labelled REKINDLE and 'rekindle.*' words of the kernel.

    Refuses on any doubt, and says why here and to the server. Before the first write it counts down; a key pressed in
    any window stops it. docs/unattended.md has the keys and an example.
    """
    if check is not None:
        _check(check)
        return
    from recovery.engine.client import EngineClient

    # It starts together with us, on a slow machine a good while later: that is no doubt, and nothing to give up for.
    engine = EngineClient(socket, patience=patience)
    if watch:
        if not os.isatty(0):
            raise UsageError("--watch needs a terminal.", hint="Without it the restore is driven, not watched.")
        from recovery.cli.unattended_window import watch_unattended

        watch_unattended(engine)
        return
    from recovery.engine.unattended import Driver

    ended = Driver(engine, server_patience=patience, tell=lambda text: click.echo(printable(text), err=True)).run()
    if ended.phase in ("refused", "stopped", "failed"):
        raise PlanRefusedError(ended.message, hint=" ".join(ended.reasons))
    sys.stdout.flush()


def _check(file: Path) -> None:
    from recovery.plan.answers import parse_answers

    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"'{file}' cannot be read: {error}.") from error
    answers = parse_answers(text)
    disks = (
        answers.disks if isinstance(answers.disks, str) else ", ".join(f"{k}={v}" for k, v in answers.disks.items())
    )
    click.echo(f"{file} is right: restore {answers.host} to {answers.point}, disks {disks}; then {answers.after}.")
    if not answers.unattended:
        click.echo("It starts only from the boot menu's unattended entry; 'unattended = true' starts it always.")
