"""Sets of byte ranges of one disk: sorted, disjoint, never touching; immutable and compact (16 bytes a range)."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator

Pair = tuple[int, int]


class Extents:
    """Byte ranges of a disk. Iterating gives ``(offset, length)`` in order of offset."""

    __slots__ = ("_ends", "_starts")

    def __init__(self, pairs: Iterable[Pair] = ()) -> None:
        """From ``(offset, length)`` in any order; overlaps and neighbours are merged, empty ones dropped.

        Raises ValueError for a negative offset or length.
        """
        ordered = list(pairs)
        if any(offset < 0 or length < 0 for offset, length in ordered):
            raise ValueError("an extent has a negative offset or length")
        self._starts = array("Q")
        self._ends = array("Q")
        ordered.sort()
        for offset, length in ordered:
            if length:
                self._append(offset, offset + length)

    def _append(self, start: int, end: int) -> None:
        # Only for ranges that come in order of their start.
        if self._ends and start <= self._ends[-1]:
            self._ends[-1] = max(self._ends[-1], end)
        else:
            self._starts.append(start)
            self._ends.append(end)

    @classmethod
    def from_ranges(cls, ranges: Iterable[Pair]) -> Extents:
        """From ``(start, end)`` in order of start, as fast as can be."""
        made = cls()
        for start, end in ranges:
            if end > start:
                made._append(start, end)
        return made

    @classmethod
    def whole(cls, size: int) -> Extents:
        """All of a disk of ``size`` bytes."""
        return cls([(0, size)])

    def __iter__(self) -> Iterator[Pair]:
        for start, end in self._ranges():
            yield start, end - start

    def _ranges(self) -> Iterator[Pair]:
        return zip(self._starts, self._ends, strict=True)

    def __len__(self) -> int:
        return len(self._starts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Extents) and (self._starts, self._ends) == (other._starts, other._ends)

    def __hash__(self) -> int:
        return hash((bytes(self._starts), bytes(self._ends)))

    def __repr__(self) -> str:
        return f"Extents({list(self)})"

    @property
    def bytes(self) -> int:
        """Bytes in all ranges together."""
        return sum(self._ends) - sum(self._starts)

    def __contains__(self, offset: object) -> bool:
        """Whether the byte at ``offset`` is in it."""
        if not isinstance(offset, int) or offset < 0:
            return False
        at = bisect_right(self._starts, offset) - 1
        return at >= 0 and offset < self._ends[at]

    def union(self, other: Extents) -> Extents:
        """What is in either."""
        if not other:
            return self
        if not self:
            return other
        return Extents([*self, *other])

    def minus(self, other: Extents) -> Extents:
        """What is in this one and not in ``other``."""
        return Extents.from_ranges(self._without(other))

    def _without(self, other: Extents) -> Iterator[Pair]:
        cuts = list(other._ranges())
        first = 0
        for start, end in self._ranges():
            while first < len(cuts) and cuts[first][1] <= start:
                first += 1
            at = first
            while at < len(cuts) and cuts[at][0] < end:
                yield start, cuts[at][0] if cuts[at][0] > start else start
                start = max(start, cuts[at][1])
                at += 1
            yield start, end

    def within(self, other: Extents) -> Extents:
        """What is in both."""
        return self.minus(self.minus(other))

    def aligned(self, block: int, size: int) -> Extents:
        """The whole blocks of ``block`` bytes that it touches, cut at the disk's ``size``."""
        return Extents.from_ranges(
            (start // block * block, min(size, -(-end // block) * block)) for start, end in self._ranges()
        )

    def blocks(self, block: int) -> Iterator[int]:
        """The numbers of the blocks of ``block`` bytes that it touches, each once, in order."""
        last = -1
        for start, end in self._ranges():
            for number in range(max(last + 1, start // block), -(-end // block)):
                last = number
                yield number

    def pieces(self, length: int) -> Iterator[Pair]:
        """``(offset, length)`` of ranges cut to at most ``length`` bytes."""
        for start, end in self._ranges():
            for offset in range(start, end, length):
                yield offset, min(length, end - offset)


#: Nothing.
NONE = Extents()
