"""Packs: many frames in one immutable object, with a footer in clear that says where each lies.

Exact bytes: docs/format.md, "Packs". Chunk ids are keyed hashes, so a footer in clear tells a stranger nothing about
content, and lets a server answer look-ups and collect garbage without keys.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Sequence

import blake3
import msgspec

from recovery.errors import IntegrityError
from recovery.format import chunk

MAGIC = b"RKPACK\x00\x01"
#: magic, version, reserved
HEADER = struct.Struct("<8sI4x")
#: chunk id, offset, length, plain length
ENTRY = struct.Struct("<32sIII")
#: BLAKE3-256 of the footer, its offset, number of entries, version, reserved, magic
TRAILER = struct.Struct("<32sQII8x8s")
TRAILER_MAGIC = b"RKFOOT\x00\x01"
VERSION = 1
HEADER_SIZE = HEADER.size
TRAILER_SIZE = TRAILER.size
#: Each pack of 64 MiB costs one request; see docs/format.md for the reasons.
TARGET_SIZE = 64 * 1024 * 1024
MAX_SIZE = 256 * 1024 * 1024
#: Bytes of memory for a pack that is built: TARGET_SIZE and the largest frame with its entry behind it.
BUFFER_SIZE = TARGET_SIZE + chunk.MAX_CHUNK_SIZE + 64 * 1024


class PackEntry(msgspec.Struct, frozen=True):
    """Where a frame lies in its pack: offset and length in bytes, and the plain length of its chunk."""

    id: bytes
    offset: int
    length: int
    plain_length: int


class Pack(msgspec.Struct, frozen=True):
    """A finished pack: its name (hex BLAKE3-256 of ``data``), bytes and entries."""

    name: str
    data: chunk.Buffer
    entries: tuple[PackEntry, ...]


class Footer(msgspec.Struct, frozen=True):
    """What the trailer says: where the footer begins and how many entries it has."""

    offset: int
    count: int
    digest: bytes

    @property
    def size(self) -> int:
        """Bytes of the entries, without the trailer."""
        return self.count * ENTRY.size


def pack_buffer() -> memoryview:
    """Memory for a PackBuilder: page-aligned, and taken from the system only as far as it is written to."""
    return memoryview(mmap.mmap(-1, BUFFER_SIZE))


class PackBuilder:
    """Collects frames in ``buffer`` (``pack_buffer()``) until the pack is full. Not for use by two threads at once,
    though what ``reserve`` gave may be filled by any."""

    def __init__(self, buffer: memoryview | None = None) -> None:
        self._buffer = pack_buffer() if buffer is None else buffer
        self._buffer[:HEADER_SIZE] = HEADER.pack(MAGIC, VERSION)
        self._end = HEADER_SIZE
        self._entries: list[PackEntry] = []

    @property
    def size(self) -> int:
        """Bytes of the pack if it were finished now."""
        return self._end + len(self._entries) * ENTRY.size + TRAILER_SIZE

    @property
    def full(self) -> bool:
        """Big enough to be finished; one that is not has room for any frame."""
        return self.size >= TARGET_SIZE

    @property
    def empty(self) -> bool:
        """Nothing was added yet."""
        return not self._entries

    def reserve(self, id: bytes, length: int, plain_length: int) -> memoryview:
        """Room for a frame of ``length`` bytes, filled before ``finish``. Raises ValueError when it is full."""
        if self.size + length + ENTRY.size > len(self._buffer):
            raise ValueError(f"no room for {length} bytes in a pack of {self.size}")
        offset = self._end
        self._end += length
        self._entries.append(PackEntry(id, offset, length, plain_length))
        return self._buffer[offset : self._end]

    def add(self, id: bytes, frame: bytes, plain_length: int) -> tuple[int, int]:
        """Append a frame; returns its offset and length."""
        self.reserve(id, len(frame), plain_length)[:] = frame
        return self._entries[-1].offset, len(frame)

    def finish(self) -> Pack:
        """Append the footer. The pack's ``data`` lies in the buffer."""
        size = self.size
        self._buffer[self._end : size] = encode_footer(self._entries, self._end)
        data = self._buffer[:size]
        return Pack(blake3.blake3(data).hexdigest(), data, tuple(self._entries))


def encode_footer(entries: Sequence[PackEntry], offset: int) -> bytes:
    """Footer and trailer of a pack whose frames end at ``offset``."""
    body = b"".join(ENTRY.pack(e.id, e.offset, e.length, e.plain_length) for e in entries)
    return body + TRAILER.pack(blake3.blake3(body).digest(), offset, len(entries), VERSION, TRAILER_MAGIC)


def read_trailer(tail: bytes | memoryview, pack_size: int) -> Footer:
    """Understand the last TRAILER_SIZE bytes of a pack of ``pack_size`` bytes. Raises IntegrityError."""
    if len(tail) < TRAILER_SIZE or pack_size < HEADER_SIZE + TRAILER_SIZE:
        raise IntegrityError("The pack is cut short.")
    digest, offset, count, version, magic = TRAILER.unpack(tail[-TRAILER_SIZE:])
    if magic != TRAILER_MAGIC:
        raise IntegrityError("The pack does not end in a footer: it is cut short or damaged.")
    if version != VERSION:
        raise IntegrityError(f"The pack has version {version}.", hint="A newer release of Rekindle may read it.")
    if offset < HEADER_SIZE or offset + count * ENTRY.size + TRAILER_SIZE != pack_size:
        raise IntegrityError("The pack's footer does not fit its size.")
    return Footer(offset, count, digest)


def read_footer(tail: bytes | memoryview, pack_size: int) -> list[PackEntry]:
    """The entries, from the last bytes of a pack (at least footer and trailer; see ``read_trailer``).

    Raises IntegrityError when it is damaged; ``rebuild_footer`` can find the frames then.
    """
    footer = read_trailer(tail, pack_size)
    if len(tail) < footer.size + TRAILER_SIZE:
        raise IntegrityError("Less than the whole footer of the pack was read.")
    body = bytes(tail[len(tail) - TRAILER_SIZE - footer.size : len(tail) - TRAILER_SIZE])
    if blake3.blake3(body).digest() != footer.digest:
        raise IntegrityError("The pack's footer is damaged.")
    entries = [PackEntry(*fields) for fields in ENTRY.iter_unpack(body)]
    if any(e.offset < HEADER_SIZE or e.offset + e.length > footer.offset for e in entries):
        raise IntegrityError("The pack's footer names frames outside of the pack.")
    return entries


def check_frames(data: bytes | memoryview | mmap.mmap, entries: Sequence[PackEntry]) -> None:
    """Each entry of the footer names a frame that begins where it says, with that id and those lengths.

    It needs no keys, so a server can refuse a pack whose footer promises chunks that are not in it. Raises
    IntegrityError.
    """
    for entry in entries:
        if entry.length < chunk.OVERHEAD or entry.offset + entry.length > len(data):
            raise IntegrityError("The pack's footer names a frame that cannot be one.")
        magic, _, _, _, _, plain_length, length, id, _ = chunk.HEADER.unpack_from(data, entry.offset)
        if (magic, id, length, plain_length) != (chunk.MAGIC, entry.id, entry.length, entry.plain_length):
            raise IntegrityError(f"The pack's footer names chunk {entry.id.hex()[:16]} where it is not.")


def rebuild_footer(data: bytes | bytearray | memoryview) -> list[PackEntry]:
    """Find the frames of a pack by scanning for their headers, when its footer is missing or damaged.

    Frames that are cut short are left out; whether a found frame is whole is known when it is decoded.
    """
    blob = bytes(data)
    entries: list[PackEntry] = []
    at = blob.find(chunk.MAGIC)
    while at >= 0 and at + chunk.HEADER_SIZE <= len(blob):
        _, _, _, _, _, plain_length, length, id, _ = chunk.HEADER.unpack_from(blob, at)
        plausible = chunk.OVERHEAD <= length <= chunk.MAX_CHUNK_SIZE + chunk.OVERHEAD
        if plausible and plain_length <= chunk.MAX_CHUNK_SIZE and at + length <= len(blob):
            entries.append(PackEntry(id, at, length, plain_length))
            at = blob.find(chunk.MAGIC, at + length)
        else:
            at = blob.find(chunk.MAGIC, at + 1)
    return entries
