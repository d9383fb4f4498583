"""A repository grown old: hundreds of captures of a disk of which a little changes every time.

Packs, maps and points are as a capture writes them (what changed, in the order of the disk; a map that refers to its
parent's); the disk itself is never there as a whole, so that a history of gigabytes takes seconds.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from recovery.format.chunk import chunk_id, encode_frame
from recovery.format.chunkmap import ChunkMap, MapBuilder
from recovery.format.mapcodec import decode_map, encode_map, map_header
from recovery.format.pack import PackBuilder
from recovery.format.point import Point
from recovery.repository.repository import Repository
from recovery.units import MIB
from tests.support.repositories import commit

HOST, DISK = "old", "disk1"


@dataclass
class History:
    """The newest point, its map, and in which capture each chunk was written last."""

    point: Point
    map: ChunkMap
    versions: list[int]
    seed: int

    def chunk(self, index: int) -> bytes:
        """What chunk ``index`` holds."""
        return content(self.map.chunk_size, index, self.versions[index], self.seed)


def content(size: int, index: int, version: int, seed: int) -> bytes:
    """``size`` bytes that compress to about 0.42 of that, as the files of a system do."""
    rng = random.Random(f"{seed} {index} {version}")
    start = rng.randbytes(int(size * rng.uniform(0.25, 0.59)))
    return (start + (b"%016d" % rng.randrange(10**15)) * (size // 16))[:size]


def grow_old(
    repository: Repository, *, size: int, chunk_size: int = MIB, captures: int = 300, share: float = 0.01,
    pack_size: int = 64 * MIB, seed: int = 1,
) -> History:  # fmt: skip
    """A first capture of ``size`` bytes (a multiple of ``chunk_size``), and ``captures`` more, each after a random
    ``share`` of the chunks changed."""
    rng, count = random.Random(seed), size // chunk_size
    versions = [0] * count
    changed = list(range(count))
    stored: tuple[str, ChunkMap] | None = None
    for capture in range(captures + 1):
        builder = MapBuilder(size, chunk_size, stored[1] if stored else None)
        pack, ids = PackBuilder(), dict[bytes, int]()
        for index in changed:
            plain = content(chunk_size, index, capture, seed)
            id = chunk_id(repository.keys, plain)
            pack.add(id, encode_frame(repository.keys, id, plain, 1), chunk_size)
            ids[id], versions[index] = index, capture
            if pack.size >= pack_size:
                _store(repository, builder, pack, ids)
                pack, ids = PackBuilder(), {}
        if ids:
            _store(repository, builder, pack, ids)
        data = encode_map(builder.finish(), repository.keys, parent=stored)
        # As the next capture reads it: a full map is stored with another table of packs than the one in memory.
        map = decode_map(data, repository.keys, stored[1] if stored and map_header(data).parent else None)
        stored = repository.put_map(data), map
        point = commit(repository, HOST, {DISK: stored})
        changed = sorted(rng.sample(range(count), max(1, round(count * share))))
    return History(point, map, versions, seed)


def _store(repository: Repository, builder: MapBuilder, pack: PackBuilder, ids: dict[bytes, int]) -> None:
    finished = pack.finish()
    repository.put_pack(finished)
    for entry in finished.entries:
        builder.set_blob(ids[entry.id], entry.id, bytes.fromhex(finished.name), entry.offset, entry.length)
