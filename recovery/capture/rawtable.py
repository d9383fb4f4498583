"""GPT and MBR partition tables parsed from bytes. Pure.

libparted does not tell type GUIDs, partition UUIDs or the disk's own id, which a restore must put back; and a table
that it refuses (a lost primary GPT, a 4096-byte-sector image in a file) must still be recorded.
"""

from __future__ import annotations

import struct
import uuid
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from recovery.layout import Partition, PartitionTable

#: Reads ``length`` bytes at ``offset`` of the disk; fewer at its end.
ReadAt = Callable[[int, int], bytes]

_FLAGS_OF_TYPE = {
    "21686148-6449-6e6f-744e-656564454649": "bios_grub",
    "c12a7328-f81f-11d2-ba4b-00a0c93ec93b": "esp",
    "e6d6d379-f507-44c2-a23c-238f2a3df928": "lvm",
    "a19d880f-05fc-4d3b-a006-743f0f84911e": "raid",
    "9e1a2d38-c612-4316-aa26-8b49521e5a8b": "prep",
    "0657fd6d-a4ab-43c4-84e5-0933c84b4f4f": "swap",
}
_FLAGS_OF_MBR_TYPE = {"8e": "lvm", "fd": "raid", "ef": "esp", "82": "swap", "41": "prep"}
_EXTENDED = {0x05, 0x0F, 0x85}
_MAX_LOGICAL = 128


@dataclass(frozen=True)
class FoundTable:
    """A partition table, the sector size it is written for, and what was wrong with it (empty when nothing)."""

    table: PartitionTable
    sector_size: int
    problem: str = ""


def parse_table(read: ReadAt, size: int, sector_size: int, *, guess: bool = False) -> FoundTable:
    """The partition table of a disk of ``size`` bytes; kind ``none`` when there is none.

    With ``guess`` (image files) a GPT written for 4096-byte sectors is found too. A damaged primary GPT is
    read from its backup at the disk's end, and ``problem`` says so.
    """
    sizes = (sector_size, *(other for other in (512, 4096) if guess and other != sector_size))
    mbr = read(0, 512)
    if len(mbr) < 512:
        return FoundTable(PartitionTable(), sector_size)
    for candidate in sizes:
        table = _parse_gpt(read, candidate, 1)
        if table:
            return FoundTable(table, candidate)
    if mbr[510:512] == b"\x55\xaa" and any(entry[4] == 0xEE for entry in _entries(mbr)):
        for candidate in sizes:
            table = _parse_gpt(read, candidate, size // candidate - 1)
            if table:
                return FoundTable(table, candidate, "the primary GPT is damaged; its backup at the end was read")
        return FoundTable(PartitionTable(), sector_size, "the protective MBR promises a GPT, but none can be read")
    table = _parse_mbr(read, mbr, sector_size, size)
    return FoundTable(table or PartitionTable(), sector_size)


def guid(raw: bytes) -> str:
    """The text of a mixed-endian GUID, lower case."""
    return str(uuid.UUID(bytes_le=raw))


def _parse_gpt(read: ReadAt, sector: int, lba: int) -> PartitionTable | None:
    header = read(lba * sector, sector)
    if len(header) < 92 or header[:8] != b"EFI PART":
        return None
    header_size, crc = struct.unpack_from("<II", header, 12)
    if not 92 <= header_size <= len(header):
        return None
    if zlib.crc32(header[:16] + b"\0\0\0\0" + header[20:header_size]) != crc:
        return None
    first, count, entry_size, entries_crc = struct.unpack_from("<QIII", header, 72)
    if not 128 <= entry_size <= 4096 or not 0 < count <= 4096:
        return None
    entries = read(first * sector, count * entry_size)
    if len(entries) < count * entry_size or zlib.crc32(entries) != entries_crc:
        return None
    partitions = [
        _gpt_entry(entries[index * entry_size : (index + 1) * entry_size], index + 1, sector)
        for index in range(count)
        if any(entries[index * entry_size : index * entry_size + 16])
    ]
    partitions.sort(key=lambda partition: partition.start)
    return PartitionTable(kind="gpt", uuid=guid(header[56:72]), partitions=tuple(partitions))


def _gpt_entry(entry: bytes, number: int, sector: int) -> Partition:
    first, last, attributes = struct.unpack_from("<QQQ", entry, 32)
    kind = guid(entry[:16])
    flags = [flag for flag in (_FLAGS_OF_TYPE.get(kind),) if flag]
    flags += ["required"] if attributes & 1 else []
    flags += ["no-automount"] if attributes >> 63 & 1 else []
    flags += ["legacy_boot"] if attributes >> 2 & 1 else []
    return Partition(
        number=number,
        start=first * sector,
        size=max(0, last - first + 1) * sector,
        type=kind,
        uuid=guid(entry[16:32]),
        name=entry[56:128].decode("utf-16-le", "replace").split("\0")[0],
        flags=tuple(flags),
    )


def _entries(sector: bytes) -> list[bytes]:
    return [sector[446 + 16 * index : 462 + 16 * index] for index in range(4)]


def _parse_mbr(read: ReadAt, mbr: bytes, sector: int, size: int) -> PartitionTable | None:
    if mbr[510:512] != b"\x55\xaa":
        return None
    identifier = f"{int.from_bytes(mbr[440:444], 'little'):08x}"
    partitions: list[Partition] = []
    logical = 5
    for index, entry in enumerate(_entries(mbr)):
        start, length = struct.unpack_from("<II", entry, 8)
        if not entry[4] or not length:
            continue
        # A filesystem's boot sector (FAT, NTFS) ends in 55 aa too; its "entries" are text, not a table.
        if entry[0] not in (0, 0x80) or not start or start * sector >= size:
            return None
        partitions.append(_mbr_entry(entry, index + 1, start, sector, identifier))
        if entry[4] in _EXTENDED:
            partitions += _logical(read, start, sector, identifier, logical)
    if not partitions:
        return None
    partitions.sort(key=lambda partition: (partition.start, partition.number))
    return PartitionTable(kind="mbr", uuid=identifier, partitions=tuple(partitions))


def _logical(read: ReadAt, extended: int, sector: int, identifier: str, number: int) -> list[Partition]:
    found: list[Partition] = []
    here = extended
    seen: set[int] = set()
    while here not in seen and len(found) < _MAX_LOGICAL:
        seen.add(here)
        block = read(here * sector, 512)
        if len(block) < 512 or block[510:512] != b"\x55\xaa":
            break
        first, second, *_ = _entries(block)
        start, length = struct.unpack_from("<II", first, 8)
        if first[4] and length:
            found.append(_mbr_entry(first, number + len(found), here + start, sector, identifier))
        following = struct.unpack_from("<I", second, 8)[0]
        if second[4] not in _EXTENDED or not following:
            break
        here = extended + following
    return found


def _mbr_entry(entry: bytes, number: int, start: int, sector: int, identifier: str) -> Partition:
    kind = f"{entry[4]:02x}"
    flags = ["boot"] if entry[0] == 0x80 else []
    flags += [flag for flag in (_FLAGS_OF_MBR_TYPE.get(kind),) if flag]
    length = struct.unpack_from("<I", entry, 12)[0]
    return Partition(
        number=number,
        start=start * sector,
        size=length * sector,
        type=kind,
        uuid=f"{identifier}-{number:02x}",
        flags=tuple(flags),
    )
