"""Object stores: a directory and a bucket behave alike; what is acknowledged is whole."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from obstore.store import MemoryStore

from recovery.errors import BusyError, IntegrityError, NotFoundError
from recovery.format.names import digest, map_name, pack_name
from recovery.repository.bucket import BucketStore
from recovery.repository.protocols import ObjectStore
from recovery.repository.store import open_local


@pytest.fixture(params=["directory", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    if request.param == "directory":
        return open_local(tmp_path / "repository", create=True)
    return BucketStore(MemoryStore(), "memory")


def test_put_get_list_and_ranges(store: ObjectStore) -> None:
    data = os.urandom(100_000)
    name = pack_name(digest(data))
    assert store.size(name) is None
    assert store.put_if_absent(name, data) is True
    assert store.put_if_absent(name, data) is False
    assert (store.size(name), store.get(name)) == (len(data), data)
    buffer = bytearray(1000)
    store.read_into(name, 777, memoryview(buffer))
    assert buffer == data[777:1777]
    other = map_name(digest(b"m"))
    store.put_if_absent(other, b"m")
    assert [info.name for info in store.list("packs/")] == [name]
    assert [(info.name, info.size) for info in store.list("maps/")] == [(other, 1)]
    store.delete(name)
    with pytest.raises(NotFoundError):
        store.delete(name)
    assert list(store.list("packs/")) == []


def test_what_is_missing_or_short_is_said_to_be(store: ObjectStore) -> None:
    with pytest.raises(NotFoundError):
        store.get(map_name("0" * 64))
    with pytest.raises(NotFoundError):
        store.read_into(map_name("0" * 64), 0, memoryview(bytearray(1)))
    name = map_name(digest(b"short"))
    store.put_if_absent(name, b"short")
    with pytest.raises((IntegrityError, NotFoundError, Exception)) as caught:
        store.read_into(name, 2, memoryview(bytearray(100)))
    assert isinstance(caught.value, IntegrityError)


def test_a_damaged_object_is_healed_by_storing_it_again(store: ObjectStore) -> None:
    data = b"the right bytes" * 100
    name = pack_name(digest(data))
    store.put_if_absent(name, b"torn")
    assert store.put_if_absent(name, data) is True
    assert store.get(name) == data


def test_names_that_are_no_digests_are_never_overwritten(store: ObjectStore) -> None:
    store.put_if_absent("repo.json", b"{}")
    with pytest.raises(BusyError):
        store.put_if_absent("repo.json", b"{1}")
    assert store.get("repo.json") == b"{}"


def test_many_threads_put_the_same_object_and_one_of_them_wins(tmp_path: Path) -> None:
    store = open_local(tmp_path / "r", create=True)
    data = os.urandom(50_000)
    name = pack_name(digest(data))
    results: list[bool] = []
    threads = [threading.Thread(target=lambda: results.append(store.put_if_absent(name, data))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [False] * 7 + [True]
    assert store.get(name) == data
    assert [path.name for path in (tmp_path / "r" / "packs" / digest(data)[:2]).iterdir()] == [digest(data)]


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="There is no directory"):
        open_local(tmp_path / "nowhere")
