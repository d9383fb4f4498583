"""A few bytes of a captured disk, read from the repository without restoring it."""

from __future__ import annotations

from recovery.format.chunk import FrameDecoder
from recovery.format.chunkmap import MapEntry
from recovery.format.names import pack_name
from recovery.format.point import Point
from recovery.repository.repository import Repository


def read_captured(repository: Repository, point: Point, disk: str, offset: int, length: int) -> bytes:
    """``length`` bytes at ``offset`` of the point's disk, fewer at its end; every chunk's authenticity is checked.

    One request a chunk: for headers, not for content. Raises IntegrityError, NotFoundError, UnreachableError.
    """
    map = repository.chunk_map(point, disk)
    decoder = FrameDecoder(repository.keys)
    end = min(offset + length, map.size)
    found = bytearray()
    for index in range(offset // map.chunk_size, -(-end // map.chunk_size)):
        plain = bytearray(map.length(index))
        entry = map.get(index)
        if isinstance(entry, MapEntry):
            frame = memoryview(bytearray(entry.length))
            repository.store.read_into(pack_name(entry.pack.hex()), entry.offset, frame)
            decoder.decode_into(frame, entry.id, memoryview(plain))
        start = index * map.chunk_size
        found += plain[max(0, offset - start) : max(0, end - start)]
    return bytes(found)
