"""``rekindle restore``: plan, ask, restore, report."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
import msgspec

from recovery.cli.access import open_copies, read_secret, repository_options
from recovery.cli.follow import follow
from recovery.cli.progress import progress_listener
from recovery.cli.targets import (
    LUKS_PROMPT,
    are_files,
    care_options,
    grow_options,
    hibernation_option,
    luks_option,
    parse_pairs,
    parse_targets,
    swap_option,
)
from recovery.engine.again import with_access
from recovery.engine.api import Report
from recovery.engine.confirm import check_allowed
from recovery.engine.engine import Engine
from recovery.errors import IntegrityError, UnsafeTargetError, UsageError, from_report
from recovery.plan.growth import wishes
from recovery.plan.model import Choices, RestorePlan
from recovery.plan.names import short_name
from recovery.plan.render import render_plan
from recovery.units import format_duration, format_rate, format_size

_LACKS_SECRET = "luks-secret-missing"  # noqa: S105 - a problem's code


@click.command()
@click.argument("location")
@click.option("--host", required=True, help="The host to restore.")
@click.option("--point", "point_id", default="latest", show_default=True, metavar="ID|TIME",
              help="Id of the point, or its beginning; or a time ('14:03', 'yesterday 14:03', '2025-11-20T14:03Z'): "
                   "the newest point at or before it.")  # fmt: skip
@click.option("--target", "targets", multiple=True, required=True, metavar="DISK=TARGET",
              help="Where a disk of the point goes: a disk (id or /dev/...), or a file for a raw image.")  # fmt: skip
@click.option("--confirm", "confirmed", multiple=True, metavar="DISK=SERIAL",
              help="The serial number (or size in bytes) of the target of DISK, instead of typing it.")  # fmt: skip
@click.option("--adapt/--no-adapt", default=None, help="Make the host boot on this machine (default: on disks).")
@grow_options
@swap_option
@hibernation_option
@care_options
@luks_option
@click.option("--loops", is_flag=True, help="Loop devices may be targets.")
@click.option("--json", "as_json", is_flag=True, help="JSON lines: the plan, the events, the report.")
@repository_options
def restore(
    location: str,
    host: str,
    point_id: str,
    targets: tuple[str, ...],
    confirmed: tuple[str, ...],
    adapt: bool | None,
    grow: bool,
    grow_to: tuple[str, ...],
    to_gpt: bool,
    use_swap: bool,
    drop_hibernation: bool,
    verify: bool,
    copies: tuple[str, ...],
    skip_damaged: bool,
    luks_secret_file: Path | None,
    loops: bool,
    as_json: bool,
    **access: Any,
) -> None:
    """Restore a host from the repository at LOCATION onto disks or into image files."""
    chosen = parse_targets(targets)
    grow, grow_to = wishes(grow_to, grow)
    given = parse_pairs(confirmed, "--confirm")
    wanted = adapt if adapt is not None else not are_files(chosen)
    repository = open_copies((location, *copies), **access)
    engine = Engine(look_inside=not are_files(chosen), loops=loops)
    try:
        engine.adopt(repository)
        choices = Choices(
            host=host, point=point_id, targets=chosen, adapt=wanted, grow=grow, grow_to=grow_to, to_gpt=to_gpt,
            use_swap=use_swap, drop_hibernation=drop_hibernation, verify=verify, skip_damaged=skip_damaged,
        )  # fmt: skip
        if luks_secret_file is not None:
            engine.luks_secret(read_secret(luks_secret_file, LUKS_PROMPT))
        plan = engine.plan(choices)
        if _only_lacks_secret(plan) and luks_secret_file is None and sys.stdin.isatty():
            click.echo(next(p.what for p in plan.problems if p.code == _LACKS_SECRET), err=True)
            engine.luks_secret(read_secret(None, LUKS_PROMPT))
            plan = engine.plan(choices)
        show_plan(plan, as_json=as_json)
        check_allowed(plan)
        engine.start(plan.id, confirmations(plan, given))
        with progress_listener(as_json=as_json) as listener:
            finished = follow(engine, listener)
        report = engine.state().report
        if report is not None:
            if report.go_on:
                report = msgspec.structs.replace(report, go_on=with_access(report.go_on, {"loops": loops, **access}))
            show_report(report, as_json=as_json)
        if finished.error is not None:
            raise from_report(finished.error)
        if report is not None:
            check_whole(report)
    finally:
        engine.close()


def _only_lacks_secret(plan: RestorePlan) -> bool:
    """Nothing but the passphrase of what is encrypted keeps the plan from being run."""
    return {problem.code for problem in plan.problems if problem.severity == "error"} == {_LACKS_SECRET}


def check_whole(report: Report) -> None:
    """Raises IntegrityError (exit code 5) when a part of a disk was in no copy of the repository."""
    if hurt := [disk for disk in report.disks if disk.damaged]:
        what = ", ".join(f"{disk.lost} bytes of {disk.disk}" for disk in hurt)
        raise IntegrityError(
            f"The restore is complete except for {what}, which no copy of the repository has: zeros lie there.",
            hint="The report lists the places. Check the filesystems on them, or restore an older point.",
        )


def show_plan(plan: RestorePlan, *, as_json: bool) -> None:
    """On stdout, before anything is asked."""
    if as_json:
        click.echo(msgspec.json.encode({"type": "plan", "plan": plan}))
        return
    for line in render_plan(plan):
        click.echo(line)


def confirmations(plan: RestorePlan, given: dict[str, str]) -> dict[str, str]:
    """What is typed for each target. An image file that does not exist yet needs nothing: nothing is lost.

    Raises UnsafeTargetError when there is no terminal to ask on, UsageError for a disk that the plan does not have.
    """
    names = {assignment.source.name for assignment in plan.assignments}
    if unknown := sorted(set(given) - names):
        raise UsageError(f"--confirm names {', '.join(unknown)}, which the plan does not have.")
    typed: dict[str, str] = {}
    for assignment in plan.assignments:
        source, target = assignment.source, assignment.target
        if source.name in given:
            typed[target.id] = given[source.name]
        elif target.bus == "file" and not Path(target.path).exists():
            typed[target.id] = target.confirmation
        elif not sys.stdin.isatty():
            raise UnsafeTargetError(
                f"{short_name(target)} was not confirmed, and there is no terminal to ask on. Nothing was written.",
                hint=f"Give --confirm {source.name}=SERIAL: its serial number, or its size in bytes if it has none.",
            )
        else:
            what = "serial number" if target.serial else f"size in bytes, {target.size},"
            click.echo(f"\nEverything on {short_name(target)} will be overwritten.", err=True)
            typed[target.id] = click.prompt(f"Type its {what} to go on", err=True)
    return typed


def show_report(report: Report, *, as_json: bool) -> None:
    """What was done, on stdout."""
    if as_json:
        click.echo(msgspec.json.encode({"type": "report", "report": report}))
        return
    seconds = max(report.finished - report.started, 0.001)
    total = sum(disk.logical for disk in report.disks)
    click.echo(f"\n{report.host}, point {report.point[:12]}: {format_size(total)} in {format_duration(seconds)}")
    for disk in report.disks:
        rate = format_rate(disk.logical / disk.seconds) if disk.seconds else ""
        click.echo(
            f"  {disk.disk} -> {disk.target}: {format_size(disk.logical)}, {rate}; {format_size(disk.transferred)} "
            f"transferred, {format_size(disk.written)} written, {format_size(disk.zeroed)} zeroed, "
            f"{format_size(disk.skipped)} skipped; {disk.verdict()}"
        )
        for damage in disk.damaged:
            click.echo(f"    lost: {damage.place()}")
    for change in report.changes:
        click.echo(f"  changed: {change}")
    for warning in report.warnings:
        click.echo(f"  warning: {warning}")
    for path in report.incomplete:
        click.echo(f"  not complete: {path} has no partition table and no boot sector; it does not boot")
    if report.go_on:
        click.echo(f"  to go on: {report.go_on}")
    click.echo(f"  log: {report.log_path}")
