"""Chunk frames: one chunk of a disk, compressed and encrypted, bound to its id. Exact bytes: docs/format.md, "Frames".

A frame does not depend on the pack it lies in, so it can be moved as ciphertext, and a damaged pack can be scanned
for its frames.
"""

from __future__ import annotations

import functools
import os
import struct
from typing import NamedTuple

import blake3
import zstandard
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from recovery.errors import IntegrityError
from recovery.format.keys import RepositoryKeys

MAGIC = b"RKFRAME\x01"
#: magic, version, cipher (1: AES-256-GCM), compression, reserved, plain length, frame length, chunk id, salt
HEADER = struct.Struct("<8sBBBBII32s24s")
HEADER_SIZE = HEADER.size
TAG_SIZE = 16
OVERHEAD = HEADER_SIZE + TAG_SIZE
VERSION = 1
AES_256_GCM = 1
RAW, ZSTD = 0, 1
#: A chunk is stored raw unless compression saves at least this share: decoding it costs a core more than 5 % of I/O.
_WORTHWHILE = 0.95
MIN_CHUNK_SIZE, MAX_CHUNK_SIZE = 256 * 1024, 4 * 1024 * 1024
DEFAULT_CHUNK_SIZE = 1024 * 1024
#: On the files of a Linux system 7 % smaller than zstd's level 1 for 1.4 times its CPU: see _compressor.
DEFAULT_LEVEL = 3
#: Whether a chunk is worth compressing shows in so many samples of so many bytes, spread over it: 2 % of its time.
_SAMPLES, _SAMPLE_SIZE = 8, 2048
#: The key of each frame is used once, so its nonce need not differ.
_NONCE = bytes(12)

Buffer = bytes | bytearray | memoryview


def chunk_size_for(disk_size: int, default: int) -> int:
    """The chunk size of a disk: the repository's, and 4 MiB for disks of more than 2 TiB.

    With chunks of 1 MiB the maps of a host of 20 TiB took 18 s to plan with and 980 MiB (``scripts/bench scale``),
    more than a small machine that they are restored on has.
    """
    return MAX_CHUNK_SIZE if disk_size > 2 * 2**40 else default


def chunk_id(keys: RepositoryKeys, plain: Buffer) -> bytes:
    """The keyed BLAKE3-256 of a chunk's content: 32 bytes."""
    return blake3.blake3(plain, key=keys.chunk_id_key).digest()


def is_zero(buffer: Buffer) -> bool:
    """Whether all bytes are zero (20 GB/s)."""
    # removeprefix() compares any buffer by memcmp(), and takes off all of it or nothing; == on a memoryview makes a
    # Python number of each byte (0.5 GB/s).
    return not len(buffer) or not _zeros(len(buffer)).removeprefix(buffer)


@functools.lru_cache(maxsize=4)
def _zeros(size: int) -> bytes:
    return bytes(size)


class Payload(NamedTuple):
    """A chunk's content as it goes into a frame: compressed, or as it is."""

    data: Buffer
    compression: int
    plain_length: int

    @property
    def frame_length(self) -> int:
        """Bytes of the frame that holds it."""
        return OVERHEAD + len(self.data)


class FrameEncoder:
    """Makes frames; not for use by two threads at once, since the compressor is reused."""

    def __init__(self, keys: RepositoryKeys, level: int = DEFAULT_LEVEL) -> None:
        self._key = keys.frame_key
        self._compressor = _compressor(level)
        self._sampler = zstandard.ZstdCompressor(level=1)

    def compress(self, plain: Buffer) -> Payload:
        """The payload of one chunk; it may refer to ``plain``, which must not change until the frame is sealed."""
        if not self._is_dense(plain):
            data = self._compressor.compress(plain)
            if len(data) <= len(plain) * _WORTHWHILE:
                return Payload(data, ZSTD, len(plain))
        return Payload(plain, RAW, len(plain))

    def _is_dense(self, plain: Buffer) -> bool:
        """Whether samples of the chunk do not compress at all: films, archives, what a guest encrypted. Being wrong
        costs room, never content."""
        if len(plain) < 4 * _SAMPLES * _SAMPLE_SIZE:
            return False
        step = len(plain) // _SAMPLES
        view = memoryview(plain)
        sample = b"".join(view[at : at + _SAMPLE_SIZE] for at in range(0, step * _SAMPLES, step))
        return len(self._sampler.compress(sample)) >= len(sample)

    def seal_into(self, id: bytes, payload: Payload, out: memoryview) -> None:
        """Write the frame of chunk ``id`` into ``out``, which has its ``frame_length``."""
        salt = os.urandom(24)
        length = payload.frame_length
        header = HEADER.pack(
            MAGIC, VERSION, AES_256_GCM, payload.compression, 0, payload.plain_length, length, id, salt
        )
        out[:HEADER_SIZE] = header
        AESGCM(_frame_key(self._key, salt, id)).encrypt_into(_NONCE, payload.data, header, out[HEADER_SIZE:])

    def encode(self, id: bytes, plain: Buffer) -> bytes:
        """The frame of one chunk."""
        payload = self.compress(plain)
        frame = bytearray(payload.frame_length)
        self.seal_into(id, payload, memoryview(frame))
        return bytes(frame)


def _compressor(level: int) -> zstandard.ZstdCompressor:
    """A compressor for chunks. The default level has tables of 2^16 and 2^14 entries instead of zstd's 2^17 and 2^16.

    Those are made for inputs without end; a chunk has a million bytes, and tables of 768 KiB do not stay in the cache
    of a core. Those of 320 KiB compress 1.5 times as fast and 0.9 % less, in chunks of 1 MiB of the files below /usr
    (AMD EPYC, 512 KiB of second level cache). Smaller ones are faster still (2^14 and 2^13: 1.75 times), but what they
    store, 2.5 % more, is beyond the goal in docs/performance.md.
    """
    if level != DEFAULT_LEVEL:
        return zstandard.ZstdCompressor(level=level, write_checksum=False, write_content_size=True)
    parameters = zstandard.ZstdCompressionParameters.from_level(
        level, hash_log=16, chain_log=14, write_checksum=False, write_content_size=True
    )
    return zstandard.ZstdCompressor(compression_params=parameters)


def encode_frame(keys: RepositoryKeys, id: bytes, plain: Buffer, level: int = DEFAULT_LEVEL) -> bytes:
    """The frame of one chunk (convenience; a FrameEncoder is faster for many)."""
    return FrameEncoder(keys, level).encode(id, plain)


class FrameDecoder:
    """Reads frames; one for each thread, since its buffer and decompressor are reused."""

    def __init__(self, keys: RepositoryKeys) -> None:
        self._key = keys.frame_key
        self._decompressor = zstandard.ZstdDecompressor()
        self._scratch = bytearray(DEFAULT_CHUNK_SIZE)

    def decode_into(self, frame: memoryview, id: bytes, out: memoryview) -> int:
        """Check, decrypt and decompress ``frame``, which must be chunk ``id``, into ``out``; returns its plain length.

        ``out`` holds at least the plain length; what lies behind it is not touched. Raises IntegrityError: wrong
        bytes are never left unnoticed (AES-GCM with id and header as associated data), though ``out`` may hold part
        of them then.
        """
        if len(frame) < OVERHEAD:
            raise IntegrityError(f"The frame of chunk {id.hex()} is cut short.")
        header = bytes(frame[:HEADER_SIZE])
        magic, version, cipher, compression, _, size, length, found, salt = HEADER.unpack(header)
        plain_length: int = size
        if magic != MAGIC or found != id or length != len(frame):
            raise IntegrityError(f"There is no frame of chunk {id.hex()} where it should be.")
        if version != VERSION or cipher != AES_256_GCM or compression not in (RAW, ZSTD):
            raise IntegrityError(
                f"The frame of chunk {id.hex()} has version {version}, cipher {cipher}, compression {compression}.",
                hint="A newer release of Rekindle may read it.",
            )
        if plain_length > len(out):
            raise IntegrityError(f"Chunk {id.hex()} has {plain_length} bytes, more than the {len(out)} expected.")
        cipher_text = frame[HEADER_SIZE:]
        payload_length = len(cipher_text) - TAG_SIZE
        aead = AESGCM(_frame_key(self._key, salt, id))
        try:
            if compression == RAW:
                if payload_length != plain_length:
                    raise IntegrityError(f"The lengths in the frame of chunk {id.hex()} contradict each other.")
                aead.decrypt_into(_NONCE, cipher_text, header, out[:plain_length])
                return plain_length
            if payload_length > len(self._scratch):
                self._scratch = bytearray(payload_length)
            payload = memoryview(self._scratch)[:payload_length]
            aead.decrypt_into(_NONCE, cipher_text, header, payload)
        except InvalidTag as error:
            raise IntegrityError(f"The frame of chunk {id.hex()} was altered after it was written.") from error
        self._decompress(payload, id, out[:plain_length])
        return plain_length

    def _decompress(self, payload: memoryview, id: bytes, out: memoryview) -> None:
        # readinto() writes straight into the caller's (aligned) buffer; decompress() would allocate and copy.
        try:
            with self._decompressor.stream_reader(payload, closefd=False) as reader:
                filled = 0
                while filled < len(out):
                    count = reader.readinto(out[filled:])
                    if not count:
                        break
                    filled += count
                more = reader.read(1)
        except zstandard.ZstdError as error:
            raise IntegrityError(f"Chunk {id.hex()} does not decompress: {error}.") from error
        if filled != len(out) or more:
            raise IntegrityError(f"Chunk {id.hex()} does not decompress to its {len(out)} bytes.")


def _frame_key(frame_key: bytes, salt: bytes, id: bytes) -> bytes:
    return blake3.blake3(salt + id, key=frame_key).digest()
