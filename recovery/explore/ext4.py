"""Files of an ext2, ext3 or ext4 filesystem, found by reading its bytes; nothing is mounted, nothing is written. Pure.

A captured filesystem is not trusted: mounting it would hand its bytes to a kernel. Layout: the kernel's
``Documentation/filesystems/ext4``. What is not understood (a journal to replay, inline data, encryption) is refused.
"""

from __future__ import annotations

import stat
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from recovery.errors import IntegrityError, NotFoundError, UsageError

#: (offset, length) -> bytes of the volume.
Read = Callable[[int, int], bytes]

_MAGIC = 0xEF53
_EXTENT_MAGIC = 0xF30A
_ROOT = 2
_RECOVER = 0x4
#: filetype, extents, 64bit, mmp, flex_bg, ea_inode, csum_seed, largedir, inline_data (asked for each file), encrypt
#: (the same), casefold. Not: compression, journal device, meta_bg, dirdata.
_KNOWN = 0x2 | 0x40 | 0x80 | 0x100 | 0x200 | 0x400 | 0x2000 | 0x4000 | 0x8000 | 0x10000 | 0x20000
_FLAG_EXTENTS, _FLAG_ENCRYPT, _FLAG_INLINE = 0x80000, 0x800, 0x10000000
#: Longer than this an extent is allocated but not written: it reads as zeros.
_WRITTEN = 32768
_MAX_DEPTH, _MAX_FOLDER = 5, 256 * 1024 * 1024


@dataclass(frozen=True)
class Run:
    """``length`` bytes of a file at ``at`` lie at ``offset`` of the volume. What lies in no run reads as zeros."""

    at: int
    offset: int
    length: int


@dataclass(frozen=True)
class Inode:
    """A file, folder or link. ``block`` is the 60 bytes of its block map, or of a short link's target."""

    number: int
    mode: int
    size: int
    flags: int
    block: bytes


class Ext4:
    """The filesystem that ``read`` reads. Raises UsageError when it is of a kind that is not read, IntegrityError when
    it makes no sense."""

    def __init__(self, read: Read) -> None:
        self._read = read
        head = read(1024, 1024)
        if len(head) < 1024 or struct.unpack_from("<H", head, 56)[0] != _MAGIC:
            raise IntegrityError("It has no ext4 superblock.")
        (incompatible,) = struct.unpack_from("<I", head, 96)
        if incompatible & _RECOVER:
            raise UsageError(
                "Its ext4 was captured in the middle of its work: the journal has not been replayed, so where files "
                "lie is not sure.",
                hint="Restore the whole disk into a file ('rekindle restore --target disk1=FILE') and mount that, or "
                "choose a point whose consistency is 'filesystem', 'application' or 'offline'.",
            )
        if incompatible & ~_KNOWN:
            raise UsageError(f"Its ext4 has features that are not read here ({incompatible & ~_KNOWN:#x}).")
        self._block_size = 1024 << struct.unpack_from("<I", head, 24)[0]
        (self._first,) = struct.unpack_from("<I", head, 20)
        (self._per_group,) = struct.unpack_from("<I", head, 40)
        (self._inode_size,) = struct.unpack_from("<H", head, 88)
        wide = bool(incompatible & 0x80)
        self._descriptor = (struct.unpack_from("<H", head, 254)[0] if wide else 0) or 32
        if not (1024 <= self._block_size <= 65536 and self._per_group and 128 <= self._inode_size <= self._block_size):
            raise IntegrityError("Its ext4 superblock makes no sense.")

    def inode(self, number: int) -> Inode:
        """Inode ``number``."""
        group, at = divmod(number - 1, self._per_group)
        table = self._read((self._first + 1) * self._block_size + group * self._descriptor, self._descriptor)
        (start,) = struct.unpack_from("<I", table, 8)
        if self._descriptor >= 64:
            start |= struct.unpack_from("<I", table, 40)[0] << 32
        raw = self._read(start * self._block_size + at * self._inode_size, 128)
        mode, low, flags, high = (
            struct.unpack_from(kind, raw, place)[0] for kind, place in (("<H", 0), ("<I", 4), ("<I", 32), ("<I", 108))
        )
        return Inode(number, mode, low | high << 32, flags, raw[40:100])

    def root(self) -> Inode:
        """The top folder."""
        return self.inode(_ROOT)

    def entry(self, folder: Inode, name: str) -> Inode | None:
        """What is called ``name`` in a folder; None when nothing is, or it is no folder."""
        if not stat.S_ISDIR(folder.mode):
            return None
        wanted = name.encode("utf-8", "surrogateescape")
        return next((self.inode(number) for number, found in self._names(folder) if found == wanted), None)

    def link(self, inode: Inode) -> str:
        """Where a symbolic link points; empty when it is none."""
        if not stat.S_ISLNK(inode.mode):
            return ""
        if inode.size < 60 and not inode.flags & (_FLAG_EXTENTS | _FLAG_INLINE):
            return inode.block[: inode.size].decode("utf-8", "surrogateescape")
        return self.content(inode, 4096).decode("utf-8", "surrogateescape")

    def content(self, inode: Inode, limit: int) -> bytes:
        """The first ``limit`` bytes of a file."""
        size = min(inode.size, limit)
        data = bytearray(size)
        for run in self.runs(inode):
            if run.at < size:
                part = self._read(run.offset, min(run.length, size - run.at))
                data[run.at : run.at + len(part)] = part
        return bytes(data)

    def runs(self, inode: Inode) -> list[Run]:
        """Where a file's bytes lie, by place in the file; neighbours are joined."""
        if inode.flags & _FLAG_ENCRYPT:
            raise UsageError("The file is encrypted by its filesystem, and its key is not in the backup.")
        if inode.flags & _FLAG_INLINE:
            raise UsageError("The file lies within its inode (inline_data), which is not read here.")
        found = self._extents(inode.block) if inode.flags & _FLAG_EXTENTS else self._mapped(inode)
        joined: list[Run] = []
        for run in found:
            length = min(run.length, inode.size - run.at)
            last = joined[-1] if joined else None
            if length <= 0:
                continue
            if last and last.at + last.length == run.at and last.offset + last.length == run.offset:
                joined[-1] = Run(last.at, last.offset, last.length + length)
            else:
                joined.append(Run(run.at, run.offset, length))
        return joined

    def _names(self, folder: Inode) -> Iterator[tuple[int, bytes]]:
        # Blocks of a hashed folder's index look like one empty entry, so that a plain walk finds every name.
        data = self.content(folder, _MAX_FOLDER)
        for start in range(0, len(data), self._block_size):
            at, end = start, min(start + self._block_size, len(data))
            while at + 8 <= end:
                number, length, size = struct.unpack_from("<IHB", data, at)
                length = self._block_size if length in (0, 65535) else length
                if length < 8:
                    raise IntegrityError(f"The folder of inode {folder.number} makes no sense.")
                if number:
                    yield number, data[at + 8 : at + 8 + size]
                at += length

    def _extents(self, node: bytes, expected: int | None = None) -> Iterator[Run]:
        """The leaves below ``node``; every level of the tree says how many are below it, so that it has an end."""
        magic, count, _, level = struct.unpack_from("<HHHH", node)
        sound = level <= _MAX_DEPTH if expected is None else level == expected
        if magic != _EXTENT_MAGIC or not sound or 12 + count * 12 > len(node):
            raise IntegrityError("A file's extents make no sense.")
        for number in range(count):
            place = 12 + number * 12
            if level:
                low, high = struct.unpack_from("<IH", node, place + 4)
                below = self._read((low | high << 32) * self._block_size, self._block_size)
                if len(below) < self._block_size:
                    raise IntegrityError("A file's extents make no sense.")
                yield from self._extents(below, level - 1)
                continue
            first, length, high, low = struct.unpack_from("<IHHI", node, place)
            if length <= _WRITTEN:
                yield self._run(first, low | high << 32, length)

    def _run(self, first: int, block: int, count: int) -> Run:
        size = self._block_size
        return Run(first * size, block * size, count * size)

    def _mapped(self, inode: Inode) -> Iterator[Run]:
        """The block map of ext2 and ext3: twelve blocks, then one, two and three levels of tables."""
        blocks = struct.unpack("<15I", inode.block)
        each = self._block_size // 4
        place = 0
        for level, block in ((0, b) for b in blocks[:12]):
            yield from self._table(block, level, place)
            place += 1
        for level in (1, 2, 3):
            yield from self._table(blocks[11 + level], level, place)
            place += each**level

    def _table(self, block: int, level: int, place: int) -> Iterator[Run]:
        if not block:
            return
        if not level:
            yield self._run(place, block, 1)
            return
        each = self._block_size // 4
        table = struct.unpack(f"<{each}I", self._read(block * self._block_size, self._block_size))
        for number, below in enumerate(table):
            yield from self._table(below, level - 1, place + number * each ** (level - 1))


def missing(path: str) -> NotFoundError:
    """There is no such file."""
    return NotFoundError(f"{path} is not on the disks of the point.")
