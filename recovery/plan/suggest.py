"""Which disk each disk of the point should go to, and why. Pure."""

from __future__ import annotations

from recovery.format.point import Point, PointDisk
from recovery.machine.identity import normal_words, normal_wwn, same_device
from recovery.machine.model import Bus, Disk, Machine
from recovery.plan.model import Suggestion
from recovery.units import format_size


def suggest(point: Point, machine: Machine) -> list[Suggestion]:
    """One suggestion per disk of the point, in its order. A disk is suggested once; never one that is in use, the boot
    medium, holds a repository, is read-only, too small or has another sector size.

    The very disk that was captured comes first, then one that looks the same, then the smallest blank one that is
    large enough, then the smallest at all. Large sources choose first, so that they do not lose their only fit.
    """
    free = [disk for disk in machine.disks if may_be_suggested(disk) and not _is_second_path(disk, machine)]
    chosen: dict[str, tuple[Disk, str]] = {}
    waiting = list(point.body.disks)
    for source in list(waiting):
        same = next((d for d in free if is_captured_disk(source, d) and _fits(source, d)), None)
        if same:
            chosen[source.name] = (same, "It is the very disk that was captured: its serial number is the same.")
            free.remove(same)
            waiting.remove(source)
    for source in sorted(waiting, key=lambda s: -s.size):
        best = _best([disk for disk in free if _fits(source, disk)], source)
        if best:
            chosen[source.name] = best
            free.remove(best[0])
    return [
        Suggestion(disk=source.name, target=chosen[source.name][0].id, reason=chosen[source.name][1])
        if source.name in chosen
        else Suggestion(disk=source.name, target="", reason=_why_none(source, machine))
        for source in point.body.disks
    ]


def may_be_suggested(disk: Disk) -> bool:
    """Nothing forbids writing to it. Removable disks are somebody's sticks: they may be chosen, not suggested."""
    return not (disk.busy or disk.boot_medium or disk.repository or disk.read_only or disk.removable)


def _is_second_path(disk: Disk, machine: Machine) -> bool:
    """Another path to the same disk comes first, or is in use."""
    twins = [other for other in machine.disks if same_device(disk, other)]
    return any(twin.path < disk.path or not may_be_suggested(twin) for twin in twins)


def _fits(source: PointDisk, disk: Disk) -> bool:
    return disk.size >= source.size and disk.sector_size == source.sector_size


def is_captured_disk(source: PointDisk, disk: Disk) -> bool:
    """The very disk that was captured: the same WWN, else the same serial number and model."""
    wwn = normal_wwn(source.wwn)
    if wwn and disk.wwn:
        return wwn == disk.wwn
    serial = normal_words(source.serial)
    return bool(serial) and serial == disk.serial and normal_words(source.model) in ("", disk.model)


def _bus_class(source: PointDisk) -> Bus:
    name = source.device.rpartition("/")[2]
    for start, bus in (("nvme", "nvme"), ("vd", "virtio"), ("mmcblk", "mmc")):
        if name.startswith(start):
            return bus  # type: ignore[return-value]
    return "sata" if name.startswith("sd") else "other"


def _best(disks: list[Disk], source: PointDisk) -> tuple[Disk, str] | None:
    if not disks:
        return None
    bus = _bus_class(source)
    alike = [d for d in disks if d.size == source.size and (d.bus == bus or (bus == "sata" and d.bus == "scsi"))]
    if alike:
        disk = min(alike, key=lambda d: (not d.blank, d.path))
        return disk, f"It has the same size and connection as {source.name}{_state(disk)}."
    blank = [disk for disk in disks if disk.blank]
    if blank:
        disk = min(blank, key=lambda d: (d.size, d.path))
        return disk, f"It is the smallest blank disk on which {format_size(source.size)} fit."
    disk = min(disks, key=lambda d: (d.size, d.path))
    return disk, f"It is the smallest disk on which {format_size(source.size)} fit{_state(disk)}."


def _state(disk: Disk) -> str:
    return ", and is blank" if disk.blank else ", but it holds data that would be lost"


def _why_none(source: PointDisk, machine: Machine) -> str:
    size = format_size(source.size)
    large = [disk for disk in machine.disks if disk.size >= source.size]
    if not large:
        return f"No disk of this machine has the {size} needed."
    if not any(disk.sector_size == source.sector_size for disk in large):
        return f"No disk of {size} or more has sectors of {source.sector_size} bytes."
    if all(not may_be_suggested(disk) for disk in large):
        return f"Every disk of {size} or more is in use, removable, read-only, the medium or holds a repository."
    return f"The disks of {size} or more that fit are needed for the host's other disks."
