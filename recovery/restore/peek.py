"""A few bytes of a captured disk, read from the repository without restoring it."""

from __future__ import annotations

from recovery.format.point import Point
from recovery.repository.content import ChunkReader, disk_content
from recovery.repository.repository import Repository


def read_captured(repository: Repository, point: Point, disk: str, offset: int, length: int) -> bytes:
    """``length`` bytes at ``offset`` of the point's disk, fewer at its end; every chunk's authenticity is checked.

    One request a chunk: for headers, not for content. Raises IntegrityError, NotFoundError, UnreachableError.
    """
    content = disk_content(repository, point, disk)
    map, reader = content.map, ChunkReader(repository, content, disk)
    end = min(offset + length, map.size)
    found = bytearray()
    for index in range(offset // map.chunk_size, -(-end // map.chunk_size)):
        plain = reader.chunk(index) or bytes(map.length(index))
        start = index * map.chunk_size
        found += plain[max(0, offset - start) : max(0, end - start)]
    return bytes(found)
