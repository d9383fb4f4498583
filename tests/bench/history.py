"""A repository with hundreds of points of one host, of which only the newest can be restored.

``python -m tests.bench.history FOLDER`` makes it. Every point and chunk map is real; of the packs only those frames
exist that the newest point refers to, the rest is holes: so it takes the room of one point, and its frames lie where
they would lie.

The workload is that of a busy server, a point an hour: 144 chunk writes an hour for each GiB of disk, four fifths of
them into a fiftieth of the chunks. A chunk that changed is stored in a pack of its point.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from pathlib import Path

import blake3
import msgspec

from recovery.format.chunk import DEFAULT_CHUNK_SIZE, chunk_id, encode_frame
from recovery.format.chunkmap import ChunkMap, MapBuilder
from recovery.format.mapcodec import encode_map
from recovery.format.names import pack_name
from recovery.repository.repository import Repository
from recovery.repository.store import open_local
from recovery.units import GIB, MIB
from tests.bench.data import HOST, PASSPHRASE
from tests.bench.vast import plain
from tests.support.repositories import commit

POINTS = 240
SIZE = 4 * GIB
_USED = 0.6
_WRITES_PER_GIB = 144
_HOT_WRITES, _HOT_CHUNKS = 0.8, 0.02
_PACK = 64 * MIB


class HistoryFacts(msgspec.Struct, frozen=True, kw_only=True):
    """``digest`` is the BLAKE3 of the newest point's disk, ``needed`` the bytes of its frames."""

    size: int
    digest: str
    needed: int
    packs: int


def written(points: int = POINTS, size: int = SIZE, seed: int = 1) -> list[list[int]]:
    """Which chunks each point stores, sorted: all that are used by the first one, then what changed. Pure."""
    source = random.Random(seed)
    used = sorted(source.sample(range(size // DEFAULT_CHUNK_SIZE), int(size // DEFAULT_CHUNK_SIZE * _USED)))
    # Files that are written often lie together.
    hot_count = max(1, int(len(used) * _HOT_CHUNKS))
    start = source.randrange(len(used) - hot_count)
    hot = used[start : start + hot_count]
    found = [used]
    for _ in range(points - 1):
        changed = {
            source.choice(hot if source.random() < _HOT_WRITES else used) for _ in range(_WRITES_PER_GIB * size // GIB)
        }
        found.append(sorted(changed))
    return found


def build(folder: Path, points: int = POINTS, size: int = SIZE) -> HistoryFacts:
    """Make the repository."""
    repository, _ = Repository.create(open_local(folder, create=True), PASSPHRASE)
    history = written(points, size)
    newest = {index: number for number, changed in enumerate(history) for index in changed}
    length = len(encode_frame(repository.keys, bytes(32), content(0)))
    stored = _store(repository, folder, history, newest, length)
    name, map = "", MapBuilder(size, DEFAULT_CHUNK_SIZE).finish()
    for number, changed in enumerate(history):
        builder = MapBuilder(size, DEFAULT_CHUNK_SIZE, map)
        for place, index in enumerate(changed):
            id = stored.get(index, b"") if newest[index] == number else _lost_id(number, index)
            builder.set_blob(index, id, *_where(number, place, length), length)
        parent = (name, map) if name else None
        map = builder.finish()
        name = repository.put_map(encode_map(map, repository.keys, parent=parent))
        # As it was stored: a full map has forgotten the packs that nothing refers to any more.
        map = repository.map(name)
        commit(repository, HOST, {"disk1": (name, map)})
    return HistoryFacts(size=size, digest=_digest(map, size), needed=len(newest) * length, packs=len(map.used_packs()))


def content(index: int) -> bytes:
    """What the newest point has in this chunk."""
    return index.to_bytes(8, "little") + plain(DEFAULT_CHUNK_SIZE)[8:]


def _where(point: int, place: int, length: int) -> tuple[bytes, int]:
    """The pack (32 bytes) and the offset of the ``place``-th chunk that a point stores."""
    number, at = divmod(place, _PACK // length)
    return blake3.blake3(f"point {point} pack {number}".encode()).digest(), at * length


def _store(
    repository: Repository, folder: Path, history: Sequence[Sequence[int]], newest: dict[int, int], length: int
) -> dict[int, bytes]:
    """Write the frames that the newest point refers to; returns the ids of its chunks."""
    ids: dict[int, bytes] = {}
    for number, changed in enumerate(history):
        for place, index in enumerate(changed):
            pack, offset = _where(number, place, length)
            path = folder / pack_name(pack.hex())
            if offset == 0:
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("wb") as file:
                    file.truncate(min(len(changed) - place, _PACK // length) * length)
            if newest[index] == number:
                ids[index] = chunk_id(repository.keys, content(index))
                frame = encode_frame(repository.keys, ids[index], content(index))
                assert len(frame) == length, "the maps say how long every frame is"
                with path.open("r+b") as file:
                    file.seek(offset)
                    file.write(frame)
    return ids


def _lost_id(point: int, index: int) -> bytes:
    return blake3.blake3(f"{point} {index}".encode()).digest()


def _digest(map: ChunkMap, size: int) -> str:
    stored = {index for index, _ in map.blobs()}
    whole, zeros = blake3.blake3(), bytes(DEFAULT_CHUNK_SIZE)
    for index in range(size // DEFAULT_CHUNK_SIZE):
        whole.update(content(index) if index in stored else zeros)
    return whole.hexdigest()


if __name__ == "__main__":
    made = build(Path(sys.argv[1]))
    Path(sys.argv[2]).write_bytes(msgspec.json.encode(made))
