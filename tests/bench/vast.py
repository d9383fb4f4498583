"""A synthetic host of 20 TiB: real chunk maps, and packs whose frames are made when they are asked for.

``python -m tests.bench.vast build FOLDER`` makes it once; ``... restore FOLDER DEVICE BYTES`` restores the first of
its disks until so many bytes were written. Both are processes of their own for the sake of their memory.
"""

from __future__ import annotations

import contextlib
import functools
import random
import sys
import threading
import time
from array import array
from collections.abc import Iterator
from pathlib import Path

import blake3
import msgspec

from recovery.errors import CancelledError
from recovery.events import Event, Progress
from recovery.format.chunk import DEFAULT_CHUNK_SIZE, chunk_size_for, encode_frame
from recovery.format.chunkmap import ID_SIZE, ChunkMap, MapBuilder
from recovery.format.keys import RepositoryKeys
from recovery.format.mapcodec import encode_map
from recovery.format.names import pack_name, parse_name
from recovery.format.point import DiskMapRef, PointBody, PointDisk, PointHeader
from recovery.repository.protocols import ObjectInfo, ObjectReader
from recovery.repository.repository import Repository
from recovery.repository.store import open_local
from recovery.restore.disk import RestoreOptions, restore_disk
from recovery.units import GIB, MIB, TIB
from tests.bench.data import HOST, PASSPHRASE
from tests.bench.model import Sample
from tests.bench.worker import peak_memory

SIZES = {"disk1": 8 * TIB, "disk2": 8 * TIB, "disk3": 4 * TIB}
#: Of each GiB of a disk this much is used, so that no part of a map is empty.
_USED, _STRIDE = 6, 10
#: All disks are so large that their chunks are.
_CHUNK = chunk_size_for(min(SIZES.values()), DEFAULT_CHUNK_SIZE)
#: Bytes of a pack.
_PACK = 64 * MIB
#: The share of a chunk's bytes that do not compress: program files come to this.
_DENSE = 0.41


@functools.cache
def plain(size: int = _CHUNK) -> bytes:
    """What every chunk of ``size`` bytes holds; its frames differ by their ids."""
    dense = int(size * _DENSE)
    return random.Random(1).randbytes(dense) + bytes(size - dense)


def build(folder: Path) -> None:
    """Maps, a point, and packs that are nothing but holes of the right length."""
    repository, _ = Repository.create(open_local(folder, create=True), PASSPHRASE)
    length = len(encode_frame(repository.keys, bytes(32), plain()))
    made: dict[str, tuple[str, ChunkMap]] = {}
    for name, size in SIZES.items():
        map = _build_map(folder, name, size, length)
        made[name] = (repository.put_map(encode_map(map, repository.keys)), map)
    repository.commit(
        PointHeader(
            version=1, repository=repository.id, host=HOST, created=time.time(),
            maps=tuple(DiskMapRef(disk=disk, map=name) for disk, (name, _) in made.items()),
        ),
        # Of an unknown firmware: what is known of it would refuse the plan on machines of the other one.
        PointBody(
            disks=tuple(
                PointDisk(name=disk, size=map.size, sector_size=512, chunk_size=map.chunk_size, root=map.root().hex(),
                          used=map.used())
                for disk, (_, map) in made.items()
            ),
            consistency="offline", firmware="unknown",
        ),
    )  # fmt: skip


def _build_map(folder: Path, name: str, size: int, length: int) -> ChunkMap:
    builder = MapBuilder(size, _CHUNK)
    frames = _PACK // length
    in_gib = GIB // _CHUNK
    chunks = iter(index for index in range(size // _CHUNK) if index % in_gib < in_gib * _USED // _STRIDE)
    number, done = 0, False
    while not done:
        pack = blake3.blake3(f"{name} {number}".encode()).digest()
        number += 1
        ids = ids_of(pack, frames)
        path = folder / pack_name(pack.hex())
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            file.truncate(frames * length + 4096)
        for place in range(frames):
            index = next(chunks, None)
            if index is None:
                done = True
                break
            builder.set_blob(index, ids[place * ID_SIZE : (place + 1) * ID_SIZE], pack, place * length, length)
    return builder.finish()


def ids_of(pack: bytes, frames: int) -> bytes:
    """The ids of a pack's frames: they follow from its name, so that any frame can be made again."""
    return blake3.blake3(pack).digest(length=frames * ID_SIZE)


class VastStore:
    """The repository's objects; what is read from packs is made now."""

    def __init__(self, real: ObjectReader, keys: RepositoryKeys) -> None:
        self._real, self._keys = real, keys
        self._length = len(encode_frame(keys, bytes(32), plain()))
        self.requests = array("Q", [0])

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        return self._real.list(prefix)

    def size(self, name: str) -> int | None:
        return self._real.size(name)

    def get(self, name: str) -> bytes:
        return self._real.get(name)

    def put_if_absent(self, name: str, data: bytes | memoryview) -> bool:
        raise NotImplementedError

    def delete(self, name: str) -> None:
        raise NotImplementedError

    def read_into(self, name: str, offset: int, buffer: memoryview) -> None:
        """Frames, each encoded with its id; reads begin and end with frames."""
        parsed = parse_name(name)
        assert parsed is not None
        ids = ids_of(bytes.fromhex(parsed.digest), _PACK // self._length)
        for at in range(0, len(buffer), self._length):
            place = (offset + at) // self._length
            frame = encode_frame(self._keys, ids[place * ID_SIZE : (place + 1) * ID_SIZE], plain())
            buffer[at : at + self._length] = frame
        self.requests[0] += 1


def restore(folder: Path, device: str, enough: int) -> Sample:
    """Begin to restore the first disk; stop when ``enough`` bytes were written. ``to_first_write`` is in seconds."""
    begin = time.monotonic()
    real = Repository.open(open_local(folder), PASSPHRASE)
    store = VastStore(real.store, real.keys)
    repository = Repository(store, real.file, real.keys)
    point = repository.point(HOST, "latest")
    cancel, first = threading.Event(), [0.0]

    def hear(event: Event) -> None:
        if isinstance(event, Progress) and event.written:
            first[0] = first[0] or time.monotonic() - begin
            if event.written >= enough:
                cancel.set()

    with contextlib.suppress(CancelledError):
        restore_disk(repository, point, "disk1", device, hear, cancel, RestoreOptions(compare="never"))
    figures: dict[str, float] = {"peak_rss": peak_memory(), "to_first_write": first[0], "requests": store.requests[0]}
    return Sample(seconds=time.monotonic() - begin, figures=figures)


def main() -> None:
    """Do one of both."""
    if sys.argv[1] == "build":
        build(Path(sys.argv[2]))
    else:
        sample = restore(Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
        print(msgspec.json.encode(sample).decode())


if __name__ == "__main__":
    main()
