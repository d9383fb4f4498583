"""Where the partitions of a captured disk lie on a target of another size or sector size. Pure.

Starts stay where that works; else the partitions are packed in their order, each as far from a whole MiB as it was, so
that what was aligned stays aligned. What must give way are the partitions that can be shrunk, in proportion to the
room each has to spare.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from recovery.format.point import PointDisk
from recovery.layout import Landing, Partition, PartitionTable, Placement, PlacementWay
from recovery.plan.minimum import minimum
from recovery.plan.names import BIOS_BOOT
from recovery.units import MIB

#: Types of an MBR's extended partition.
_EXTENDED = ("05", "0f", "85")
#: The bytes of a GPT's 128 entries, UEFI specification 5.3.
_ENTRIES = 16384
_MOST_ENTRIES = 128
#: An MBR counts sectors in 32 bits.
_MBR_SECTORS = 2**32


@dataclass(frozen=True)
class NoRoom:
    """It does not fit: with all that can be shrunk at its smallest the disk must have ``needed`` bytes."""

    needed: int


def needs_landing(source: PointDisk, size: int, sector_size: int) -> bool:
    """Whether a target of that size cannot take the disk byte for byte."""
    return size < source.size or sector_size != source.sector_size


def land(source: PointDisk, size: int, sector_size: int, grow: int | None = None) -> Landing | NoRoom | str:
    """The layout for a target of ``size`` bytes in sectors of ``sector_size``; a string says why there can be none.

    ``grow``: the number of a partition that gets the room that is left; what follows it moves to the end."""
    table = source.table
    if table.kind == "none" and not source.content.kind:
        return "it has neither a partition table nor a filesystem that is known, so nothing on it can be moved"
    if table.kind == "gpt" and any(part.number > _MOST_ENTRIES for part in table.partitions):
        return f"its partition table has more than {_MOST_ENTRIES} entries"
    if table.kind == "mbr" and any(a.start + a.size > b.start for a, b in _neighbours(real_partitions(source))):
        return "partitions in its table overlap"
    bounds = _bounds(table, size, sector_size)
    parts = real_partitions(source)
    for attempt in (_in_place, _packed):
        placed = attempt(parts, bounds, table, sector_size)
        if placed is not None:
            if grow is not None:
                placed = _stretched(parts, placed, grow, bounds)
            return _landing(source, parts, placed, sector_size)
    least = [(part.start, _least(part, sector_size)) for part in parts]
    end = _pack(parts, [length for _, length in least], bounds, table, sector_size)[1]
    behind = 0 if table.kind != "gpt" else sector_size + _ENTRIES
    return NoRoom(-(-(end + behind) // MIB) * MIB)


def real_partitions(source: PointDisk) -> list[Partition]:
    """The partitions that hold something, by their start; a disk without a table counts as one, of number 0."""
    if source.table.kind == "none":
        return [Partition(number=0, start=0, size=source.size, content=source.content)]
    real = [part for part in source.table.partitions if not _is_container(part, source.table)]
    return sorted(real, key=lambda part: part.start)


def _is_container(part: Partition, table: PartitionTable) -> bool:
    return table.kind == "mbr" and part.type.lower() in _EXTENDED


def _neighbours(parts: Sequence[Partition]) -> zip[tuple[Partition, Partition]]:
    return zip(parts, parts[1:], strict=False)


@dataclass(frozen=True)
class _Bounds:
    """The first byte that partitions may use, and the first behind them."""

    first: int
    end: int


def _bounds(table: PartitionTable, size: int, sector: int) -> _Bounds:
    if table.kind == "none":
        return _Bounds(0, size // sector * sector)
    if table.kind == "gpt":
        return _Bounds(2 * sector + _ENTRIES, size // sector * sector - sector - _ENTRIES)
    return _Bounds(sector, min(size // sector, _MBR_SECTORS) * sector)


#: (start, size) of each partition, in their order.
_Places = list[tuple[int, int]]


def _in_place(parts: Sequence[Partition], bounds: _Bounds, table: PartitionTable, sector: int) -> _Places | None:
    """All starts as they are; only the last partition may lose room at its end."""
    places: _Places = []
    for number, part in enumerate(parts):
        start, end = part.start, part.start + part.size
        if part.type == BIOS_BOOT:
            start = _up(max(start, bounds.first), sector)
            end = end // sector * sector
        if start % sector or start < bounds.first or end <= start:
            return None
        behind = parts[number + 1] if parts[number + 1 :] else None
        limit = behind.start - _lead(behind, table, sector) if behind else bounds.end
        if _up(end, sector) > limit:
            least = minimum(part)
            end = start + (limit - start) // MIB * MIB
            if behind or least is None or end - start < least:
                return None
        places.append((start, _up(end, sector) - start))
    return places


def _packed(parts: Sequence[Partition], bounds: _Bounds, table: PartitionTable, sector: int) -> _Places | None:
    """One behind the other; what can be shrunk gives way."""
    sizes = [_up(part.size, sector) for part in parts]
    least = [_least(part, sector) for part in parts]
    while True:
        places, end = _pack(parts, sizes, bounds, table, sector)
        over = end - bounds.end
        if over <= 0:
            return places
        spare = [max(0, size - small) // MIB * MIB for size, small in zip(sizes, least, strict=True)]
        total = sum(spare)
        if not total:
            return None
        wanted = min(_up(over, MIB), total)
        for at, room in enumerate(spare):
            # Rounded down, so that nothing gives more than it has; the largest gives what is left over.
            sizes[at] = _cut(sizes[at], wanted * room // total // MIB * MIB)
        left = wanted - sum(wanted * room // total // MIB * MIB for room in spare)
        most = max(range(len(parts)), key=lambda at: sizes[at] - least[at])
        sizes[most] = _cut(sizes[most], min(left, max(0, sizes[most] - least[most]) // MIB * MIB))


def _stretched(parts: Sequence[Partition], places: _Places, number: int, bounds: _Bounds) -> _Places:
    """Partition ``number`` takes the room behind the last one. The gaps stay, and so does the alignment."""
    room = max(0, bounds.end - sum(places[-1])) // MIB * MIB if places else 0
    at = next((index for index, part in enumerate(parts) if part.number == number), None)
    if at is None:
        return places
    grown = (places[at][0], places[at][1] + room)
    return [*places[:at], grown, *((start + room, size) for start, size in places[at + 1 :])]


def _cut(size: int, less: int) -> int:
    """A size that was changed is whole MiB, so that every filesystem's block divides it."""
    return size if not less else (size - less) // MIB * MIB


def _pack(
    parts: Sequence[Partition], sizes: Sequence[int], bounds: _Bounds, table: PartitionTable, sector: int
) -> tuple[_Places, int]:
    places: _Places = []
    cursor = max(bounds.first, min((part.start for part in parts), default=0))
    for part, size in zip(parts, sizes, strict=True):
        start = _next(cursor + _lead(part, table, sector), part.start, sector)
        places.append((start, size))
        cursor = start + size
    return places, cursor


def _next(cursor: int, old: int, sector: int) -> int:
    """The first start from ``cursor`` on that lies as the old one does against whole MiB, or on one."""
    off = old % MIB if old % sector == 0 else 0
    return _up(cursor - off, MIB) + off if cursor > off else off


def _lead(part: Partition, table: PartitionTable, sector: int) -> int:
    """Room before a logical partition for the table entry that it is described in."""
    return 2 * sector if table.kind == "mbr" and part.number > 4 else 0


def _least(part: Partition, sector: int) -> int:
    """The smallest size in bytes that a plan may give it."""
    full = _up(part.size, sector)
    small = minimum(part)
    return full if small is None else min(full, _up(small, MIB))


def _landing(source: PointDisk, parts: Sequence[Partition], places: _Places, sector: int) -> Landing:
    placements = tuple(
        Placement(
            number=part.number, old_start=part.start, old_size=part.size, start=start, size=size,
            way=_way(part, start, size, source.sector_size, sector), content=part.content,
        )
        for part, (start, size) in zip(parts, places, strict=True)
    )  # fmt: skip
    return Landing(sector_size=sector, table=_table(source.table, placements, sector), placements=placements)


def _way(part: Partition, start: int, size: int, old_sector: int, sector: int) -> PlacementWay:
    if part.type == BIOS_BOOT:  # GRUB finds the rest of itself there by sector number
        return "copy" if (start, size, old_sector) == (part.start, part.size, sector) else "room"
    # FAT counts in the sectors that it was made for; firmware and kernel read it on no others.
    if part.content.kind == "vfat" and sector != old_sector and part.content.block_size != sector:
        return "remake"
    return "shrink" if size < part.size else "copy"


def _table(table: PartitionTable, placements: Sequence[Placement], sector: int) -> PartitionTable:
    where = {placed.number: (placed.start, placed.size) for placed in placements}
    logical = [(start, start + size) for number, (start, size) in where.items() if number > 4]
    partitions = []
    for part in table.partitions:
        start, size = where.get(part.number, (0, 0))
        if _is_container(part, table):
            if not logical:  # an empty container holds nothing, and has no place of its own any more
                continue
            start = min(begin for begin, _ in logical) - 2 * sector
            size = max(end for _, end in logical) - start
        partitions.append(msgspec.structs.replace(part, start=start, size=size))
    partitions.sort(key=lambda part: (part.start, part.number))
    return msgspec.structs.replace(table, partitions=tuple(partitions))


def _up(value: int, unit: int) -> int:
    return -(-value // unit) * unit
