"""``rekindle points``: the hosts of a repository, a host's recovery points, one point in detail."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import click
import msgspec
from rich import box
from rich.console import Console
from rich.table import Column, Table

from recovery.cli.access import open_repository, repository_options
from recovery.cli.console import PlainConsole
from recovery.errors import IntegrityError, UsageError
from recovery.format.extents import decode_runs
from recovery.format.point import LiveFigures, Point, PointDisk, PointSummary
from recovery.layout import Content, Occupancy, VirtualMachine
from recovery.repository.repository import Repository
from recovery.units import format_count, format_duration, format_size

#: An hour with more points shows its newest only, and says so.
_MOST_AN_HOUR = 6


@click.command()
@click.argument("location")
@click.argument("host", required=False)
@click.option(
    "--point",
    "point_id",
    default="",
    metavar="ID",
    help="Show this point (or 'latest', or the last one before a time) in detail.",
)
@click.option("--every", is_flag=True, help="Every minute; else an hour with more than 6 points shows its newest.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines: one for each point.")
@repository_options
def points(location: str, host: str | None, point_id: str, every: bool, as_json: bool, **access: Any) -> None:
    """List the hosts and recovery points in the repository at LOCATION, or those of HOST."""
    if point_id and not host:
        raise UsageError("Which host's point is it?", hint="Write: rekindle points LOCATION HOST --point ID")
    repository = open_repository(location, **access)
    console = PlainConsole()
    if host and point_id:
        point = repository.point(host, point_id)
        if as_json:
            click.echo(point_json(point))
        else:
            show_point(console, point)
        return
    hosts = [host] if host else repository.hosts()
    if not hosts and not as_json:
        console.print("There is no recovery point yet. Make one with 'rekindle capture'.")
    for name in hosts:
        _list(console, repository, name, every=every or as_json, as_json=as_json)


def point_json(point: Point) -> bytes:
    """For scripts, with the extents of VM disks unpacked: ``[place in the file, offset on the disk, bytes]`` each."""
    plain = msgspec.to_builtins(point)
    for vm, told in zip(point.body.vms, plain["body"]["vms"], strict=True):
        for disk, shown in zip(vm.disks, told["disks"], strict=True):
            if disk.occupies is not None:
                # Beside what is stored, so that the whole is still a Point.
                for part, told_part in zip(disk.occupies.disks, shown["occupies"]["disks"], strict=True):
                    told_part["extents"] = decode_runs(part.runs, disk.occupies.size, point.disk(part.disk).size)
    return msgspec.json.encode({"type": "point", **plain})


def occupied_words(occupies: Occupancy | None, unmapped: str, point: Point) -> str:
    """Where a VM's disk lies, in a few words; empty for points that do not say it."""
    if occupies is None:
        return f"; where it lies is not stored: {unmapped}" if unmapped else ""
    parts = []
    for part in occupies.disks:
        runs = decode_runs(part.runs, occupies.size, point.disk(part.disk).size)
        parts.append(
            f"{format_size(sum(run.length for run in runs))} in {format_count(len(runs), 'extent')} of {part.disk}"
        )
    return f"; {', '.join(parts) or 'it holds nothing'}"


def fold_hours(found: Sequence[PointSummary], most: int = _MOST_AN_HOUR) -> list[tuple[PointSummary, int]]:
    """Newest first, each with how many older ones of its hour it stands for: in an hour (of UTC) with more than
    ``most`` points the newest stands for all. Pure."""
    rows: list[tuple[PointSummary, int]] = []
    for _, group in groupby(sorted(found, key=lambda p: -p.created), key=lambda p: int(p.created // 3600)):
        hour = list(group)
        rows += [(hour[0], len(hour) - 1)] if len(hour) > most else [(point, 0) for point in hour]
    return rows


def _list(console: Console, repository: Repository, host: str, *, every: bool, as_json: bool) -> None:
    """A point that cannot be read is a line of its own: the others must be found all the same."""
    # The id is what people copy: it is never cut, however narrow the terminal.
    columns = (
        Column("point", no_wrap=True),
        Column("time", no_wrap=True),
        Column("consistency", no_wrap=True),
        Column("size", no_wrap=True),
    )
    table = Table(
        *columns,
        "VMs",
        "note",
        title=host,
        title_justify="left",
        box=box.SIMPLE,
        pad_edge=False,
        collapse_padding=True,
    )
    found = repository.points(host)
    rows = [(summary, 0) for summary in reversed(found)] if every else fold_hours(found)
    for summary, folded in rows:
        try:
            point = repository.point(host, summary.id)
        except IntegrityError as error:
            if as_json:
                damaged = {"type": "damaged-point", **msgspec.to_builtins(summary), "error": error.message}
                click.echo(msgspec.json.encode(damaged))
            table.add_row(summary.id[:12], _times(summary.created), "damaged", "", "", error.message)
            continue
        if as_json:
            click.echo(point_json(point))
        body = point.body
        vms = ", ".join(vm.name for vm in body.vms) or "none"
        table.add_row(
            point.id[:12], _times(summary.created), body.consistency, format_size(point.size), vms, body.note
        )  # fmt: skip
        if folded:
            table.add_row("", f"+{folded} more in this hour", "", "", "", "--every lists them")
    if not as_json:
        console.print(table)


def _times(created: float) -> str:
    """The local time, and UTC below it where that differs."""
    local, utc = local_time(created), utc_time(created)
    return local if local.endswith(" UTC") else f"{local}\n{utc}"


def local_time(seconds: float) -> str:
    """``2026-11-23 14:50:47 CET``: this machine's time, as people here say it."""
    return datetime.datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z").strip()


def utc_time(seconds: float) -> str:
    """``2026-11-23 13:50:47Z``."""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def show_point(console: Console, point: Point) -> None:
    """One point: its facts, disks with partition tables, LVM, and VMs."""
    header, body = point.header, point.body
    system = body.system
    secure = " with Secure Boot" if body.secure_boot and body.firmware == "uefi" else ""
    addresses = "; ".join(
        f"{item.interface} {', '.join(item.addresses) or ('DHCP' if item.dhcp else 'no address')}"
        for item in system.network
    )
    facts = {
        "Point": point.id,
        "Host": header.host,
        "Time": _times(header.created).replace("\n", ", "),
        "Parent": header.parent[:12] or "none",
        "Consistency": body.consistency,
        "Live": live_words(body.live) if body.live is not None else "",
        "Firmware": body.firmware + secure,
        "System": f"{system.os_name or 'unknown'}, {system.architecture}",
        "Kernels": ", ".join(system.kernels),
        "Boot": f"root on {system.root or 'unknown'}, /boot on {system.boot or 'unknown'}, "
        f"ESP {system.esp or 'none'}, {system.bootloader or 'unknown boot loader'}",
        "Network": addresses,
        "Note": body.note,
        "Captured": f"by {body.captured_by} in {format_duration(body.duration)}",
    }
    grid = Table.grid(padding=(0, 2))
    for name, text in facts.items():
        if text:
            grid.add_row(name, text)
    console.print(grid)
    for captured in body.disks:
        _show_disk(console, captured)
    for group in body.volume_groups:
        words = f"\nVolume group {group.name}: {format_size(group.size)}, {format_size(group.free)} free"
        console.print(words, markup=False)
        table = Table("LV", "size", "kind", "content")
        for volume in group.volumes:
            table.add_row(volume.name, format_size(volume.size), volume.segment, _describe(volume.content))
        console.print(table)
    for array in body.md_arrays:
        words = f"md array {array.name or array.uuid}: {array.level}, {len(array.members)} of {array.devices} devices"
        held = f", holds {_describe(array.content)}" if array.content.kind else ""
        console.print(f"{words}{held}", markup=False)
    for luks in body.luks_volumes:
        keys = ", ".join((f"{luks.slots} key slots", *luks.tokens))
        console.print(f"Encrypted: {luks.on} (LUKS{luks.version}, {luks.cipher}, {keys})", markup=False)
    if body.vms:
        console.print("\nVMs")
    # Lines, not a table: paths of disks must not be broken by a narrow terminal.
    for vm in body.vms:
        autostart = ", autostart" if vm.autostart else ""
        words = f"  {vm.name}: {format_size(vm.memory)}, {vm.vcpus} CPUs{autostart}, {vm.state}{guest_words(vm)}"
        console.print(words, markup=False, soft_wrap=True)
        for disk in vm.disks:
            size = f", {format_size(disk.size)}" if disk.size is not None else ""
            on = f", on {disk.on}" if disk.on else ""
            where = occupied_words(disk.occupies, disk.unmapped, point)
            words = f"    {disk.target}  {disk.source} ({disk.format}{size}{on}){where}"
            console.print(words, markup=False, soft_wrap=True)


def guest_words(vm: VirtualMachine) -> str:
    """How consistent a VM is in a point, and why no better; empty where that is not known."""
    if not vm.consistency:
        return ""
    if vm.consistency == "offline":
        return ", offline"
    return f", {vm.consistency} consistent" + (f" ({vm.unquiesced})" if vm.unquiesced else "")


def live_words(live: LiveFigures) -> str:
    """How a point of a running host came about, in one line."""
    still = [each.mount for each in live.filesystems if each.how == "still"]
    words = (
        f"frozen for {live.freeze_milliseconds:.0f} ms to read {format_size(live.remainder)}, "
        f"after {len(live.passes)} passes; changes known by {live.tracker}"
    )
    if live.volumes:
        words += f"; suspended: {', '.join(each.name for each in live.volumes)}"
    if still:
        words += f"; not frozen but still meanwhile: {', '.join(still)}"
    return words + (f"; all was compared ({live.full_compare})" if live.full_compare else "")


def _show_disk(console: Console, disk: PointDisk) -> None:
    identity = ", ".join(part for part in (disk.model, disk.serial and f"serial {disk.serial}", disk.wwn) if part)
    words = f"{disk.name}: {disk.device}, {format_size(disk.size)}, sectors of {disk.sector_size} bytes"
    words += f" ({identity})" if identity else ""
    figures = f"{format_size(disk.used)} used, {format_size(disk.changed)} changed, {format_size(disk.stored)} stored"
    if disk.journals:
        figures += f", keyframe and {disk.journals} journal{'' if disk.journals == 1 else 's'}"
    console.print(f"\n{words}\n{figures}", markup=False)
    if disk.table.kind == "none":
        console.print(f"no partition table; {_describe(disk.content)}", markup=False)
        return
    table = Table("partition", "start", "size", "type", "content")
    for part in disk.table.partitions:
        kind = ", ".join(part.flags) or part.type
        name = f"{part.number} {part.name}".strip()
        table.add_row(name, format_size(part.start), format_size(part.size), kind, _describe(part.content))
    console.print(f"{disk.table.kind} partition table {disk.table.uuid}", markup=False)
    console.print(table)


def _describe(content: Content) -> str:
    parts = [content.kind or "not recognised", content.label, content.uuid]
    used = f"{format_size(content.used)} used" if content.used is not None else ""
    return " ".join(part for part in (*parts, used) if part)
