"""The partition table of a source: our parser for ids and types; libparted (pyparted) for flags and second opinion."""

from __future__ import annotations

from pathlib import Path

import msgspec

from recovery.capture.ranges import read_range
from recovery.capture.rawtable import FoundTable, parse_table
from recovery.capture.sources import Source
from recovery.layout import Partition


def read_table(source: Source) -> FoundTable:
    """The table of the source's disk. Raises DeviceError."""
    found = parse_table(
        lambda offset, length: read_range(source.path, offset, length),
        source.size,
        source.sector_size,
        guess=not source.is_device,
    )
    if found.table.kind == "none":
        return found
    flags = _parted_partitions(source.path) if found.sector_size == source.sector_size else None
    if flags is None:
        return found
    ours = {part.number: (part.start, part.size) for part in found.table.partitions}
    theirs = {number: (start, size) for number, (start, size, _) in flags.items()}
    problem = found.problem
    if ours != theirs and not problem:
        problem = f"libparted reads the partition table differently: {theirs} instead of {ours}"
    partitions = tuple(_with_flags(part, flags) for part in found.table.partitions)
    return FoundTable(msgspec.structs.replace(found.table, partitions=partitions), found.sector_size, problem)


def _with_flags(part: Partition, flags: dict[int, tuple[int, int, tuple[str, ...]]]) -> Partition:
    known = flags.get(part.number)
    extra = tuple(flag for flag in known[2] if flag not in part.flags) if known else ()
    return msgspec.structs.replace(part, flags=part.flags + extra)


def _parted_partitions(path: Path) -> dict[int, tuple[int, int, tuple[str, ...]]] | None:
    """number -> (start, size, flags) as libparted sees them; None where it cannot read the disk."""
    try:
        # Imported here: pyparted is Debian's package, and everything but this second opinion works without.
        import parted
    except ImportError:
        return None
    try:
        device = parted.getDevice(str(path))
        disk = parted.newDisk(device)
        sector = int(device.sectorSize)
        return {
            int(part.number): (
                int(part.geometry.start) * sector,
                int(part.geometry.length) * sector,
                tuple(str(part.getFlagsAsString()).split(", ")) if part.getFlagsAsString() else (),
            )
            for part in disk.partitions
        }
    except Exception:
        # pyparted raises a dozen unrelated classes (and bare Exceptions) for damaged tables; ours has been read.
        return None
