"""Does a captured disk fit on its target: size and sector size, and what must be moved, shrunk or made anew. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from recovery.format.point import PointDisk
from recovery.layout import Landing, VolumeGroup
from recovery.machine.model import Disk, Machine
from recovery.plan.landing import NoRoom, needs_landing, real_partitions
from recovery.plan.lvm import land_groups, with_minimum
from recovery.plan.minimum import minimum, why_not
from recovery.plan.model import Problem
from recovery.plan.names import BOOT_TYPES, short_name
from recovery.plan.sectors import obstacles, unseen
from recovery.units import MIB, format_size


def check_place(
    source: PointDisk, target: Disk, machine: Machine, groups: tuple[VolumeGroup, ...] = ()
) -> Iterator[Problem]:
    """The errors that forbid this pair, else what will be done to make it fit."""
    if not needs_landing(source, target.size, target.sector_size):
        return
    found: Landing | NoRoom | str = "a file has no sectors, and can be as large as it needs to be"
    if target.bus != "file":
        found = land_groups(source, target.size, target.sector_size, groups=groups)
    if target.sector_size != source.sector_size:
        yield from _check_sectors(source, target, machine, groups, found)
    if target.size < source.size and not isinstance(found, Landing):
        yield _too_small(with_minimum(source, groups), target, found)
    if isinstance(found, Landing):
        yield from _what_changes(source, target, found, groups)


def _check_sectors(
    source: PointDisk, target: Disk, machine: Machine, groups: tuple[VolumeGroup, ...], found: Landing | NoRoom | str
) -> Iterator[Problem]:
    reasons = obstacles(source, real_partitions(source), target.sector_size, groups)
    if isinstance(found, str):
        reasons.append(f"It cannot be laid out anew: {found}.")
    elif isinstance(found, NoRoom) and target.size >= source.size:
        reasons.append(f"Its partitions need {found.needed} bytes in sectors of that size.")
    boots = any(part.type in BOOT_TYPES or "boot" in part.flags for part in source.table.partitions)
    if machine.firmware == "bios" and target.sector_size != 512 and boots:
        reasons.append("A legacy BIOS reads sectors of 512 bytes only, so it could not start from there.")
    if reasons:
        yield Problem(
            severity="error",
            code="sector-size-differs",
            what=f"{short_name(target)} has sectors of {target.sector_size} bytes, {source.name} had "
            f"{source.sector_size}.",
            why=" ".join(reasons),
            todo="Choose a disk with the same sector size; many NVMe disks can be reformatted with 'nvme format'.",
        )


def _too_small(source: PointDisk, target: Disk, found: NoRoom | str) -> Problem:
    fewer = (
        f"It has {target.size} bytes, {source.size - target.size} fewer than the {source.size} of the captured disk "
        f"({format_size(target.size)} against {format_size(source.size)})."
    )
    if isinstance(found, str):
        return Problem(
            severity="error",
            code="target-too-small",
            what=f"{short_name(target)} is too small for {source.name}.",
            why=f"{fewer} It cannot be laid out anew: {found}.",
            todo="Choose a disk of at least that size.",
        )
    stiff = [
        f"partition {part.number} ({format_size(part.size)}): {why_not(part)}"
        if part.number
        else f"the disk: {why_not(part)}"
        for part in real_partitions(source)
        if minimum(part) is None and part.size >= 64 * MIB
    ]
    return Problem(
        severity="error",
        code="target-too-small",
        what=f"{short_name(target)} is too small for {source.name}, even with everything shrunk that can be.",
        why=f"{fewer} What it holds needs a disk of {format_size(found.needed)} ({found.needed} bytes)."
        + (f" Not to be shrunk: {'; '.join(stiff)}." if stiff else ""),
        todo=f"Choose a disk of at least {format_size(found.needed)}.",
    )


def _what_changes(
    source: PointDisk, target: Disk, landing: Landing, groups: tuple[VolumeGroup, ...]
) -> Iterator[Problem]:
    shrunk = [
        f"{_name(placed.number)} ({placed.content.kind}) from {format_size(placed.old_size)} to "
        f"{format_size(placed.size)}"
        for placed in landing.placements
        if placed.way == "shrink"
    ]
    volumes = [volume for placed in landing.placements for volume in placed.volumes]
    shrunk += [
        f"volume {volume.group}/{volume.name} ({volume.content.kind}) from {format_size(volume.old_size)} to "
        f"{format_size(volume.size)}"
        for volume in volumes
        if volume.size < volume.old_size
    ]
    moved = [str(placed.number) for placed in landing.placements if placed.moved]
    anew = [f"{_name(placed.number)} (FAT)" for placed in landing.placements if placed.way == "remake"]
    words = [f"Made smaller by its own tools: {', '.join(shrunk)}."] if shrunk else []
    words += [f"Moved: partition {', '.join(moved)}."] if moved else []
    if anew:
        words.append(f"Made anew for the other sectors, with the same files, label and UUID: {', '.join(anew)}.")
    if target.size < source.size:
        yield Problem(
            # Somebody must know that what lies there is not laid out as it was, also where nobody looks.
            severity="warning" if shrunk else "info",
            code="target-smaller",
            what=f"{target.path} is {format_size(source.size - target.size)} smaller than {source.name}.",
            why=" ".join(words) or "What is left out is room that no partition has.",
            todo="Choose a larger disk if that is not wanted." if shrunk else "",
        )
    if target.sector_size != source.sector_size:
        hidden = unseen(source, real_partitions(source), target.sector_size, groups)
        if hidden:
            words.append(f"Not looked into, so a filesystem there may not bear it: {', '.join(hidden)}.")
        yield Problem(
            severity="warning" if hidden else "info",
            code="sector-size-converted",
            what=f"The partition table is written for sectors of {target.sector_size} bytes instead of "
            f"{source.sector_size}.",
            why=" ".join(words) if target.size >= source.size or hidden else "",
            todo="Disks of VMs bear it; look at what the host itself mounts." if hidden else "",
        )


def _name(number: int) -> str:
    return f"partition {number}" if number else "the whole disk"
