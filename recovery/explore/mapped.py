"""Where the bytes of a volume or file lie on the disks of a point. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from recovery.capture.ranges import Extent
from recovery.format.extents import Run


@dataclass(frozen=True, slots=True)
class Piece:
    """``length`` bytes at ``at`` of something lie at ``offset`` of disk ``disk`` of the point."""

    at: int
    disk: str
    offset: int
    length: int


@dataclass(frozen=True)
class Mapped:
    """Something of ``size`` bytes that lies in pieces, in their order; what is in none reads as zeros."""

    size: int
    pieces: tuple[Piece, ...]

    def part(self, offset: int, length: int, at: int = 0) -> list[Piece]:
        """The pieces of ``length`` bytes at ``offset``, as pieces of something else in which these begin at ``at``."""
        end = min(offset + length, self.size)
        index = max(0, bisect_right(self.pieces, offset, key=lambda piece: piece.at) - 1)
        found: list[Piece] = []
        # By index: a fragmented volume has hundreds of thousands of them, and is asked for single blocks.
        for number in range(index, len(self.pieces)):
            piece = self.pieces[number]
            if piece.at >= end:
                break
            begin, stop = max(offset, piece.at), min(end, piece.at + piece.length)
            if begin < stop:
                found.append(Piece(at + begin - offset, piece.disk, piece.offset + begin - piece.at, stop - begin))
        return found


def of_extents(extents: Sequence[Extent]) -> Mapped:
    """A volume whose extents, one after another, name disks of the point."""
    pieces, at = [], 0
    for extent in extents:
        pieces.append(Piece(at, extent.path.name, extent.offset, extent.length))
        at += extent.length
    return Mapped(at, tuple(pieces))


def of_runs(runs: Iterable[Run], within: Mapped, size: int) -> Mapped:
    """Something of ``size`` bytes whose runs, in its order, lie in another thing. Raises ValueError when a run lies
    beyond its end."""
    pieces: list[Piece] = []
    for run in runs:
        if run.offset + run.length > within.size:
            raise ValueError(f"{run.length} bytes at {run.offset} lie beyond its end at {within.size}")
        pieces += within.part(run.offset, run.length, run.at)
    return Mapped(size, tuple(pieces))
