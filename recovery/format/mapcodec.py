"""Chunk maps as stored objects: a full map, or the entries that differ from the parent's. Exact bytes: docs/format.md.

    magic (8) | length of header u32 | header JSON | packs, 32 bytes each, in clear | sections
    section = length u32 | nonce (12) | AES-256-GCM(zstd(columns))

A section has up to 65,536 entries. Packs are in clear so that garbage can be collected without keys.
"""

from __future__ import annotations

import os
import struct
from array import array
from collections.abc import Iterator

import blake3
import msgspec
import zstandard
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from recovery.errors import IntegrityError
from recovery.format.chunkmap import ID_SIZE, PAGE, ChunkMap, Kind, MapBuilder
from recovery.format.keys import RepositoryKeys

MAGIC = b"RKMAP\x00\x00\x01"
VERSION = 1
#: A restore reads at most this many delta maps before a full one: they are small, but each is a request.
MAX_DEPTH = 16
#: A delta with more than a third of the entries saves little and costs every reader a step.
_MAX_DELTA = 1 / 3
_LENGTH = struct.Struct("<I")
_PACK_SIZE = 32


class MapHeader(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a stored map in clear. ``parent`` is the hex name of the map that a delta is based on; ``packs``
    (filled from the bytes behind the JSON) are those that this map is the first in its chain to refer to."""

    version: int = VERSION
    repository: str
    size: int
    chunk_size: int
    parent: str = ""
    depth: int = 0
    pack_count: int = 0
    sections: int = 0
    packs: tuple[bytes, ...] = ()

    @property
    def kind(self) -> str:
        """``full`` or ``delta``."""
        return "delta" if self.parent else "full"


def encode_map(map: ChunkMap, keys: RepositoryKeys, *, parent: tuple[str, ChunkMap] | None = None) -> bytes:
    """The bytes to store. ``parent`` is the hex name and the content of the previous map of this disk: the result is a
    delta to it when that is smaller and its chain is not too long yet."""
    if parent is not None:
        name, base = parent
        if base.depth + 1 < MAX_DEPTH and (base.size, base.chunk_size) == (map.size, map.chunk_size):
            changed = list(_changes(base, map))
            if sum(len(indexes) for _, indexes in changed) <= max(64, int(map.count * _MAX_DELTA)):
                map.depth = base.depth + 1
                new_packs = map.packs[len(base.packs) :]
                sections = [_columns(map, number, indexes) for number, indexes in changed if indexes]
                return _assemble(map, keys, name, new_packs, sections)
    compact = _compact(map)
    map.depth = 0
    pages = [
        (number, [at for at in range(len(page.kinds)) if page.kinds[at] != Kind.UNALLOCATED])
        for number, page in enumerate(compact.pages)
        if page is not None
    ]
    sections = [_columns(compact, number, indexes) for number, indexes in pages if indexes]
    return _assemble(compact, keys, "", compact.packs, sections)


def map_header(data: bytes | memoryview) -> MapHeader:
    """The header and the packs in clear; needs no keys. Raises IntegrityError."""
    header, _, _ = _split(data)
    return header


def decode_map(data: bytes | memoryview, keys: RepositoryKeys, parent: ChunkMap | None = None) -> ChunkMap:
    """The whole map; ``parent`` is what ``map_header(data).parent`` names. Raises IntegrityError."""
    header, clear, at = _split(data)
    if header.repository != keys.repository_id:
        raise IntegrityError("The chunk map belongs to another repository.")
    if bool(header.parent) != (parent is not None):
        raise ValueError("a delta needs its parent, a full map has none")
    builder = MapBuilder(header.size, header.chunk_size, parent)
    builder.add_packs(header.packs)
    packs = [*(parent.packs if parent else ()), *header.packs]
    aead, binding = AESGCM(keys.map_key), blake3.blake3(clear).digest()
    view = memoryview(data)
    for number in range(header.sections):
        if at + 16 > len(view):
            raise IntegrityError("The chunk map is cut short.")
        length = _LENGTH.unpack_from(view, at)[0]
        sealed = view[at + 4 : at + 4 + length]
        at += 4 + length
        try:
            plain = zstandard.decompress(aead.decrypt(sealed[:12], sealed[12:], binding + _LENGTH.pack(number)))
        except (InvalidTag, zstandard.ZstdError, ValueError) as error:
            raise IntegrityError("The chunk map is damaged or was altered.") from error
        _apply(builder, plain, packs)
    if at != len(view):
        raise IntegrityError("There are extra bytes behind the chunk map.")
    map = builder.finish()
    map.depth = header.depth
    return map


def _split(data: bytes | memoryview) -> tuple[MapHeader, bytes, int]:
    try:
        if bytes(data[:8]) != MAGIC:
            raise IntegrityError("This is not a chunk map.")
        end = 12 + _LENGTH.unpack_from(data, 8)[0]
        header = msgspec.json.decode(bytes(data[12:end]), type=MapHeader)
    except (struct.error, msgspec.MsgspecError, ValueError) as error:
        raise IntegrityError(f"The header of the chunk map is damaged: {error}.") from error
    if header.version != VERSION:
        raise IntegrityError(
            f"The chunk map has version {header.version}.", hint="A newer release of Rekindle may read it."
        )
    behind = end + header.pack_count * _PACK_SIZE
    if behind > len(data):
        raise IntegrityError("The chunk map is cut short.")
    packs = bytes(data[end:behind])
    named = tuple(packs[i : i + _PACK_SIZE] for i in range(0, len(packs), _PACK_SIZE))
    return msgspec.structs.replace(header, packs=named), bytes(data[:behind]), behind


def _assemble(map: ChunkMap, keys: RepositoryKeys, parent: str, packs: list[bytes], sections: list[bytes]) -> bytes:
    header = MapHeader(
        repository=keys.repository_id, size=map.size, chunk_size=map.chunk_size, parent=parent,
        depth=map.depth if parent else 0, pack_count=len(packs), sections=len(sections),
    )  # fmt: skip
    encoded = msgspec.json.encode({k: v for k, v in msgspec.structs.asdict(header).items() if k != "packs"})
    clear = MAGIC + _LENGTH.pack(len(encoded)) + encoded + b"".join(packs)
    aead, binding = AESGCM(keys.map_key), blake3.blake3(clear).digest()
    compressor = zstandard.ZstdCompressor(level=3)
    parts = [clear]
    for number, section in enumerate(sections):
        nonce = os.urandom(12)
        sealed = nonce + aead.encrypt(nonce, compressor.compress(section), binding + _LENGTH.pack(number))
        parts += [_LENGTH.pack(len(sealed)), sealed]
    return b"".join(parts)


def _columns(map: ChunkMap, number: int, indexes: list[int]) -> bytes:
    """Entries of page ``number``: page number u32, count u32, positions in the page u16, kinds u8, then for blobs only
    ids, refs u32, offsets u32, lengths u32."""
    page = map.pages[number]
    assert page is not None  # noqa: S101 - callers choose entries from pages that exist
    blobs = [at for at in indexes if page.kinds[at] == Kind.BLOB]
    everything = len(blobs) == len(page.kinds)
    return b"".join((
        _LENGTH.pack(number), _LENGTH.pack(len(indexes)),
        _little(array("H", indexes)), bytes(page.kinds[at] for at in indexes),
        bytes(page.ids) if everything else b"".join(page.ids[at * ID_SIZE : (at + 1) * ID_SIZE] for at in blobs),
        *(_little(column if everything else array("I", (column[at] for at in blobs)))
          for column in (page.refs, page.offsets, page.lengths)),
    ))  # fmt: skip


def _apply(builder: MapBuilder, plain: bytes, packs: list[bytes]) -> None:
    try:
        number, count = struct.unpack_from("<II", plain)
        positions = _from_little("H", plain[8 : 8 + 2 * count])
        kinds = plain[8 + 2 * count : 8 + 3 * count]
        blobs = kinds.count(Kind.BLOB)
        at = 8 + 3 * count
        if len(kinds) != count or len(plain) != at + blobs * (ID_SIZE + 12):
            raise IntegrityError("A section of the chunk map has the wrong length.")
        ids = plain[at : at + blobs * ID_SIZE]
        at += blobs * ID_SIZE
        refs, offsets, lengths = (
            _from_little("I", plain[at + i * 4 * blobs : at + (i + 1) * 4 * blobs]) for i in range(3)
        )
        if blobs == count == builder.page_count(number):
            builder.set_page(number, ids, refs, offsets, lengths)
            return
        blob = 0
        for position, kind in zip(positions, kinds, strict=True):
            index = number * PAGE + position
            if kind == Kind.BLOB:
                id = ids[blob * ID_SIZE : (blob + 1) * ID_SIZE]
                builder.set_blob(index, id, packs[refs[blob]], offsets[blob], lengths[blob])
                blob += 1
            else:
                builder.set_zero(index, allocated=kind == Kind.ZERO)
    except (IndexError, struct.error) as error:
        raise IntegrityError("A section of the chunk map contradicts itself.") from error


def _changes(base: ChunkMap, map: ChunkMap) -> Iterator[tuple[int, list[int]]]:
    """Per page the positions whose content or location differs; shared pages are skipped without a look."""
    for number, (old, new) in enumerate(zip(base.pages, map.pages, strict=True)):
        if old is new or new is None:
            continue
        indexes = []
        for at in range(len(new.kinds)):
            was = Kind.UNALLOCATED if old is None else old.kinds[at]
            if new.kinds[at] != was:
                indexes.append(at)
            elif was == Kind.BLOB and old is not None:
                same_id = new.ids[at * ID_SIZE : (at + 1) * ID_SIZE] == old.ids[at * ID_SIZE : (at + 1) * ID_SIZE]
                same_place = (map.packs[new.refs[at]], new.offsets[at]) == (base.packs[old.refs[at]], old.offsets[at])
                if not (same_id and same_place):
                    indexes.append(at)
        yield number, indexes


def _compact(map: ChunkMap) -> ChunkMap:
    """The same map whose packs table names only packs in use (a chain of deltas leaves dead ones behind)."""
    used = map.used_packs()
    if len(used) == len(map.packs):
        return map
    builder = MapBuilder(map.size, map.chunk_size)
    for start, count, allocated in map.zero_runs():
        for index in range(start, start + count) if allocated else ():
            builder.set_zero(index)
    for index, entry in map.blobs():
        builder.set_blob(index, *entry)
    return builder.finish()


def _little(column: array[int]) -> bytes:
    return column.tobytes()


def _from_little(kind: str, data: bytes) -> array[int]:
    column = array(kind)
    column.frombytes(data)
    return column
