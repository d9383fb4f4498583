"""``scripts/demo``: plays the story for a person."""

from __future__ import annotations

import os
import secrets
import sys
import time
from pathlib import Path
from typing import cast

import click
from rich.console import Console

from recovery.units import format_duration
from tests.e2e.lab.hardware import Firmware
from tests.e2e.lab.storyboard.live import LiveSource
from tests.e2e.lab.storyboard.report import DemoReport
from tests.e2e.lab.storyboard.stage import Stage
from tests.e2e.lab.storyboard.story import Options, play


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--firmware", type=click.Choice(["bios", "uefi", "uefi-sb"]), default="uefi", show_default=True)
@click.option("--keep", is_flag=True, help="Keep disks, repository and ISO of this run.")
@click.option("--interactive", is_flag=True, help="You drive the console, in a VNC viewer.")
@click.option("--live", is_flag=True, help="The host runs with the agent on it, and its power fails.")
@click.option("--seed", type=int, default=None, help="With --live: repeats the moment of the power cut.")
@click.option(
    "--output", type=click.Path(path_type=Path, file_okay=False), help="Folder of this run (default: out/demo-<time>)."
)
def demo(firmware: str, keep: bool, interactive: bool, live: bool, seed: int | None, output: Path | None) -> None:
    """A virtualization host dies and comes back on bare metal, through the real medium and its console."""
    folder = (
        output or Path("out") / time.strftime(f"demo-{'live-' if live else ''}{firmware}-%Y%m%d-%H%M%S")
    ).resolve()
    console = Console()
    if os.geteuid() != 0:
        raise click.ClickException("Building a host's disk needs root: sudo scripts/demo")
    if folder.exists() and any(folder.iterdir()):
        raise click.ClickException(f"'{folder}' is not empty (an earlier run?): give another --output.")
    stage = Stage(folder, DemoReport(firmware), console)
    source = LiveSource(stage, secrets.randbelow(10**6) if seed is None else seed) if live else None
    report = play(Options(folder, cast(Firmware, firmware), keep, interactive, live=source), stage)
    held = sum(check.held for check in report.checks)
    if report.error:
        console.print("[red]It did not end well:[/]")
        console.print(report.error, markup=False, highlight=False)
    colour = "green" if report.ok else "red"
    console.print(
        f"[{colour}]{held} of {len(report.checks)} checks held[/], {format_duration(report.seconds)}, "
        f"{len(report.screenshots)} pictures in {folder / 'screens'}",
        highlight=False,
        soft_wrap=True,
    )
    print(folder / "report.json")
    sys.exit(0 if report.ok else 1)


if __name__ == "__main__":
    demo()
