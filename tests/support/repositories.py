"""Small real repositories for tests that do not need a whole capture."""

from __future__ import annotations

import os
import time
from pathlib import Path

from recovery.format.chunk import chunk_id, encode_frame, is_zero
from recovery.format.chunkmap import ChunkMap, MapBuilder
from recovery.format.keys import RepositoryKeys
from recovery.format.mapcodec import encode_map
from recovery.format.pack import Pack, PackBuilder
from recovery.format.point import DiskMapRef, Point, PointBody, PointDisk, PointHeader
from recovery.layout import Firmware, PartitionTable
from recovery.repository.protocols import ObjectStore
from recovery.repository.repository import Repository
from recovery.repository.store import open_local

PASSPHRASE = "correct horse battery staple"


def new_repository(path: Path) -> Repository:
    """A repository in a directory, opened."""
    return Repository.create(open_local(path, create=True), PASSPHRASE)[0]


def noise_pack(size: int) -> Pack:
    """A pack with one frame of ``size`` random bytes, under keys of its own: what a server takes without keys."""
    keys, plain, builder = RepositoryKeys(os.urandom(32), "ab" * 16), os.urandom(size), PackBuilder()
    id = chunk_id(keys, plain)
    builder.add(id, encode_frame(keys, id, plain), size)
    return builder.finish()


def reopen(store: ObjectStore) -> Repository:
    """The same repository once more, through another store."""
    return Repository.open(store, PASSPHRASE)


def store_disk(
    repository: Repository, content: bytes, *, chunk_size: int = 256 * 1024, frames_per_pack: int = 5,
    parent: tuple[str, ChunkMap] | None = None, holes: bool = False,
) -> tuple[str, ChunkMap]:  # fmt: skip
    """Store a disk's content; returns the name of its chunk map and the map. Duplicates are stored once."""
    builder = MapBuilder(len(content), chunk_size, parent[1] if parent else None)
    known: dict[bytes, tuple[bytes, int, int]] = {}
    if parent is not None:
        known = {entry.id: (entry.pack, entry.offset, entry.length) for _, entry in parent[1].blobs()}
    waiting: list[tuple[int, bytes]] = []
    pack = PackBuilder()

    def flush() -> None:
        nonlocal pack
        finished = pack.finish()
        repository.put_pack(finished)
        known.update({e.id: (bytes.fromhex(finished.name), e.offset, e.length) for e in finished.entries})
        pack = PackBuilder()

    added: set[bytes] = set()
    count = 0
    for index in range(-(-len(content) // chunk_size)):
        plain = content[index * chunk_size : (index + 1) * chunk_size]
        if is_zero(plain):
            builder.set_zero(index, allocated=not holes)
            continue
        id = chunk_id(repository.keys, plain)
        waiting.append((index, id))
        if id not in added and id not in known:
            added.add(id)
            pack.add(id, encode_frame(repository.keys, id, plain), len(plain))
            count += 1
            if count % frames_per_pack == 0:
                flush()
    if not pack.empty:
        flush()
    for index, id in waiting:
        builder.set_blob(index, id, *known[id])
    map = builder.finish()
    return repository.put_map(encode_map(map, repository.keys, parent=parent)), map


def commit(
    repository: Repository,
    host: str,
    disks: dict[str, tuple[str, ChunkMap]],
    *,
    created: float | None = None,
    firmware: Firmware = "uefi",
    table: PartitionTable | None = None,
) -> Point:
    """A point of the host's disks, after the newest one."""
    latest = repository.latest(host)
    header = PointHeader(
        version=1, repository=repository.id, host=host, created=created or time.time(),
        parent=latest.id if latest else "",
        maps=tuple(DiskMapRef(disk=disk, map=name) for disk, (name, _) in disks.items()),
    )  # fmt: skip
    body = PointBody(
        disks=tuple(
            PointDisk(
                name=disk,
                size=map.size,
                sector_size=512,
                chunk_size=map.chunk_size,
                root=map.root().hex(),
                table=table or PartitionTable(),
            )
            for disk, (_, map) in disks.items()
        ),
        consistency="offline",
        firmware=firmware,
    )
    return repository.commit(header, body)
