"""Extents in a compact form: where the bytes of a file or volume lie on a disk. Bytes: docs/format.md, "Extents"."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from recovery.errors import IntegrityError

#: Extents are multiples of this many bytes: the smallest sector of a disk.
UNIT = 512
#: No number in it is longer than 64 bits: bytes of a varint.
_LONGEST = 10


class Run(NamedTuple):
    """``length`` bytes at ``at`` of a file or volume lie at ``offset`` of a disk."""

    at: int
    offset: int
    length: int


def join_runs(runs: Iterable[Run]) -> list[Run]:
    """The runs by their place in the file, neighbours that touch on both sides made one."""
    joined: list[Run] = []
    for run in sorted(runs):
        last = joined[-1] if joined else None
        if last and last.at + last.length == run.at and last.offset + last.length == run.offset:
            joined[-1] = Run(last.at, last.offset, last.length + run.length)
        else:
            joined.append(run)
    return joined


def encode_runs(runs: Iterable[Run]) -> bytes:
    """Pack runs that do not overlap in the file: per run the gap to the end of the one before in the file, the way to
    its end on the disk (zigzag) and its length, in sectors, as LEB128. Raises ValueError for what is no whole sector.
    """
    out = bytearray()
    at = offset = 0
    for run in join_runs(runs):
        if any(number % UNIT for number in run) or run.length <= 0 or run.at < at:
            raise ValueError("extents are whole sectors and do not overlap")
        way = (run.offset - offset) // UNIT
        for number in ((run.at - at) // UNIT, way << 1 if way >= 0 else (-way << 1) - 1, run.length // UNIT):
            _put(out, number)
        at, offset = run.at + run.length, run.offset + run.length
    return bytes(out)


def decode_runs(data: bytes, size: int, disk_size: int) -> list[Run]:
    """The runs of something of ``size`` bytes on a disk of ``disk_size`` bytes, cut off at its end.

    Raises IntegrityError for what is cut short, empty, or beyond the end of the disk.
    """
    runs: list[Run] = []
    at = offset = place = 0
    while place < len(data):
        numbers = []
        for _ in range(3):
            number, place = _take(data, place)
            numbers.append(number)
        gap, way, length = numbers
        at, offset = at + gap * UNIT, offset + (way >> 1 if not way & 1 else -((way + 1) >> 1)) * UNIT
        end = offset + length * UNIT
        if not length or offset < 0 or end > disk_size + UNIT - 1:
            raise IntegrityError("Extents in the point make no sense.")
        kept = min(length * UNIT, size - at, disk_size - offset)
        if kept > 0:
            runs.append(Run(at, offset, kept))
        at, offset = at + length * UNIT, end
    return runs


def _put(out: bytearray, number: int) -> None:
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)


def _take(data: bytes, place: int) -> tuple[int, int]:
    number = 0
    for shift in range(_LONGEST):
        if place >= len(data):
            break
        byte = data[place]
        place += 1
        number |= (byte & 0x7F) << 7 * shift
        if byte < 0x80:
            return number, place
    raise IntegrityError("Extents in the point are cut short.")
