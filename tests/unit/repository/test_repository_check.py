"""The check finds whatever is wrong, names it, and says whom it hurts."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from recovery.format.names import map_name
from recovery.repository.check import check
from recovery.repository.repository import Repository
from tests.support.repositories import commit, new_repository, store_disk


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    repository = new_repository(tmp_path / "r")
    content = bytearray(os.urandom(1000) * 2000 + bytes(10**6))
    first = store_disk(repository, bytes(content))
    commit(repository, "hv1", {"disk1": first})
    content[:300_000] = os.urandom(300_000)
    commit(repository, "hv1", {"disk1": store_disk(repository, bytes(content), parent=first)})
    commit(repository, "hv2", {"disk1": store_disk(repository, os.urandom(700_000))})
    yield repository


def files(tmp_path: Path) -> list[Path]:
    return sorted(path for path in (tmp_path / "r").rglob("*") if path.is_file())


def test_a_whole_repository_is_well(repository: Repository) -> None:
    report = check(repository, read_data=True)
    assert report.ok
    assert (report.points, report.spare) == (3, [])
    assert report.chunks > 10


def test_every_flipped_bit_anywhere_is_found_and_named(repository: Repository, tmp_path: Path) -> None:
    rng = random.Random(7)
    for path in files(tmp_path):
        data = path.read_bytes()
        for _ in range(3):
            damaged = bytearray(data)
            damaged[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            path.write_bytes(damaged)
            report = check(repository, read_data=True)
            assert [d.object for d in report.damages] == [str(path.relative_to(tmp_path / "r"))]
        path.write_bytes(data)
    assert check(repository, read_data=True).ok


def test_missing_and_truncated_objects_are_named_with_the_points_they_hurt(
    repository: Repository, tmp_path: Path
) -> None:
    for path in files(tmp_path):
        name = str(path.relative_to(tmp_path / "r"))
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2])
        assert [d.object for d in check(repository).damages] == [name]
        path.unlink()
        if name.startswith(("packs/", "maps/")):
            report = check(repository)
            assert [d.object for d in report.damages] == [name]
            assert report.damages[0].hurts
        path.write_bytes(data)


def test_a_damaged_map_hurts_the_points_that_follow_it(repository: Repository, tmp_path: Path) -> None:
    first = repository.point("hv1", repository.points("hv1")[0].id)
    name = map_name(first.header.maps[0].map)
    (tmp_path / "r" / name).write_bytes(b"")
    report = check(repository)
    assert [d.object for d in report.damages] == [name]
    assert {user.split()[0] for user in report.damages[0].hurts} == {"hv1"}
    assert len(report.damages[0].hurts) == 2


def test_what_an_interrupted_capture_left_is_spare_not_damage(repository: Repository) -> None:
    store_disk(repository, os.urandom(600_000))
    report = check(repository, read_data=True)
    assert report.ok
    assert len(report.spare) == 2
