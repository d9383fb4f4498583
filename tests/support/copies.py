"""A repository and its byte-wise copy, damaged at chosen places."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

from recovery.format.chunkmap import ChunkMap, MapEntry
from recovery.format.names import pack_name
from recovery.format.point import Point
from recovery.layout import PartitionTable
from recovery.repository.failover import with_copies
from recovery.repository.repository import Repository
from recovery.repository.store import open_local
from tests.support.repositories import commit, new_repository, reopen, store_disk

CHUNK = 256 * 1024


class Copies:
    """A repository with one disk of 40 stored chunks, zeros and duplicates, and a byte-wise copy of it."""

    def __init__(self, folder: Path, table: PartitionTable | None = None) -> None:
        rng = random.Random(5)
        parts = [rng.randbytes(CHUNK) for _ in range(40)]
        self.data = b"".join([*parts[:20], bytes(3 * CHUNK), parts[3], *parts[20:], parts[25], rng.randbytes(2560)])
        self.folder = folder
        repository = new_repository(folder / "one")
        stored = store_disk(repository, self.data, chunk_size=CHUNK)
        self.map: ChunkMap = stored[1]
        self.point: Point = commit(repository, "hv1", {"disk1": stored}, table=table)
        shutil.copytree(folder / "one", folder / "two")

    def open(self, *names: str) -> Repository:
        first, *others = (open_local(self.folder / name) for name in names or ("one", "two"))
        return with_copies(reopen(first), others)

    def entry(self, index: int) -> MapEntry:
        entry = self.map.get(index)
        assert isinstance(entry, MapEntry)
        return entry

    def pack(self, copy: str, index: int) -> Path:
        return self.folder / copy / pack_name(self.entry(index).pack.hex())

    def flip(self, copy: str, index: int) -> None:
        file = self.pack(copy, index)
        data = bytearray(file.read_bytes())
        data[self.entry(index).offset + self.entry(index).length // 2] ^= 1
        file.write_bytes(data)

    def cut(self, copy: str, index: int) -> None:
        """The pack ends in the middle of this chunk's frame."""
        os.truncate(self.pack(copy, index), self.entry(index).offset + self.entry(index).length // 2)

    def wipe(self, *indexes: int) -> bytes:
        """The disk with zeros for these chunks."""
        data = bytearray(self.data)
        for index in indexes:
            data[index * CHUNK : (index + 1) * CHUNK] = bytes(len(data[index * CHUNK : (index + 1) * CHUNK]))
        return bytes(data)
