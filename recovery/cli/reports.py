"""``rekindle reports``: what recovery media told the server about their runs."""

from __future__ import annotations

from pathlib import Path

import click

from recovery.cli.console import printable
from recovery.cli.user import json_option, open_state, show, state_option, when
from recovery.units import format_duration


@click.command()
@click.option("--host", default="", metavar="HOST", help="Only of this host.")
@state_option
@json_option
def reports(host: str, state: Path, as_json: bool) -> None:
    """List how restores from this server ended, as the recovery media reported it; the newest comes last."""
    from rekindle_server.reports import Reports

    kept = Reports(open_state(state)).list(host)
    lines = []
    for entry in kept:
        report = entry.report
        took = f" after {format_duration(report.seconds)}" if report.seconds else ""
        lines.append(f"{when(entry.at)}  {report.outcome:<9} {report.host}{took}: {report.message}")
        about = " ".join(filter(None, (report.machine, report.point[:12] and f"point {report.point[:12]}")))
        lines.append(f"    from {entry.address} ({entry.actor}){', ' + about if about else ''}")
        lines += [f"    - {text}" for text in (*report.reasons, *report.warnings)]
    show(as_json, kept, [printable(line) for line in lines] or ["No run was reported yet."])
