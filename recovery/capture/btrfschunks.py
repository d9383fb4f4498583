"""Btrfs tells where files lie in addresses of its own; its chunk tree says which bytes of the device these are.

Layout: include/uapi/linux/btrfs_tree.h and btrfs.h. Filesystems on one device only (``single`` and ``DUP``).
"""

from __future__ import annotations

import bisect
import fcntl
import struct

from recovery.format.extents import Run

#: BTRFS_IOC_TREE_SEARCH_V2: _IOWR(0x94, 17, struct btrfs_ioctl_search_args_v2)
_SEARCH = 0xC0709411
_KEY, _ITEM = struct.Struct("<7Q4I4Q"), struct.Struct("<QQQII")
_CHUNK, _STRIPE = struct.Struct("<QQQQIIIHH"), struct.Struct("<QQ16x")
_CHUNK_TREE, _OBJECT, _TYPE = 3, 256, 228
_BUFFER = 64 * 1024
#: RAID0, RAID10, RAID5, RAID6: a chunk lies in stripes over devices.
_STRIPED = 0x8 | 0x40 | 0x80 | 0x100


class UnmappedError(Exception):
    """Where a file lies cannot be said, or not in terms of plain bytes of its disk; why, in words for the point. No
    capture ends by it, so it has no exit code."""


class ChunkTree:
    """The chunk tree of the btrfs that a file lies in. Needs CAP_SYS_ADMIN."""

    def __init__(self, descriptor: int) -> None:
        """Raises UnmappedError."""
        self._starts: list[int] = []
        #: Length and place on the device of each chunk.
        self._chunks: list[tuple[int, int]] = []
        devices: set[int] = set()
        offset = 0
        while True:
            items = self._search(descriptor, offset)
            for logical, chunk in items:
                length, _, _, flags, _, _, _, stripes, _ = _CHUNK.unpack_from(chunk)
                if flags & _STRIPED:
                    raise UnmappedError("its btrfs lies in stripes")
                found = [_STRIPE.unpack_from(chunk, _CHUNK.size + n * _STRIPE.size) for n in range(stripes)]
                devices |= {device for device, _ in found}
                self._starts.append(logical)
                self._chunks.append((length, found[0][1]))
            if not items:
                break
            offset = items[-1][0] + 1
        if len(devices) > 1:
            raise UnmappedError("its btrfs lies on several devices")

    @staticmethod
    def _search(descriptor: int, offset: int) -> list[tuple[int, bytes]]:
        """Chunks from the address ``offset`` on."""
        top = (1 << 64) - 1
        buffer = bytearray(_KEY.size + 8 + _BUFFER)
        _KEY.pack_into(
            buffer, 0, _CHUNK_TREE, _OBJECT, _OBJECT, offset, top, 0, top, _TYPE, _TYPE, 4096, 0, 0, 0, 0, 0
        )
        struct.pack_into("<Q", buffer, _KEY.size, _BUFFER)
        try:
            fcntl.ioctl(descriptor, _SEARCH, buffer)
        except OSError as error:
            raise UnmappedError(f"the chunks of its btrfs cannot be read ({error.strerror})") from error
        count, place, items = _KEY.unpack_from(buffer)[9], _KEY.size + 8, []
        for _ in range(count):
            _, _, logical, _, length = _ITEM.unpack_from(buffer, place)
            place += _ITEM.size
            items.append((logical, bytes(buffer[place : place + length])))
            place += length
        return items

    def place(self, run: Run) -> list[Run]:
        """A run in btrfs' addresses as runs of the device. Raises UnmappedError."""
        found: list[Run] = []
        at, logical, left = run
        while left:
            number = bisect.bisect_right(self._starts, logical) - 1
            length, offset = self._chunks[number] if number >= 0 else (0, 0)
            within = logical - self._starts[number] if number >= 0 else 0
            if within >= length:
                raise UnmappedError("its btrfs has no chunk for a part of it")
            part = min(left, length - within)
            found.append(Run(at, offset + within, part))
            at, logical, left = at + part, logical + part, left - part
        return found
