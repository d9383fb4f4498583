"""Journal objects: what one disk's blocks of 4 KiB became since the point before, on top of a keyframe's chunk map.

    magic (8) | length u32 | header JSON | chain, 36 bytes each, in clear
    length u32 | nonce (12) | AES-256-GCM(zstd(index))                        up to here: the head
    frames, one behind the other

A point every minute as chunks would store ten times as much: a minute dirties blocks all over a disk, few in each
chunk. The head alone says what changed and where in the object it lies, so a restore reads of each journal only the
head and the frames it needs. Exact bytes: docs/format.md, "Journals". Reading: ``journalhead.py``.
How journals lie over each other: ``overlay.py``.
"""

from __future__ import annotations

import os
import struct
from array import array
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import blake3
import msgspec
import zstandard
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from recovery.format.chunk import Buffer, FrameEncoder
from recovery.format.keys import RepositoryKeys

MAGIC = b"RKJOURN\x01"
VERSION = 1
#: What is tracked and stored: the block of ext4, xfs and btrfs, and the page of every database worth the name.
BLOCK = 4096
#: Plain bytes of a frame: 64 blocks. A restore keeps one decoded frame of each journal of a chain in memory.
FRAME_SIZE = 256 * 1024
#: Journals on one keyframe: four hours of minutes. With a keyframe an hour it is 60; more while the server is away.
MAX_CHAIN = 240
#: Plain bytes in one journal: it is made in memory. What changes more is stored as chunks.
MAX_DATA = 256 * 1024 * 1024
#: Extents in one journal: as many as blocks in MAX_DATA, and room for discarded ones.
MAX_EXTENTS = 2 * MAX_DATA // BLOCK
#: zstd level: a minute's worth has to be gone before the next one.
DEFAULT_LEVEL = 1
LENGTH = struct.Struct("<I")
CHAIN_ENTRY = struct.Struct("<32sI")
NONCE_SIZE = 12
MAX_HEADER = 4096
#: Bytes per extent and per frame of an index; its two counts.
EXTENT_SIZE, FRAME_ENTRY_SIZE, COUNTS_SIZE = 13, 36, 8
MAX_INDEX = COUNTS_SIZE + MAX_EXTENTS * EXTENT_SIZE + MAX_DATA // FRAME_SIZE * FRAME_ENTRY_SIZE
#: A head is at most so long: what a reader allocates for it.
MAX_HEAD = 12 + MAX_HEADER + MAX_CHAIN * CHAIN_ENTRY.size + MAX_INDEX + 64 * 1024


class Change(NamedTuple):
    """``blocks`` blocks from block ``start`` of a disk became ``data``; None: they read as zeros now."""

    start: int
    blocks: int
    data: Buffer | None


class ChainEntry(NamedTuple):
    """A journal before this one: its digest (32 bytes) and the length of its head."""

    digest: bytes
    head: int


class JournalHeader(msgspec.Struct, frozen=True, kw_only=True):
    """The part in clear. ``base`` is the hex name of the keyframe's chunk map, ``parent_point`` the id of the point
    that this journal continues; ``size`` is the disk's, bytes."""

    version: int = VERSION
    repository: str
    host: str
    disk: str
    size: int
    base: str
    parent_point: str
    block_size: int = BLOCK
    frame_size: int = FRAME_SIZE
    hash: str = "keyed-blake3-256"
    compression: str = "zstd"
    cipher: str = "aes-256-gcm"
    chain_count: int = 0


class Journal(NamedTuple):
    """A journal to be stored: its name (hex digest), bytes, the length of its head, the root of the disk's content
    with it, and its figures (blocks that changed, plain bytes stored)."""

    digest: str
    data: bytes
    head: int
    root: bytes
    blocks: int
    plain: int


def journal_root(before: bytes, content: bytes) -> bytes:
    """One link of the chain of roots that begins with the Merkle root of the keyframe's map."""
    return blake3.blake3(b"rekindle journal root 1" + before + content).digest()


def block_count(size: int) -> int:
    """Blocks of a disk of ``size`` bytes; the last one may be shorter."""
    return -(-size // BLOCK)


def journal_bytes(header: JournalHeader, start: int, count: int) -> int:
    """Bytes in these blocks of the disk."""
    return min(header.size, (start + count) * BLOCK) - start * BLOCK


def encode_journal(
    keys: RepositoryKeys,
    header: JournalHeader,
    chain: Sequence[ChainEntry],
    before: bytes,
    changes: Iterable[Change],
    level: int = DEFAULT_LEVEL,
) -> Journal:
    """The journal of ``changes``, which are in order, do not overlap and lie on the disk; ``before`` is the root of
    the disk's content without them. Raises ValueError for changes that are not so, or more than a journal holds."""
    if len(chain) >= MAX_CHAIN:
        raise ValueError(f"a chain has at most {MAX_CHAIN} journals")
    header = msgspec.structs.replace(header, chain_count=len(chain))
    encoded = msgspec.json.encode(header)
    clear = MAGIC + LENGTH.pack(len(encoded)) + encoded + b"".join(CHAIN_ENTRY.pack(*entry) for entry in chain)
    binding = blake3.blake3(clear).digest()
    encoder, frames, ids = FrameEncoder(keys, level), list[bytes](), list[bytes]()
    gaps, counts, kinds = array("Q"), array("I"), bytearray()
    pending, plain, end, blocks = bytearray(), 0, 0, 0

    def flush() -> None:
        id = frame_id(keys, binding, len(ids), pending)
        ids.append(id)
        frames.append(encoder.encode(id, bytes(pending)))
        pending.clear()

    for start, count, data in changes:
        if start < end or count <= 0 or start + count > block_count(header.size):
            raise ValueError(f"{count} blocks from {start} are out of order or outside of the disk")
        gaps.append(start - end)
        counts.append(count)
        kinds.append(data is not None)
        end, blocks = start + count, blocks + count
        if data is None:
            continue
        view = memoryview(data)
        if len(view) != journal_bytes(header, start, count):
            raise ValueError(f"{count} blocks from {start} have {len(view)} bytes")
        plain += len(view)
        while view:
            part = view[: FRAME_SIZE - len(pending)]
            pending += part
            view = view[len(part) :]
            if len(pending) == FRAME_SIZE:
                flush()
    if pending:
        flush()
    if plain > MAX_DATA or len(counts) > MAX_EXTENTS:
        raise ValueError("more changed than a journal holds")
    content = b"".join((LENGTH.pack(len(counts)), LENGTH.pack(len(ids)), gaps.tobytes(), counts.tobytes(),
                        bytes(kinds), *ids))  # fmt: skip
    index = content + array("I", (len(frame) for frame in frames)).tobytes()
    nonce = os.urandom(NONCE_SIZE)
    compressed = zstandard.ZstdCompressor(level=3).compress(index)
    sealed = nonce + AESGCM(keys.journal_key).encrypt(nonce, compressed, binding)
    head = clear + LENGTH.pack(len(sealed)) + sealed
    data = head + b"".join(frames)
    return Journal(
        blake3.blake3(data).hexdigest(), data, len(head), journal_root(before, binding + content), blocks, plain
    )


def frame_id(keys: RepositoryKeys, binding: bytes, number: int, plain: Buffer) -> bytes:
    """The id of frame ``number``, bound to its journal's header and chain: to host, disk, keyframe and parent."""
    return blake3.blake3(binding + LENGTH.pack(number), key=keys.journal_id_key).update(plain).digest()
