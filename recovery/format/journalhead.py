"""Reading journals: what a head says, without and with keys, and whether a whole one is what it says."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import blake3
import msgspec
import zstandard
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from recovery.errors import IntegrityError
from recovery.format.chunk import MAX_CHUNK_SIZE, OVERHEAD, Buffer, FrameDecoder
from recovery.format.journal import (
    BLOCK,
    CHAIN_ENTRY,
    COUNTS_SIZE,
    EXTENT_SIZE,
    FRAME_ENTRY_SIZE,
    FRAME_SIZE,
    LENGTH,
    MAGIC,
    MAX_CHAIN,
    MAX_DATA,
    MAX_EXTENTS,
    MAX_HEAD,
    MAX_HEADER,
    MAX_INDEX,
    NONCE_SIZE,
    VERSION,
    ChainEntry,
    JournalHeader,
    block_count,
    frame_id,
    journal_bytes,
    journal_root,
)
from recovery.format.keys import RepositoryKeys


class JournalFrame(NamedTuple):
    """A frame of a journal: its id, where it lies in the object, and its plain length."""

    id: bytes
    offset: int
    length: int
    plain_length: int


class JournalHead:
    """What a journal changed: extents in columns, in order of the disk. ``positions`` say where an extent's bytes
    begin in the plain bytes of all frames together; -1: it reads as zeros."""

    def __init__(self, header: JournalHeader, chain: tuple[ChainEntry, ...], length: int) -> None:
        self.header = header
        self.chain = chain
        self.length = length
        self.starts: array[int] = array("Q")
        self.counts: array[int] = array("I")
        self.positions: array[int] = array("q")
        self.frames: list[JournalFrame] = []
        self.content = b""
        """Header and chain (hashed), and the part of the index that says what the disk holds."""

    def root(self, before: bytes) -> bytes:
        """The root (32 bytes) of the disk's content, ``before`` being the one without this journal."""
        return journal_root(before, self.content)


def journal_header(data: Buffer) -> tuple[JournalHeader, tuple[ChainEntry, ...]]:
    """The part in clear, from the first bytes of a journal; needs no keys. Raises IntegrityError."""
    header, chain, _ = _split(memoryview(data))
    return header, chain


def decode_head(data: Buffer, keys: RepositoryKeys) -> JournalHead:
    """The head of a journal, which ``data`` begins with. Raises IntegrityError."""
    view = memoryview(data)
    header, chain, at = _split(view)
    if header.repository != keys.repository_id:
        raise IntegrityError("The journal belongs to another repository.")
    if at + 4 > len(view):
        raise IntegrityError("The journal is cut short.")
    length = LENGTH.unpack_from(view, at)[0]
    sealed = view[at + 4 : at + 4 + length]
    if len(sealed) != length or length < NONCE_SIZE:
        raise IntegrityError("The journal is cut short.")
    binding = blake3.blake3(view[:at]).digest()
    try:
        compressed = AESGCM(keys.journal_key).decrypt(sealed[:NONCE_SIZE], sealed[NONCE_SIZE:], binding)
        if zstandard.frame_content_size(compressed) > MAX_INDEX:
            raise IntegrityError("The journal's index is larger than it can be.")
        plain = zstandard.decompress(compressed)
    except (InvalidTag, zstandard.ZstdError, ValueError) as error:
        raise IntegrityError("The journal is damaged or was altered.") from error
    head = JournalHead(header, chain, at + 4 + length)
    _fill(head, plain, binding)
    return head


def verify_journal(data: Buffer, keys: RepositoryKeys) -> JournalHead:
    """Decode a whole journal, and every frame of it. Raises IntegrityError."""
    view = memoryview(data)
    head = decode_head(view, keys)
    end = head.frames[-1].offset + head.frames[-1].length if head.frames else head.length
    if end != len(view):
        raise IntegrityError("The journal is cut short, or there are extra bytes behind it.")
    decoder, out = FrameDecoder(keys), memoryview(bytearray(FRAME_SIZE))
    binding = blake3.blake3(view[: _split(view)[2]]).digest()
    for number, (id, offset, length, plain_length) in enumerate(head.frames):
        found = decoder.decode_into(view[offset : offset + length], id, out[:plain_length])
        if found != plain_length or frame_id(keys, binding, number, out[:plain_length]) != id:
            raise IntegrityError(f"Frame {number} of the journal has other content than its index says.")
    return head


def _split(view: memoryview) -> tuple[JournalHeader, tuple[ChainEntry, ...], int]:
    """The header, the chain, and where the index begins."""
    try:
        if bytes(view[:8]) != MAGIC:
            raise IntegrityError("This is not a journal.")
        length = LENGTH.unpack_from(view, 8)[0]
        if length > MAX_HEADER:
            raise IntegrityError("The header of the journal is longer than it can be.")
        end = 12 + length
        header = msgspec.json.decode(bytes(view[12:end]), type=JournalHeader)
    except (struct.error, msgspec.MsgspecError, ValueError) as error:
        raise IntegrityError(f"The header of the journal is damaged: {error}.") from error
    if header.version != VERSION:
        raise IntegrityError(f"The journal has version {header.version}.", hint="A newer release may read it.")
    algorithms = (header.block_size, header.frame_size, header.hash, header.compression, header.cipher)
    if algorithms != (BLOCK, FRAME_SIZE, "keyed-blake3-256", "zstd", "aes-256-gcm"):
        raise IntegrityError(f"The journal uses {algorithms}.", hint="A newer release of Rekindle may read it.")
    if not 0 <= header.chain_count < MAX_CHAIN or header.size < 0:
        raise IntegrityError("The header of the journal makes no sense.")
    behind = end + header.chain_count * CHAIN_ENTRY.size
    if behind > len(view):
        raise IntegrityError("The journal is cut short.")
    chain = tuple(ChainEntry(*fields) for fields in CHAIN_ENTRY.iter_unpack(bytes(view[end:behind])))
    if any(not 16 <= entry.head <= MAX_HEAD for entry in chain):
        raise IntegrityError("The chain of the journal makes no sense.")
    return header, chain, behind


def _fill(head: JournalHead, plain: bytes, binding: bytes) -> None:
    """Understand the index. Raises IntegrityError for anything that contradicts itself, the disk or the limits."""
    if len(plain) < COUNTS_SIZE:
        raise IntegrityError("The journal's index is cut short.")
    extents, frames = struct.unpack_from("<II", plain)
    wanted = COUNTS_SIZE + extents * EXTENT_SIZE + frames * FRAME_ENTRY_SIZE
    if extents > MAX_EXTENTS or frames > MAX_DATA // FRAME_SIZE or len(plain) != wanted:
        raise IntegrityError("The journal's index has the wrong length.")
    columns = iter(_cut(plain[COUNTS_SIZE:], (8 * extents, 4 * extents, extents, 32 * frames, 4 * frames)))
    gaps, kinds_of, lengths = array("Q"), b"", array("I")
    gaps.frombytes(next(columns))
    head.counts.frombytes(next(columns))
    kinds_of, ids = next(columns), next(columns)
    lengths.frombytes(next(columns))
    end, position, last = 0, 0, block_count(head.header.size)
    for gap, count, kind in zip(gaps, head.counts, kinds_of, strict=True):
        start = end + gap
        end = start + count
        if not count or end > last or kind > 1:
            raise IntegrityError("The journal's index names blocks outside of the disk.")
        head.starts.append(start)
        head.positions.append(position if kind else -1)
        position += journal_bytes(head.header, start, count) if kind else 0
    if position > MAX_DATA or frames != -(-position // FRAME_SIZE):
        raise IntegrityError("The journal's index does not fit its frames.")
    offset = head.length
    for number, length in enumerate(lengths):
        plain_length = min(FRAME_SIZE, position - number * FRAME_SIZE)
        if not OVERHEAD <= length <= MAX_CHUNK_SIZE:
            raise IntegrityError("The journal's index names frames that cannot be.")
        head.frames.append(JournalFrame(ids[32 * number : 32 * number + 32], offset, length, plain_length))
        offset += length
    head.content = binding + plain[: COUNTS_SIZE + extents * EXTENT_SIZE + 32 * frames]


def _cut(data: bytes, lengths: Sequence[int]) -> Iterator[bytes]:
    at = 0
    for length in lengths:
        yield data[at : at + length]
        at += length
