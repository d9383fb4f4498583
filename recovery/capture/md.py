"""md RAID members by their own superblocks (versions 1.0, 1.1, 1.2), because nothing may be assembled here. Pure
apart from the reads. Layout: the kernel's ``include/uapi/linux/raid/md_p.h``.

A mirror's content lies whole on each of its members, so it can be looked into; of other levels the facts are told.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from recovery.capture.ranges import Extent, cut, read_extents, total
from recovery.layout import MdArray

_MAGIC = 0xA92B4EFC
_SECTOR = 512
#: The superblock without the roles, and room for the roles of 128 devices.
_FIXED, _READ = 256, 512
#: Roles from here on are spare, faulty or journal.
_NO_ROLE = 0xFF00
#: ``feature_map``: the member is being rebuilt; the array is being reshaped.
_RECOVERING, _RESHAPING = 2, 4


@dataclass(frozen=True)
class Member:
    """One member. ``data`` is the byte at which its share starts, ``size`` the bytes of it; ``in_step``: it holds all
    that the array holds, as of ``events``."""

    array: MdArray
    place: str = ""
    where: tuple[Extent, ...] = ()
    data: int = 0
    size: int = 0
    events: int = 0
    in_step: bool = True


@dataclass(frozen=True)
class Assembled:
    """An array, and the bytes of its content when that can be told (mirrors)."""

    array: MdArray
    size: int
    extents: tuple[Extent, ...]


def read_member(place: str, where: Sequence[Extent]) -> Member | None:
    """The member that lies in ``where`` (``place`` is its name, ``disk1:2``), or None. Raises DeviceError."""
    size = total(where)
    # 1.0 lies at the end: at least 8 KiB before it, aligned to 4 KiB.
    at_end = ((size // _SECTOR - 16) & ~7) * _SECTOR
    for offset in (4096, 0, at_end):
        if offset < 0:
            continue
        found = parse_superblock(read_extents(where, offset, _READ))
        if found:
            return Member(found.array, place, tuple(where), found.data, found.size, found.events, found.in_step)
    return None


def parse_superblock(block: bytes) -> Member | None:
    """The member described by a version 1 superblock, or None when it is not one."""
    if len(block) < _FIXED or struct.unpack_from("<II", block) != (_MAGIC, 1):
        return None
    raw = block[16:32].hex()
    (features,) = struct.unpack_from("<I", block, 8)
    level, _layout, sectors, _chunk, devices = struct.unpack_from("<iIQII", block, 72)
    data, _size = struct.unpack_from("<QQ", block, 128)
    (number,) = struct.unpack_from("<I", block, 160)
    (events,) = struct.unpack_from("<Q", block, 200)
    role = struct.unpack_from("<H", block, 256 + 2 * number)[0] if 258 + 2 * number <= len(block) else _NO_ROLE
    array = MdArray(
        uuid=":".join(raw[start : start + 8] for start in range(0, 32, 8)),
        level={-1: "linear", -4: "multipath"}.get(level, f"raid{level}"),
        name=block[32:64].split(b"\0")[0].decode("utf-8", "replace"),
        devices=devices,
    )
    return Member(
        array,
        data=data * _SECTOR,
        size=sectors * _SECTOR,
        events=events,
        in_step=role < _NO_ROLE and not features & (_RECOVERING | _RESHAPING),
    )


def volume_name(array: MdArray, others: Iterable[MdArray]) -> str:
    """``md/0`` for an array named ``host:0``; ``md/`` and its UUID's start where it has no name of its own."""
    short = array.name.rpartition(":")[2]
    alone = all(other.name.rpartition(":")[2] != short for other in others if other.uuid != array.uuid)
    return f"md/{short}" if short and "/" not in short and alone else f"md/{array.uuid[:8]}"


def assemble(members: Sequence[Member]) -> list[Assembled]:
    """The arrays that the members form, in the order in which they were found. A member that fell behind is none."""
    by_array: dict[str, list[Member]] = {}
    for member in members:
        by_array.setdefault(member.array.uuid, []).append(member)
    everything = [found[0].array for found in by_array.values()]
    arrays: list[Assembled] = []
    for found in by_array.values():
        newest = max(member.events for member in found)
        # Events differ by one between the legs of a mirror that lost power while it wrote superblocks.
        whole = [member for member in found if member.in_step and member.events >= newest - 1]
        best = max(whole or found, key=lambda member: member.events)
        named = volume_name(best.array, everything)
        array = MdArray(
            uuid=best.array.uuid, level=best.array.level, name=best.array.name, devices=best.array.devices,
            members=tuple(member.place for member in whole), volume=named,
        )  # fmt: skip
        extents = cut(best.where, best.data, best.size) if whole and array.level == "raid1" else ()
        # A member that is cut short must not give an array that looks whole.
        arrays.append(Assembled(array, best.size, extents if total(extents) == best.size else ()))
    return arrays
