"""Byte ranges of raw files and block devices: what a partition or a logical volume is, without device-mapper."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from recovery.errors import DeviceError


@dataclass(frozen=True)
class Extent:
    """``length`` bytes at ``offset`` of the raw file or block device ``path``."""

    path: Path
    offset: int
    length: int


def total(extents: Sequence[Extent]) -> int:
    """Bytes of all extents together."""
    return sum(extent.length for extent in extents)


def cut(extents: Sequence[Extent], offset: int, length: int) -> tuple[Extent, ...]:
    """The part ``[offset, offset+length)`` of the volume that the extents form one after another.

    Shorter when the volume ends before; neighbours that touch are merged.
    """
    pieces: list[Extent] = []
    position, end = 0, offset + length
    for extent in extents:
        start = max(offset, position)
        stop = min(end, position + extent.length)
        if start < stop:
            piece = Extent(extent.path, extent.offset + start - position, stop - start)
            last = pieces[-1] if pieces else None
            if last and last.path == piece.path and last.offset + last.length == piece.offset:
                pieces[-1] = Extent(last.path, last.offset, last.length + piece.length)
            else:
                pieces.append(piece)
        position += extent.length
    return tuple(pieces)


def read_range(path: Path, offset: int, length: int) -> bytes:
    """Bytes of a raw file or device; fewer only at its end. Raises DeviceError."""
    try:
        with path.open("rb", buffering=0) as file:
            parts: list[bytes] = []
            while length > 0:
                part = os.pread(file.fileno(), length, offset)
                if not part:
                    break
                parts.append(part)
                offset, length = offset + len(part), length - len(part)
            return b"".join(parts)
    except OSError as error:
        raise DeviceError(
            f"'{path}' cannot be read at byte {offset}: {error.strerror}.",
            hint="Look at the kernel's log (dmesg) and the disk's SMART state.",
        ) from error


def read_extents(extents: Sequence[Extent], offset: int, length: int) -> bytes:
    """Bytes of a volume made of extents; fewer only at its end. Raises DeviceError."""
    return b"".join(read_range(piece.path, piece.offset, piece.length) for piece in cut(extents, offset, length))
