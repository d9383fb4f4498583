"""Where the bytes of a file lie within its filesystem, as the kernel says it (FIEMAP). Nothing is written."""

from __future__ import annotations

import fcntl
import struct
from collections.abc import Callable, Iterator

from recovery.capture.btrfschunks import ChunkTree, UnmappedError
from recovery.format.extents import UNIT, Run, join_runs

#: include/uapi/linux/fiemap.h: _IOWR('f', 11, struct fiemap)
_FIEMAP = 0xC020660B
_HEAD, _EXTENT = struct.Struct("<QQIIII"), struct.Struct("<QQQ16xI12x")
_LAST, _UNWRITTEN = 0x1, 0x800
#: Flag -> why the bytes at that place are not those of the file.
_UNFIT = (
    (0x2 | 0x4, "a part of it has no place on the disk yet"),
    (0x80, "it is encrypted by its filesystem"),
    (0x8, "it is compressed by its filesystem"),
    (0x200 | 0x400 | 0x100, "a part of it lies within the filesystem's own structures"),
)
#: Extents asked for at once: 56 bytes each, and the time of a call is short enough to stop between two.
_AT_ONCE = 2048
#: Of one file; a file in more pieces is not worth a list.
MAX_RUNS = 200_000


def file_runs(descriptor: int, kind: str, in_time: Callable[[], bool] = lambda: True) -> list[Run]:
    """Where the written bytes of an open file lie on the device of its filesystem of kind ``kind``; the rest reads as
    zeros. Does not write out what is in memory: the file must be still, or its filesystem frozen.

    Raises UnmappedError: the filesystem cannot tell, the bytes there are not those of the file, ``in_time`` ended.
    """
    found: list[Run] = []
    for at, offset, length in _extents(descriptor, in_time):
        found.append(Run(at, offset, length))
        if len(found) > MAX_RUNS:
            raise UnmappedError(f"it lies in more than {MAX_RUNS} pieces")
    if kind == "btrfs":
        tree = ChunkTree(descriptor)
        found = [piece for run in found for piece in tree.place(run)]
    if any(number % UNIT for run in found for number in run):
        raise UnmappedError("a part of it lies within the filesystem's own structures")
    return join_runs(found)


def _extents(descriptor: int, in_time: Callable[[], bool]) -> Iterator[tuple[int, int, int]]:
    buffer = bytearray(_HEAD.size + _AT_ONCE * _EXTENT.size)
    start = 0
    while True:
        if not in_time():
            raise UnmappedError("there was no time to ask for all of its extents")
        _HEAD.pack_into(buffer, 0, start, (1 << 64) - 1 - start, 0, 0, _AT_ONCE, 0)
        try:
            fcntl.ioctl(descriptor, _FIEMAP, buffer)
        except OSError as error:
            raise UnmappedError(f"its filesystem does not tell where it lies ({error.strerror})") from error
        count = _HEAD.unpack_from(buffer)[3]
        if not count:
            return
        for number in range(count):
            at, offset, length, flags = _EXTENT.unpack_from(buffer, _HEAD.size + number * _EXTENT.size)
            for flag, why in _UNFIT:
                if flags & flag:
                    raise UnmappedError(why)
            if not flags & _UNWRITTEN:
                yield at, offset, length
            start = at + length
            if flags & _LAST:
                return
