"""Captures of real images into real repositories: byte for byte, and each content once."""

from __future__ import annotations

import random
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recovery.capture import hashing, packer, pipeline
from recovery.capture.diskmap import DiskMap
from recovery.capture.pipeline import capture
from recovery.capture.request import CaptureRequest
from recovery.events import Event, Progress, ignore
from recovery.format import pack
from recovery.format.chunkmap import Kind
from recovery.format.pack import pack_buffer
from recovery.repository.check import check
from recovery.repository.index import SqliteIndex
from recovery.repository.repository import Repository
from tests.integration.capture_images import MIB, sparse
from tests.support.captures import noise, packs, read_back, take
from tests.support.examples import examples


@settings(deadline=None, max_examples=examples(10), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from("abzh"), min_size=1, max_size=9), st.integers(0, MIB - 1))
def test_every_byte_comes_back(repository: Repository, tmp_path: Path, kinds: list[str], tail: int) -> None:
    """Contents ``a`` and ``b`` repeat, ``z`` are written zeros, ``h`` holes; the last chunk may be partial."""
    host = f"host{len(repository.hosts())}"
    rng = random.Random(3)
    contents = {"a": rng.randbytes(MIB), "b": b"b" * MIB, "z": bytes(MIB)}
    path = sparse(tmp_path / "disk.img", len(kinds) * MIB + tail)
    with path.open("r+b") as file:
        for index, kind in enumerate(kinds):
            if kind != "h":
                file.seek(index * MIB)
                file.write(contents[kind])
        file.seek(len(kinds) * MIB)
        file.write(contents["a"][:tail])
    point = take(repository, path, host=host)
    assert read_back(repository, point) == path.read_bytes()
    disk = point.body.disks[0]
    assert disk.used == disk.changed == (kinds.count("a") + kinds.count("b")) * MIB + tail
    chunk_map = repository.chunk_map(point, "disk1")
    distinct = {entry.id for _, entry in chunk_map.blobs()}
    assert len(distinct) == len(set(kinds) & set("ab")) + (tail > 0)
    for index, kind in enumerate(kinds):
        expected = {"h": Kind.UNALLOCATED, "z": Kind.ZERO}.get(kind)
        assert expected is None or chunk_map.get(index) == expected
    again = take(repository, path, host=host)
    assert (again.body.disks[0].changed, again.body.disks[0].stored) == (0, 0)
    assert again.body.disks[0].root == disk.root


def test_a_change_costs_the_change(repository: Repository, tmp_path: Path) -> None:
    path = noise(tmp_path / "disk.img", 20 * MIB)
    first = take(repository, path)
    before = packs(repository)
    with path.open("r+b") as file:
        file.seek(5 * MIB + 17)
        file.write(b"changed")
        file.seek(9 * MIB)
        file.write(bytes(MIB))
    second = take(repository, path)
    disk = second.body.disks[0]
    assert disk.changed == 2 * MIB
    assert MIB <= disk.stored < MIB + 4096
    assert len(packs(repository)) == len(before) + 1
    assert second.header.parent == first.id
    sizes = [repository.store.size(f"maps/{point.header.maps[0].map}") for point in (first, second)]
    assert sizes[0] is not None
    assert sizes[1] is not None
    assert sizes[1] < sizes[0]
    assert read_back(repository, second) == path.read_bytes()
    assert read_back(repository, first) != path.read_bytes()


def test_holes_are_not_read_and_an_unchanged_disk_sends_nothing(repository: Repository, tmp_path: Path) -> None:
    path = sparse(tmp_path / "disk.img", 300 * 1024 * MIB)
    with path.open("r+b") as file:
        file.seek(200 * 1024 * MIB)
        file.write(b"x")
    # 300 GiB of holes take no time at all, or this test would not end.
    take(repository, path)
    before = packs(repository)
    seen: list[Progress] = []

    def listen(event: Event) -> None:
        if isinstance(event, Progress):
            seen.append(event)

    take(repository, path, listener=listen)
    assert packs(repository) == before
    assert (seen[-1].done, seen[-1].skipped, seen[-1].transferred) == (path.stat().st_size, path.stat().st_size, 0)


def test_hosts_share_what_they_have_in_common(repository: Repository, tmp_path: Path) -> None:
    common = noise(tmp_path / "one.img", 8 * MIB).read_bytes()
    other = tmp_path / "two.img"
    other.write_bytes(random.Random(9).randbytes(2 * MIB) + common)
    take(repository, tmp_path / "one.img", host="one")
    point = take(repository, other, host="two")
    assert point.body.disks[0].stored < 2 * MIB + 8192
    assert read_back(repository, point) == other.read_bytes()
    assert repository.hosts() == ["one", "two"]


def test_two_disks_with_the_same_content_are_stored_once(repository: Repository, tmp_path: Path) -> None:
    a = noise(tmp_path / "a.img", 6 * MIB)
    b = tmp_path / "b.img"
    b.write_bytes(a.read_bytes())
    point = take(repository, a, b)
    assert sum(disk.stored for disk in point.body.disks) < 6 * MIB + 65536
    assert read_back(repository, point, "disk2") == a.read_bytes()
    # In the other order they are still themselves.
    swapped = take(repository, b, a)
    assert [disk.changed for disk in swapped.body.disks] == [0, 0]


def test_many_workers_share_the_few_packs_there_is_memory_for(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    buffers: list[memoryview] = []

    def counted() -> memoryview:
        buffers.append(pack_buffer())
        return buffers[-1]

    monkeypatch.setattr(packer, "pack_buffer", counted)
    monkeypatch.setattr(pack, "TARGET_SIZE", 2 * MIB)
    path = noise(tmp_path / "disk.img", 60 * MIB)
    request = CaptureRequest(host="host1", disks=(path,), workers=8, uploaders=1)
    with monkeypatch.context() as small:
        small.setattr(hashing, "BATCH_BYTES", 2 * MIB)
        small.setattr(pipeline, "BATCH_BYTES", 2 * MIB)
        point = capture(repository, SqliteIndex(":memory:"), request, ignore, threading.Event())
    assert len(packs(repository)) == 30
    assert len(buffers) == 3
    assert read_back(repository, point) == path.read_bytes()
    assert check(repository, read_data=True, listener=ignore).ok


def test_memory_of_packs_lost_or_removed_is_not_trusted(repository: Repository, tmp_path: Path) -> None:
    """An unchanged chunk whose pack is gone is stored again, though the parent's map still names the pack."""
    path = noise(tmp_path / "disk.img", 3 * MIB)
    take(repository, path)
    for name in packs(repository):
        repository.store.delete(name)
    point = take(repository, path)
    assert read_back(repository, point) == path.read_bytes()


def test_the_figures_of_a_disk(tmp_path: Path, repository: Repository) -> None:
    """DiskMap counts a chunk that became zero as changed, and one that only moved as not."""
    path = noise(tmp_path / "disk.img", 2 * MIB)
    base = repository.chunk_map(take(repository, path), "disk1")
    from recovery.capture.sources import open_sources
    from recovery.repository.protocols import ChunkLocation

    with open_sources([path]) as sources:
        disk = DiskMap(sources[0], MIB, base, "name")
        entry = base.get(0)
        assert not isinstance(entry, Kind)
        disk.set_stored(0, entry.id, ChunkLocation(b"p" * 32, 3, 4))
        assert disk.changed == 0
        disk.set_zero(1)
        assert disk.changed == MIB
        moved = disk.finish()
    assert moved.get(0) == (entry.id, b"p" * 32, 3, 4)
    assert moved.get(1) == Kind.ZERO
