"""md RAID members by their own superblocks (versions 1.0, 1.1, 1.2), because nothing may be assembled here. Pure
apart from the reads. Layout: the kernel's ``include/uapi/linux/raid/md_p.h``."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from recovery.capture.ranges import Extent, read_extents, total
from recovery.layout import MdArray

_MAGIC = 0xA92B4EFC
_SECTOR = 512


def read_member(where: Sequence[Extent]) -> MdArray | None:
    """The array that this member belongs to, or None. Raises DeviceError."""
    size = total(where)
    # 1.0 lies at the end: at least 8 KiB before it, aligned to 4 KiB.
    at_end = ((size // _SECTOR - 16) & ~7) * _SECTOR
    for offset in (4096, 0, at_end):
        if offset < 0:
            continue
        array = parse_superblock(read_extents(where, offset, 256))
        if array:
            return array
    return None


def parse_superblock(block: bytes) -> MdArray | None:
    """The array described by a version 1 superblock, or None when it is not one."""
    if len(block) < 100 or struct.unpack_from("<II", block) != (_MAGIC, 1):
        return None
    raw = block[16:32].hex()
    level, _layout = struct.unpack_from("<iI", block, 72)
    devices = struct.unpack_from("<I", block, 92)[0]
    return MdArray(
        uuid=":".join(raw[start : start + 8] for start in range(0, 32, 8)),
        level={-1: "linear", -4: "multipath"}.get(level, f"raid{level}"),
        name=block[32:64].split(b"\0")[0].decode("utf-8", "replace"),
        devices=devices,
    )
