"""Words for what the engine's data means to the operator. Pure: values in, text out."""

from __future__ import annotations

import textwrap
from datetime import UTC, datetime
from pathlib import PurePosixPath

from recovery.engine.api import ServerIdentity
from recovery.format.point import Consistency, Point
from recovery.layout import Content, VirtualMachine
from recovery.machine.model import Disk, Machine, Nic
from recovery.plan.model import Problem
from recovery.units import format_count, format_size

CONSISTENCY: dict[Consistency, str] = {
    "crash": "crash (like after a power cut)",
    "filesystem": "filesystem (filesystems were frozen)",
    "application": "application (databases were told)",
    "offline": "offline (the host was shut down)",
}

#: What ``network_line`` says where there is none.
NO_ADDRESS = "no address yet"

FIRMWARE = {"bios": "legacy BIOS", "uefi": "UEFI", "unknown": "firmware not known"}

SEVERITY = {"error": "ERROR", "warning": "Warning", "info": "Note"}


def hang(text: str, width: int, indent: int = 2) -> str:
    """Each line of ``text`` wrapped to ``width`` cells; what follows is indented ``indent`` deeper than its start."""
    lines = []
    for line in text.split("\n"):
        depth = len(line) - len(line.lstrip())
        lines += textwrap.wrap(line, max(width, 20), subsequent_indent=" " * (depth + indent)) or [""]
    return "\n".join(lines)


def utc(seconds: float, clock: str = "%H:%M") -> str:
    """``2026-11-20 03:00 UTC``."""
    return datetime.fromtimestamp(seconds, UTC).strftime(f"%Y-%m-%d {clock} UTC")


def local(seconds: float, clock: str = "%H:%M") -> str:
    """``2026-11-20 04:00 CET``: this machine's time zone (a medium without one says UTC)."""
    return datetime.fromtimestamp(seconds).astimezone().strftime(f"%Y-%m-%d {clock} %Z")


def moment(seconds: float, clock: str = "%H:%M") -> str:
    """Local time and UTC; once, where that is the same. ``clock``: to the minute, or as strftime takes it."""
    here, there = local(seconds, clock), utc(seconds, clock)
    return here if here == there else f"{here} = {there}"


def age(seconds: float, now: float) -> str:
    """``3 hours ago``; a clock that runs behind is said, not hidden."""
    passed = now - seconds
    if passed < -60:
        return "in the future (check the clock)"
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        count = int(passed // length)
        if count:
            return f"{format_count(count, unit)} ago"
    return "just now"


def short_name(path: str) -> str:
    """``/dev/nvme0n1`` -> ``nvme0n1``."""
    return PurePosixPath(path).name


def disk_row(disk: Disk) -> str:
    """Identity in one line: name, size, bus, model, serial."""
    return (
        f"{short_name(disk.path):<9.9} {format_size(disk.size):>8} {disk.bus:<6} "
        f"{disk.model or 'no model':<18.18} {disk.serial or 'no serial':<16.16}"
    )


def holds(disk: Disk) -> str:
    """What is on it, in a word or two behind its row: a system's name, a volume group, a filesystem, ``blank``,
    ``medium``, ``repository``, ``unknown``."""
    if disk.boot_medium or disk.repository:
        return "medium" if disk.boot_medium else "repository"
    if disk.blank:
        return "blank"
    kinds = [content.kind for content in (disk.content, *(part.content for part in disk.table.partitions))]
    group = f"LVM {disk.volume_groups[0]}" if disk.volume_groups else ""
    return next(iter(disk.systems), "") or group or next((kind for kind in kinds if kind), "") or "unknown"


def unavailable(disk: Disk) -> str:
    """Why this disk must not be chosen, in sentences; empty when it may be."""
    reasons = []
    if disk.boot_medium:
        reasons.append("It is the medium this console was started from.")
    if disk.repository:
        reasons.append("It holds a repository; overwriting it would destroy recovery points.")
    if disk.read_only:
        reasons.append("It is read-only.")
    reasons.extend(sentence for sentence in disk.busy if sentence not in reasons)
    return " ".join(reasons)


def _content(content: Content) -> str:
    label = f" '{content.label}'" if content.label else ""
    used = f", {format_size(content.used)} used" if content.used is not None else ""
    return f"{content.kind or 'nothing recognised'}{label}{used}"


def disk_contents(disk: Disk) -> list[str]:
    """What lies on it: systems, partitions, volume groups; one line each."""
    if disk.blank:
        return ["Blank: no partition table and no filesystem found."]
    lines = [f"Found: {system}" for system in disk.systems]
    if disk.volume_groups:
        lines.append(f"Volume groups: {', '.join(disk.volume_groups)}")
    if disk.table.kind == "none":
        lines.append(f"Whole disk: {_content(disk.content)}")
    else:
        lines.append(
            f"{disk.table.kind.upper()} partition table, {format_count(len(disk.table.partitions), 'partition')}:"
        )
        lines.extend(
            f"  {part.number}: {format_size(part.size)} {_content(part.content)}"
            + (f" ({part.name})" if part.name else "")
            for part in disk.table.partitions
        )
    return lines


def lies_on(point: Point, where: str) -> str:
    """``vg0/data`` -> ``vg0/data on disk1``; ``disk1:2`` -> ``disk1 partition 2``; empty when not known."""
    if not where:
        return ""
    disk, _, number = where.partition(":")
    if number or "/" not in where:
        return f"{disk} partition {number}" if number else disk
    pvs = next((g.pv_uuids for g in point.body.volume_groups if g.name == where.partition("/")[0]), ())
    on = [
        disk.name
        for disk in point.body.disks
        if any(c.uuid and c.uuid in pvs for c in (disk.content, *(part.content for part in disk.table.partitions)))
    ]
    return f"{where} on {', '.join(on)}" if on else where


def vm_lines(vm: VirtualMachine, point: Point) -> list[str]:
    """``web1  running  2 CPU  4.00 GiB  starts with the host  crash consistent``, a line for each of its disks."""
    start = "  starts with the host" if vm.autostart else ""
    memory = f"  {format_size(vm.memory)}" if vm.memory else ""
    # What was shut off was at rest, which its state says.
    how = f"  {vm.consistency} consistent" if vm.consistency in ("application", "crash") else ""
    lines = [
        f"{vm.name:<14} {'state unknown' if vm.state == 'unknown' else vm.state:<9} {vm.vcpus} CPU{memory}{start}{how}"
    ]
    for disk in vm.disks:
        size = f"{format_size(disk.size)} " if disk.size is not None else ""
        on = lies_on(point, disk.on)
        lines.append(f"  {disk.target} {size}{disk.format} {disk.source}{', ' + on if on else ''}")
    return lines or ["no disks"]


def point_lines(point: Point, now: float) -> list[str]:
    """The details of a recovery point: what decides first, then disks, then each VM."""
    body = point.body
    used, changed = sum(disk.used for disk in body.disks), sum(disk.changed for disk in body.disks)
    since = f"{format_size(changed)} since the point before; " if point.header.parent else ""
    lines = [
        f"Taken        {moment(point.header.created, '%H:%M:%S')}, {age(point.header.created, now)}",
        f"Consistency  {CONSISTENCY[body.consistency]}",
        f"Changed      {since}{format_size(used)} in use of {format_size(point.size)}",
        f"System       {body.system.os_name or 'not recognised'}, {FIRMWARE[body.firmware]}"
        f"{' with Secure Boot' if body.secure_boot else ''}",
    ]
    if body.note:
        lines.append(f"Note         {body.note}")
    lines += [f"VMs          {', '.join(vm.name for vm in body.vms) or 'none found'}"]
    lines += [
        f"Disk         {disk.name}: {format_size(disk.size)}, {format_size(disk.used)} in use, "
        f"was {disk.device or 'unnamed'} {disk.model}".rstrip()
        for disk in body.disks
    ]
    for vm in body.vms:
        head, *disks = vm_lines(vm, point)
        lines += [f"VM           {head}", *(f"             {disk}" for disk in disks)]
    return lines


def nic_row(nic: Nic) -> str:
    """One line of the list of interfaces: name, driver, link, addresses, MAC address."""
    addresses = ", ".join(nic.addresses) or "no address"
    return f"{nic.name:<12.12} {nic.driver or 'unknown':<10.10} {nic.link:<13} {addresses:<18} {nic.mac}"


def usable_addresses(nic: Nic) -> list[str]:
    """Addresses that reach further than the next switch: no link-local ones."""
    return [address for address in nic.addresses if not address.startswith(("169.254.", "fe80:", "127.", "::1"))]


def network_line(machine: Machine) -> str:
    """``enp3s0 192.168.1.20/24``, or that there is none."""
    parts = [f"{nic.name} {', '.join(usable_addresses(nic))}" for nic in machine.nics if usable_addresses(nic)]
    return "; ".join(parts) or NO_ADDRESS


def problem_text(problem: Problem) -> str:
    """What, why and what to do, indented below its severity."""
    lines = [f"{SEVERITY[problem.severity]}: {problem.what}"]
    if problem.why:
        lines.append(f"  Why: {problem.why}")
    if problem.todo:
        lines.append(f"  To do: {problem.todo}")
    return "\n".join(lines)


def to_compare(identity: ServerIdentity) -> str:
    """The fingerprint that 'rekindle serve' prints: of the server's CA, else of its certificate."""
    return identity.ca_fingerprint or identity.fingerprint


def fingerprint_lines(fingerprint: str) -> str:
    """As 'rekindle serve' prints it, ``4E:A5:...``, on two lines so that it fits beside a label."""
    clean = fingerprint.replace(":", "").upper()
    pairs = [clean[start : start + 2] for start in range(0, len(clean), 2)]
    half = (len(pairs) + 1) // 2
    return ":".join(pairs[:half]) + ":\n" + ":".join(pairs[half:])
