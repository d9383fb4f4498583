"""The repository: created, opened, points committed in order, deltas resolved; damage is refused, not restored."""

from __future__ import annotations

import os
import random
from pathlib import Path

import msgspec
import pytest

from recovery.errors import AccessError, BusyError, IntegrityError, NotFoundError, UsageError
from recovery.format.names import map_name, point_name
from recovery.format.point import PointBody, PointHeader
from recovery.repository.index import SqliteIndex
from recovery.repository.repository import Repository
from recovery.repository.store import open_local
from tests.support.repositories import PASSPHRASE, commit, new_repository, reopen, store_disk

KIB = 1024


def disk(seed: int, chunks: int = 12) -> bytes:
    rng = random.Random(seed)
    return b"".join(
        bytes(256 * KIB) if rng.random() < 0.3 else rng.randbytes(1000) * 262 + bytes(144) for _ in range(chunks)
    ) + rng.randbytes(512 * 3)


def test_passphrase_and_recovery_key_open_it_and_nothing_else_does(tmp_path: Path) -> None:
    store = open_local(tmp_path / "r", create=True)
    repository, printable = Repository.create(store, PASSPHRASE)
    for secret in (PASSPHRASE, printable, printable.lower()):
        assert Repository.open(store, secret).keys.chunk_id_key == repository.keys.chunk_id_key
    with pytest.raises(AccessError, match="passphrase does not open"):
        Repository.open(store, "wrong")
    with pytest.raises(UsageError, match="repository already"):
        Repository.create(store, "another")


def test_an_empty_directory_is_no_repository(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no Rekindle repository"):
        Repository.open(open_local(tmp_path), PASSPHRASE)


def test_points_are_found_by_prefix_and_latest(tmp_path: Path) -> None:
    repository = new_repository(tmp_path / "r")
    stored = store_disk(repository, disk(1))
    first = commit(repository, "hv1", {"disk1": stored})
    second = commit(repository, "hv1", {"disk1": stored})
    again = reopen(repository.store)
    assert again.hosts() == ["hv1"]
    assert [p.id for p in again.points("hv1")] == [first.id, second.id]
    assert again.point("hv1", "latest") == second
    assert again.point("hv1", first.id[:10]) == first
    assert second.header.parent == first.id
    for wrong in ("fffff", first.id[:3], ""):
        with pytest.raises(NotFoundError):
            again.point("hv1", wrong)
    with pytest.raises(NotFoundError, match="no point of host 'hv2'") as caught:
        again.points("hv2")
    assert "hv1" in caught.value.hint


def test_a_second_capture_that_came_between_is_noticed_and_a_clock_that_went_back_does_no_harm(tmp_path: Path) -> None:
    repository = new_repository(tmp_path / "r")
    stored = store_disk(repository, disk(1))
    first = commit(repository, "hv1", {"disk1": stored}, created=2_000_000_000.0)
    second = commit(repository, "hv1", {"disk1": stored}, created=1_000_000_000.0)
    assert second.header.created > first.header.created
    stale = PointHeader(version=1, repository=repository.id, host="hv1", created=3e9, parent=first.id)
    with pytest.raises(BusyError, match="Another capture of 'hv1'"):
        repository.commit(stale, PointBody(disks=(), consistency="crash", firmware="bios"))
    assert [p.id for p in repository.points("hv1")] == [first.id, second.id]


def test_delta_maps_are_resolved_and_checked_against_the_signed_root(tmp_path: Path) -> None:
    repository = new_repository(tmp_path / "r")
    content = bytearray(disk(1, 600))
    first = store_disk(repository, bytes(content))
    content[256 * KIB * 7 : 256 * KIB * 8] = os.urandom(256 * KIB)
    second = store_disk(repository, bytes(content), parent=first)
    assert (repository.store.size(map_name(second[0])) or 0) < (repository.store.size(map_name(first[0])) or 0) / 4
    point = commit(repository, "hv1", {"disk1": second})
    map = reopen(repository.store).chunk_map(point, "disk1")
    assert dict(map.blobs()) == dict(second[1].blobs())
    with pytest.raises(NotFoundError, match="no disk 'disk9'"):
        repository.chunk_map(point, "disk9")
    exchanged = msgspec.structs.replace(point, header=msgspec.structs.replace(
        point.header, maps=(msgspec.structs.replace(point.header.maps[0], map=first[0]),)))  # fmt: skip
    with pytest.raises(IntegrityError, match="not the one that the point was signed with"):
        repository.chunk_map(exchanged, "disk1")


@pytest.mark.parametrize("victim", ["repo.json", "map", "point"])
def test_damaged_objects_are_refused(tmp_path: Path, victim: str) -> None:
    repository = new_repository(tmp_path / "r")
    stored = store_disk(repository, disk(3))
    point = commit(repository, "hv1", {"disk1": stored})
    name = {"repo.json": victim, "map": map_name(stored[0]),
            "point": point_name("hv1", point.header.created, point.id)}[victim]  # fmt: skip
    path = tmp_path / "r" / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    with pytest.raises(IntegrityError):
        again = reopen(open_local(tmp_path / "r"))
        again.chunk_map(again.point("hv1", "latest"), "disk1")


def test_the_index_is_made_from_footers_and_forgets_packs_that_are_gone(tmp_path: Path) -> None:
    repository = new_repository(tmp_path / "r")
    _, map = store_disk(repository, disk(5))
    index = SqliteIndex(tmp_path / "index")
    assert index.refresh(repository.store) == []
    entries = [entry for _, entry in map.blobs()]
    found = index.lookup([entry.id for entry in entries] + [bytes(32)])
    assert found[-1] is None
    assert all(at is not None and (at.pack, at.offset, at.length) == entry[1:] for at, entry in zip(found, entries))  # noqa: B905 - one more was asked
    packs = sorted((tmp_path / "r" / "packs").rglob("*/*"))
    packs[0].unlink()
    packs[1].write_bytes(packs[1].read_bytes()[:-5])
    fresh = SqliteIndex(tmp_path / "index2")
    assert len(fresh.refresh(repository.store)) == 1
    index.refresh(repository.store)
    gone = bytes.fromhex(packs[0].name)
    assert all(at is None or at.pack != gone for at in index.lookup([entry.id for entry in entries]))
    (tmp_path / "index3").write_bytes(b"this is no database" * 1000)
    assert SqliteIndex(tmp_path / "index3").counts() == (0, 0)


def test_a_newest_point_that_is_damaged_names_the_one_before(tmp_path: Path) -> None:
    repository = new_repository(tmp_path / "r")
    disk = store_disk(repository, os.urandom(300_000))
    points = [commit(repository, "hv1", {"disk1": disk}) for _ in range(2)]
    newest = next((tmp_path / "r/points/hv1").glob(f"*-{points[1].id}"))
    newest.write_bytes(newest.read_bytes()[:-1])
    with pytest.raises(IntegrityError) as caught:
        repository.point("hv1", "latest")
    assert points[0].id[:12] in caught.value.hint
    assert repository.point("hv1", points[0].id[:12]) == points[0]
