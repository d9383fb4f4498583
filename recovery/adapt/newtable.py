"""A captured partition table written for other places and other sectors. Pure: bytes in, bytes out.

GPT: UEFI specification 2.10, 5.3. What the captured entries hold besides first and last LBA (type, GUID, name,
attributes) stays as it is, bit by bit. MBR: the four entries and the chain of extended boot records.
"""

from __future__ import annotations

import struct
import uuid
import zlib
from collections.abc import Sequence
from typing import NamedTuple

from recovery.layout import Landing, Partition

_ENTRY_SIZE = 128
_ENTRIES = 128
_HEADER_SIZE = 92
#: Boot code and the disk's signature end here; then come the four entries.
_MBR_ENTRIES = 446
#: Boot code alone.
_CODE = 440
#: Cylinder, head and sector of what lies beyond 8 GiB, or of whoever does not care: 1023/254/63.
_CHS = b"\xfe\xff\xff"
_EXTENDED = ("05", "0f", "85")
_MAX32 = 0xFFFFFFFF


class Write(NamedTuple):
    """``data`` belongs at byte ``offset``."""

    offset: int
    data: bytes


def new_table(landing: Landing, size: int, old_head: bytes, old_sector: int) -> list[Write]:
    """What to write, in this order, to give a disk of ``size`` bytes the landing's table; nothing where it has none.

    ``old_head`` is the beginning of the captured disk (at least 40 of its sectors and 32 KiB). Its first sector, which
    makes the disk complete, comes last.
    """
    if landing.table.kind == "gpt":
        return _gpt(landing, size, old_head, old_sector)
    if landing.table.kind == "mbr":
        return _mbr(landing, old_head)
    return []


def _gpt(landing: Landing, size: int, old_head: bytes, old_sector: int) -> list[Write]:
    sector = landing.sector_size
    old = _old_entries(old_head, old_sector)
    raw = bytearray(_ENTRIES * _ENTRY_SIZE)
    for part in landing.table.partitions:
        at = (part.number - 1) * _ENTRY_SIZE
        raw[at : at + _ENTRY_SIZE] = old.get(part.number) or _entry(part)
        first = part.start // sector
        struct.pack_into("<QQ", raw, at + 32, first, first + part.size // sector - 1)
    table = bytes(raw)
    blocks = len(table) // sector
    last = size // sector - 1
    guid = uuid.UUID(landing.table.uuid).bytes_le

    def header(here: int, other: int, entries: int) -> bytes:
        facts = struct.pack(
            "<8sIIIIQQQQ16sQIII", b"EFI PART", 0x10000, _HEADER_SIZE, 0, 0, here, other, 2 + blocks, last - blocks - 1,
            guid, entries, _ENTRIES, _ENTRY_SIZE, zlib.crc32(table),
        )  # fmt: skip
        return (facts[:16] + struct.pack("<I", zlib.crc32(facts)) + facts[20:]).ljust(sector, b"\0")

    return [
        Write((last - blocks) * sector, table),
        Write(last * sector, header(last, 1, last - blocks)),
        Write(2 * sector, table),
        Write(sector, header(1, last, 2)),
        Write(0, _protective(old_head, last).ljust(sector, b"\0")),
    ]


def _old_entries(head: bytes, sector: int) -> dict[int, bytes]:
    """Number -> the captured entry; none where the captured primary GPT is not sound."""
    header = head[sector : sector + _HEADER_SIZE]
    if header[:8] != b"EFI PART":
        return {}
    first, count, size, checksum = struct.unpack_from("<QIII", header, 72)
    raw = head[first * sector : first * sector + count * size]
    if size != _ENTRY_SIZE or len(raw) < count * size or zlib.crc32(raw) != checksum:
        return {}
    entries = (raw[at : at + size] for at in range(0, count * size, size))
    return {number: entry for number, entry in enumerate(entries, 1) if any(entry[:16])}


def _entry(part: Partition) -> bytes:
    """From what the point says, where the captured bytes cannot be had."""
    bits = {"required": 1, "legacy_boot": 1 << 2, "no-automount": 1 << 63}
    attributes = sum(bit for flag, bit in bits.items() if flag in part.flags)
    ids = uuid.UUID(part.type).bytes_le + uuid.UUID(part.uuid).bytes_le
    name = part.name.encode("utf-16-le")[:72].ljust(72, b"\0")
    return ids + struct.pack("<QQQ", 0, 0, attributes) + name


def _protective(old_head: bytes, last: int) -> bytes:
    """Boot code and disk signature as they were, and one entry over the whole disk. Boot code that belongs to an MBR
    looks for the rest of itself where the GPT lies now: it is left out."""
    types = {old_head[_MBR_ENTRIES + 4 + 16 * n] for n in range(4)} - {0}
    if types and 0xEE not in types and old_head[510:512] == b"\x55\xaa":
        old_head = bytes(_CODE) + old_head[_CODE:_MBR_ENTRIES]
    entry = b"\0\0\x02\0\xee" + _CHS + struct.pack("<II", 1, min(last, _MAX32))
    return old_head[:_MBR_ENTRIES] + entry + bytes(48) + b"\x55\xaa"


def _mbr(landing: Landing, old_head: bytes) -> list[Write]:
    sector = landing.sector_size
    parts = landing.table.partitions
    mbr = bytearray(old_head[:_MBR_ENTRIES] + bytes(64) + b"\x55\xaa")
    for part in parts:
        if part.number <= 4:
            at = _MBR_ENTRIES + 16 * (part.number - 1)
            mbr[at : at + 16] = _mbr_entry(part, part.start // sector, part.size // sector)
    container = next((part for part in parts if part.type.lower() in _EXTENDED), None)
    logical = sorted((part for part in parts if part.number > 4), key=lambda part: part.start)
    chain = _chain(container, logical, sector) if container else []
    return [*chain, Write(0, bytes(mbr).ljust(sector, b"\0"))]


def _chain(container: Partition, logical: Sequence[Partition], sector: int) -> list[Write]:
    """An extended boot record two sectors before each logical partition, each naming the next. Their numbers are
    their order, as for the kernel."""
    base = container.start // sector
    places = [part.start // sector - 2 for part in logical]
    writes = []
    for at, (part, here) in enumerate(zip(logical, places, strict=True)):
        record = bytearray(512)
        record[_MBR_ENTRIES : _MBR_ENTRIES + 16] = _mbr_entry(part, 2, part.size // sector)
        if at + 1 < len(logical):
            following = logical[at + 1]
            length = (following.start + following.size) // sector - places[at + 1]
            link = b"\0" + _CHS + b"\x05" + _CHS + struct.pack("<II", places[at + 1] - base, length)
            record[_MBR_ENTRIES + 16 : _MBR_ENTRIES + 32] = link
        record[510:] = b"\x55\xaa"
        writes.append(Write(here * sector, bytes(record).ljust(sector, b"\0")))
    return writes


def _mbr_entry(part: Partition, start: int, length: int) -> bytes:
    active = b"\x80" if "boot" in part.flags else b"\0"
    return active + _CHS + bytes([int(part.type, 16)]) + _CHS + struct.pack("<II", start, length)
