"""What an NTFS volume says of itself: its size, where it begins on the disk, and whether it was left whole.

Read from its first structures, without a driver: a capture may not write, and the tools that judge a volume
(``ntfs-3g.probe``, ``ntfsresize``) want a device that may be written to. Offsets are those of the on-disk structures
as ntfs-3g's ``layout.h`` and ``logfile.h`` have them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from recovery.errors import IntegrityError

#: Reads ``length`` bytes at ``offset`` of the volume; fewer at its end.
ReadAt = Callable[[int, int], bytes]

#: How its log was left: nothing in it is waiting; changes are; Windows keeps changes in memory (its fast start).
Log = Literal["clean", "unclean", "cached"]

HIBERFILE = "hiberfil.sys"
#: ntfs-3g looks at as much of it.
HIBERFILE_HEAD = 4096

_MAGIC = b"NTFS    "
#: Each 512 bytes of a record end in a number that tells whether all of it was written (NTFS_BLOCK_SIZE).
_STRIDE = 512
_LOGFILE, _VOLUME = 2, 3
_DATA, _VOLUME_INFORMATION, _END = 0x80, 0x70, 0xFFFFFFFF
_DIRTY = 0x0001
_LOG_CLEAN, _NO_CLIENT = 0x0002, 0xFFFF
_LOG_PAGE = 4096
#: Of the boot sector: where the number of sectors in front of the volume stands, which code of a BIOS needs.
HIDDEN_AT = 0x1C


@dataclass(frozen=True)
class NtfsFacts:
    """A volume. Bytes; ``hidden`` are the bytes in front of it on its disk, as it believes. ``dirty``: a check by
    Windows is asked for."""

    sector: int
    cluster: int
    size: int
    hidden: int
    dirty: bool
    log: Log

    @property
    def unclean(self) -> str:
        """Why only Windows may write to it, as a clause; empty when it was left whole."""
        if self.log == "cached":
            return "Windows keeps a part of its changes in memory (fast start)"
        if self.log == "unclean":
            return "it was not shut down: changes wait in its log"
        return "a check of it is asked for" if self.dirty else ""


def read_facts(read: ReadAt) -> NtfsFacts:
    """Raises IntegrityError when it is no NTFS, or a damaged one."""
    boot = read(0, 512)
    if len(boot) < 512 or boot[3:11] != _MAGIC:
        raise IntegrityError("There is no NTFS.")
    sector = int(struct.unpack_from("<H", boot, 0x0B)[0])
    per_cluster = boot[0x0D] if boot[0x0D] <= 0x80 else 1 << (256 - boot[0x0D])
    hidden = struct.unpack_from("<I", boot, HIDDEN_AT)[0]
    sectors, mft = struct.unpack_from("<QQ", boot, 0x28)
    record = _record_size(boot[0x40], sector * per_cluster)
    if sector not in (256, 512, 1024, 2048, 4096) or not per_cluster or not 256 <= record <= 65536:
        raise IntegrityError("The boot sector of the NTFS volume is damaged.")
    cluster = sector * per_cluster
    volume, log = (_record(read, mft * cluster + number * record, record) for number in (_VOLUME, _LOGFILE))
    information = _value(volume, _VOLUME_INFORMATION)
    if len(information) < 12:
        raise IntegrityError("The NTFS volume does not say in which state it is.")
    flags = struct.unpack_from("<H", information, 10)[0]
    start = _first_cluster(log)
    return NtfsFacts(
        sector=sector,
        cluster=cluster,
        size=sectors * sector,
        hidden=hidden * sector,
        dirty=bool(flags & _DIRTY),
        log="clean" if start is None else log_state(read(start * cluster, 2 * _LOG_PAGE)),
    )


def hibernated(head: bytes) -> bool:
    """Whether a ``hiberfil.sys`` that begins with ``head`` (its first 4096 bytes) holds a system that sleeps. Where
    its header is odd that is assumed, as ntfs-3g does."""
    return len(head) < HIBERFILE_HEAD or any(head[:HIBERFILE_HEAD])


def log_state(pages: bytes) -> Log:
    """What the two restart pages at the start of the log say. Pure."""
    found: list[tuple[int, Log]] = []
    for page in (pages[:_LOG_PAGE], pages[_LOG_PAGE:]):
        if page[:4] != b"RSTR":
            continue
        area, _, major = struct.unpack_from("<HHH", page, 24)
        if area + 16 > len(page):
            continue
        lsn, _, _, client, flags = struct.unpack_from("<QHHHH", page, area)
        clean = client == _NO_CLIENT or flags & _LOG_CLEAN
        found.append((lsn, "cached" if major > 1 else "clean" if clean else "unclean"))
    if found:
        return max(found)[1]
    # Made anew (all ones), or emptied by a check; anything else is no log that anybody knows.
    return "clean" if set(pages) <= {0xFF} or pages[:4] == b"CHKD" else "unclean"


def _record_size(code: int, cluster: int) -> int:
    return int(2 ** (256 - code)) if code >= 0x80 else code * cluster


def _record(read: ReadAt, offset: int, size: int) -> bytes:
    """A record of the table of files, with what its numbers stand for put back."""
    data = bytearray(read(offset, size))
    if len(data) < size or data[:4] != b"FILE":
        raise IntegrityError("The table of files of the NTFS volume is damaged.")
    at, count = struct.unpack_from("<HH", data, 4)
    if at + 2 * count > size or (count - 1) * _STRIDE > size:
        raise IntegrityError("The table of files of the NTFS volume is damaged.")
    for index in range(1, count):
        end = index * _STRIDE
        if data[end - 2 : end] != data[at : at + 2]:
            raise IntegrityError("A record of the NTFS volume was not written in full.")
        data[end - 2 : end] = data[at + 2 * index : at + 2 * index + 2]
    return bytes(data)


def _attribute(record: bytes, kind: int) -> bytes:
    offset = struct.unpack_from("<H", record, 0x14)[0]
    while offset + 16 <= len(record):
        found, length = struct.unpack_from("<II", record, offset)
        if found == _END or length < 16:
            break
        if found == kind:
            return record[offset : offset + length]
        offset += length
    return b""


def _value(record: bytes, kind: int) -> bytes:
    """The value of an attribute that lies in the record itself."""
    attribute = _attribute(record, kind)
    if len(attribute) < 24 or attribute[8]:
        return b""
    length, offset = struct.unpack_from("<IH", attribute, 16)
    return attribute[offset : offset + length]


def _first_cluster(record: bytes) -> int | None:
    """Where the data of a file begins; None when it has none outside of its record."""
    attribute = _attribute(record, _DATA)
    if len(attribute) < 64 or not attribute[8]:
        return None
    at = struct.unpack_from("<H", attribute, 32)[0]
    lengths, offsets = attribute[at] & 15, attribute[at] >> 4
    if not offsets:
        return None
    return int.from_bytes(attribute[at + 1 + lengths : at + 1 + lengths + offsets], "little", signed=True)
