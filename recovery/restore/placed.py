"""A target on which a captured disk lies otherwise than it was captured: its parts moved, cut short or left out.

Offsets are those of the captured disk, so that all of the restore works as for any target; here they become places of
the target.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence, Set
from threading import Lock
from typing import NamedTuple

from recovery.restore.buffers import page_buffer
from recovery.restore.ranges import ZeroRange
from recovery.restore.target import ALIGNMENT, Target


class Extent(NamedTuple):
    """``length`` bytes from ``source`` of the captured disk lie at ``target`` of the target."""

    source: int
    length: int
    target: int


class PlacedTarget(Target):
    """Writes and reads the parts of the captured disk that ``extents`` name (in order, not overlapping); what lies
    beside them is not written.

    Of a chunk that lies in an extent only in part the rest is kept in memory (at most two chunks an extent), so that
    whole chunks can be compared and read back.
    """

    def __init__(self, path: str, extents: Sequence[Extent]) -> None:
        """Open ``path``. Raises as Target does."""
        self._extents = tuple(extents)
        self._starts = [extent.source for extent in self._extents]
        self._beside: dict[int, bytes] = {}
        self._lock = Lock()
        super().__init__(path, max((extent.target + extent.length for extent in self._extents), default=0))

    def write(self, offset: int, data: memoryview) -> None:
        """Write those parts of ``data`` that have a place. Raises as Target.write."""
        for at, length, place in self._cut(offset, len(data)):
            piece = data[at : at + length]
            if place is None:
                with self._lock:
                    self._beside[offset + at] = bytes(piece)
            elif at % ALIGNMENT:
                aligned = page_buffer(length)
                aligned[:] = piece
                super().write(place, aligned)
            else:
                super().write(place, piece)

    def read(self, offset: int, buffer: memoryview) -> None:
        """Fill ``buffer`` as if the target were the captured disk; what has no place and was not written is zeros."""
        for at, length, place in self._cut(offset, len(buffer)):
            piece = buffer[at : at + length]
            if place is None:
                with self._lock:
                    piece[:] = self._beside.get(offset + at, b"").ljust(length, b"\0")[:length]
            elif at % ALIGNMENT:
                aligned = page_buffer(length)
                super().read(place, aligned)
                piece[:] = aligned
            else:
                super().read(place, piece)

    def zero(self, offset: int, length: int) -> None:
        """Make those parts of a range that have a place read as zeros."""
        for at, count, place in self._cut(offset, length):
            if place is not None:
                super().zero(place, count)
            else:
                with self._lock:
                    self._beside.pop(offset + at, None)

    def _cut(self, offset: int, length: int) -> Iterator[tuple[int, int, int | None]]:
        """The range as (from where in it, length, place on the target or None)."""
        at = 0
        while at < length:
            here = offset + at
            number = bisect_right(self._starts, here) - 1
            extent = self._extents[number] if number >= 0 else None
            if extent is not None and here < extent.source + extent.length:
                count = min(length - at, extent.source + extent.length - here)
                yield at, count, extent.target + here - extent.source
            else:
                following = self._starts[number + 1] if number + 1 < len(self._starts) else here + length
                count = min(length - at, following - here)
                yield at, count, None
            at += count


class Outside(Set[int]):
    """The indexes of the chunks of which no byte has a place, and ``more``, as a set that takes no room."""

    def __init__(self, extents: Sequence[Extent], chunk_size: int, count: int, more: Set[int] = frozenset()) -> None:
        self._count, self._more = count, more
        self._runs: list[tuple[int, int]] = []
        for extent in extents:
            if not extent.length:
                continue
            first, last = extent.source // chunk_size, (extent.source + extent.length - 1) // chunk_size
            if self._runs and first <= self._runs[-1][1]:
                first, _ = self._runs.pop()
            self._runs.append((first, min(last + 1, count)))
        self._firsts = [first for first, _ in self._runs]

    def and_also(self, more: Set[int]) -> Outside:
        """These and ``more``."""
        both = Outside((), 1, self._count, more)
        both._runs, both._firsts = self._runs, self._firsts
        return both

    @property
    def runs(self) -> list[tuple[int, int]]:
        """The chunks that do have a place: (first, first behind) of each run."""
        return self._runs

    def __contains__(self, index: object) -> bool:
        if not isinstance(index, int) or not 0 <= index < self._count:
            return False
        if index in self._more:
            return True
        number = bisect_right(self._firsts, index) - 1
        return number < 0 or index >= self._runs[number][1]

    def __iter__(self) -> Iterator[int]:
        return (index for index in range(self._count) if index in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def clip(zeros: Iterator[ZeroRange], runs: Sequence[tuple[int, int]], chunk_size: int) -> Iterator[ZeroRange]:
    """Those parts of ranges of zeros that lie in ``runs`` of chunks. Pure."""
    for zero in zeros:
        for first, last in runs:
            start, end = max(zero.offset, first * chunk_size), min(zero.offset + zero.length, last * chunk_size)
            if start < end:
                yield ZeroRange(start, end - start)
