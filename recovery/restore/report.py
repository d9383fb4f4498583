"""What a restore of one disk reports."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from recovery.layout import PartitionTable
from recovery.units import format_count, format_size


class Damage(msgspec.Struct, frozen=True, kw_only=True):
    """``length`` bytes at ``offset`` of the disk that no copy of the repository had: zeros lie there now.

    ``partition`` is the number of the partition they lie in (0: in none), ``content`` what that one holds.
    """

    offset: int
    length: int
    partition: int = 0
    content: str = ""

    def place(self) -> str:
        """Where that is, for people."""
        what = f" ({self.content})" if self.content else ""
        inside = f"partition {self.partition}{what}" if self.partition else "outside of any partition"
        return f"byte {self.offset}: {self.length} bytes, {inside}"


class DiskReport(msgspec.Struct, frozen=True, kw_only=True):
    """What happened to one disk, bytes: ``logical = written + zeroed + skipped``.

    ``verified`` says that what was read back from the disk afterwards was right, ``verified_bytes`` how much that was.
    ``root`` is the signed root (hex) of the content; ``root_matched``: all of the disk was read back, and its Merkle
    root is that one, or with ``journals`` the one that keyframe and so many journals under it make. ``damaged`` was
    lost, and is zeros; it is part of ``zeroed``.
    """

    disk: str
    target: str
    logical: int
    transferred: int
    written: int
    zeroed: int
    skipped: int
    seconds: float
    verified: bool = False
    verified_bytes: int = 0
    root: str = ""
    root_matched: bool = False
    journals: int = 0
    damaged: tuple[Damage, ...] = ()

    @property
    def lost(self) -> int:
        """Bytes that no copy of the repository had."""
        return sum(damage.length for damage in self.damaged)

    def verdict(self) -> str:
        """What is known of the content, for people: how much was read back, the root, and what was lost."""
        if not self.verified:
            return "not read back"
        if self.damaged:
            places = format_count(len(self.damaged), "place")
            return f"{format_size(self.lost)} lost in {places}, the rest read back without a difference"
        if self.root_matched and self.journals:
            made = f"what the keyframe and {self.journals} journals under the signed root make"
            return f"all of it read back, it is {made}: {self.root}"
        if self.root_matched:
            return f"all of it read back, its Merkle root is the signed one: {self.root}"
        return f"{format_size(self.verified_bytes)} of it read back as a sample, no difference"


def locate_damage(ranges: Iterable[tuple[int, int]], table: PartitionTable) -> tuple[Damage, ...]:
    """Ranges (offset, length) of the disk by offset, neighbours joined, cut where partitions begin and end. Pure."""
    return tuple(damage for start, end in _joined(ranges) for damage in _cut(start, end, table))


def _joined(ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    begin = end = -1
    for offset, length in sorted(ranges):
        if offset > end:
            if end > begin:
                yield begin, end
            begin = offset
        end = max(end, offset + length)
    if end > begin:
        yield begin, end


def _cut(start: int, end: int, table: PartitionTable) -> Iterator[Damage]:
    borders = {border for part in table.partitions for border in (part.start, part.start + part.size)}
    cuts = [start, *sorted(border for border in borders if start < border < end), end]
    for begin, stop in zip(cuts, cuts[1:], strict=False):
        # The innermost one: a logical partition lies in an extended one.
        inside = [part for part in table.partitions if part.start <= begin < part.start + part.size]
        found = min(inside, key=lambda part: part.size, default=None)
        yield Damage(
            offset=begin, length=stop - begin, partition=found.number if found else 0,
            content=found.content.kind if found else "",
        )  # fmt: skip
