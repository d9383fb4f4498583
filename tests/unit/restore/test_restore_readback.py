"""The Merkle root of what a disk gives back: leaves that several threads complete in any order."""

from __future__ import annotations

import random
import threading
from pathlib import Path

import pytest

from recovery.errors import CancelledError, IntegrityError
from recovery.format.chunk import chunk_id
from recovery.format.chunkmap import LEAF, ChunkMap, MapBuilder
from recovery.format.keys import RepositoryKeys
from recovery.restore.readback import Readback
from recovery.restore.target import Target

CHUNK = 256 * 1024
COUNT = LEAF + 70
STORED = (0, 1, 5, 300, LEAF - 1, LEAF, COUNT - 1)


@pytest.fixture
def keys() -> RepositoryKeys:
    return RepositoryKeys(bytes(range(32)), "0" * 32)


@pytest.fixture
def disk(tmp_path: Path, keys: RepositoryKeys) -> tuple[Path, ChunkMap]:
    """A sparse image of two leaves with some content, and its map."""
    image, size = tmp_path / "disk", COUNT * CHUNK - 512 * 3
    builder, rng = MapBuilder(size, CHUNK), random.Random(1)
    with image.open("wb") as file:
        file.truncate(size)
        for index in STORED:
            plain = rng.randbytes(min(CHUNK, size - index * CHUNK))
            file.seek(index * CHUNK)
            file.write(plain)
            builder.set_blob(index, chunk_id(keys, plain), bytes(32), 16, 100)
    return image, builder.finish()


def read_back(
    image: Path, map: ChunkMap, keys: RepositoryKeys, *, lost: set[int] | None = None,
    cancel: threading.Event | None = None,
) -> Readback:  # fmt: skip
    with Target(str(image), map.size) as target:
        back = Readback(map, keys, target, lost or set(), lambda offset: f"byte {offset}", threading.Event())
        back.check(range(map.count), 3, cancel or threading.Event(), lambda: None)
    return back


def test_all_of_it_gives_the_root_of_the_map(disk: tuple[Path, ChunkMap], keys: RepositoryKeys) -> None:
    image, map = disk
    back = read_back(image, map, keys)
    assert back.root() == map.root()
    assert back.done == map.size


def test_one_wrong_byte_is_found_and_named(disk: tuple[Path, ChunkMap], keys: RepositoryKeys) -> None:
    image, map = disk
    for index in (300, 301, LEAF):
        with image.open("r+b") as file:
            file.seek(index * CHUNK + 77)
            before = file.read(1)
            file.seek(index * CHUNK + 77)
            file.write(bytes([before[0] ^ 1]))
        with pytest.raises(IntegrityError, match=f"byte {index * CHUNK}\\."):
            read_back(image, map, keys)
        with image.open("r+b") as file:
            file.seek(index * CHUNK + 77)
            file.write(before)


def test_lost_chunks_must_be_zeros_and_change_the_root(disk: tuple[Path, ChunkMap], keys: RepositoryKeys) -> None:
    image, map = disk
    with pytest.raises(IntegrityError, match=f"byte {LEAF * CHUNK}"):
        read_back(image, map, keys, lost={LEAF})
    with image.open("r+b") as file:
        file.seek(LEAF * CHUNK)
        file.write(bytes(CHUNK))
    assert read_back(image, map, keys, lost={LEAF}).root() != map.root()


def test_it_can_be_stopped(disk: tuple[Path, ChunkMap], keys: RepositoryKeys) -> None:
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(CancelledError, match="read back"):
        read_back(*disk, keys, cancel=cancel)
