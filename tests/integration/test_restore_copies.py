"""Disks restored from several copies of a repository, each damaged in another place; and what no copy has."""

from __future__ import annotations

import os
import random
import shutil
import threading
from pathlib import Path

import pytest

from recovery.errors import IntegrityError, NotFoundError, UnreachableError, UsageError
from recovery.events import Event, Message, Progress, ignore
from recovery.format.names import map_name, pack_name, point_name
from recovery.layout import Content, Partition, PartitionTable
from recovery.repository.failover import FailoverStore, with_copies
from recovery.repository.http import HttpStore
from recovery.repository.store import DirectoryStore, open_local
from recovery.restore.disk import RestoreOptions, restore_disk
from recovery.restore.report import locate_damage
from recovery.restore.target import Target
from tests.support.copies import CHUNK, Copies
from tests.support.repositories import commit, new_repository, reopen, store_disk
from tests.support.server import ServerRig

pytestmark = pytest.mark.faults

MIB = 2**20


@pytest.fixture
def copies(tmp_path: Path) -> Copies:
    return Copies(tmp_path)


def texts(events: list[Event]) -> str:
    return "\n".join(event.text for event in events if isinstance(event, Message))


def test_damage_at_different_places_of_both_copies_loses_nothing(copies: Copies, tmp_path: Path) -> None:
    copies.flip("one", 2)
    copies.flip("two", 4)  # another frame of the same pack
    copies.flip("one", 0)
    copies.pack("one", 8).unlink()
    copies.cut("one", 30)
    copies.pack("two", 15).unlink()
    events: list[Event] = []
    report = restore_disk(
        copies.open(), copies.point, "disk1", str(tmp_path / "out"), events.append, threading.Event(),
        RestoreOptions(verify_all=True),
    )  # fmt: skip
    assert (tmp_path / "out").read_bytes() == copies.data
    assert (report.root_matched, report.damaged) == (True, ())
    assert report.logical == report.written + report.zeroed + report.skipped
    told = texts(events)
    assert f"was taken from {copies.folder / 'two'}" in told
    assert f"byte {2 * CHUNK} of disk1" in told
    assert f"There is no object 'packs/{copies.pack('one', 8).name[:2]}/" in told
    assert "Asking another copy" in told


@pytest.mark.parametrize("dirty", [False, True])
def test_what_no_copy_has_is_zeros_when_asked_for_and_listed(copies: Copies, tmp_path: Path, dirty: bool) -> None:
    copies.cut("one", 9)
    copies.flip("one", 5)
    copies.cut("two", 7)  # the two together have all frames of the pack but that of chunk 9
    for name in ("one", "two"):
        copies.flip(name, 3)  # which chunk 23 has as well
        copies.flip(name, 0)
        copies.flip(name, 45)
    copies.pack("two", 30).unlink()
    out = tmp_path / "out"
    if dirty:
        out.write_bytes(b"\xaa" * (len(copies.data) + MIB))
    events: list[Event] = []
    report = restore_disk(
        copies.open(), copies.point, "disk1", str(out), events.append, threading.Event(),
        RestoreOptions(verify_all=True, skip_damaged=True),
    )  # fmt: skip
    assert out.read_bytes()[: len(copies.data)] == copies.wipe(0, 3, 9, 23, 45)
    assert [(d.offset // CHUNK, d.length) for d in report.damaged] == [
        (0, CHUNK), (3, CHUNK), (9, CHUNK), (23, CHUNK), (45, 2560),
    ]  # fmt: skip
    assert report.lost == 4 * CHUNK + 2560
    assert report.verified and not report.root_matched
    assert report.verified_bytes == report.logical == report.written + report.zeroed + report.skipped
    assert "left as zeros" in texts(events)
    assert "lost in 5 places" in report.verdict()


def test_without_being_asked_the_restore_stops_and_says_where(copies: Copies, tmp_path: Path) -> None:
    copies.flip("one", 12)
    copies.pack("two", 12).unlink()
    out = tmp_path / "out"
    out.write_bytes(b"\xaa" * (len(copies.data) + MIB))
    with pytest.raises(IntegrityError, match=f"byte {12 * CHUNK} of disk1") as caught:
        restore_disk(copies.open(), copies.point, "disk1", str(out), ignore, threading.Event())
    assert "--skip-damaged" in caught.value.hint and "--also" in caught.value.hint
    assert not any(out.read_bytes()[:CHUNK])


def test_what_the_disk_holds_already_is_not_lost(copies: Copies, tmp_path: Path) -> None:
    """A disk whose repository was damaged later: the chunk is on the disk still, and stays."""
    out = tmp_path / "out"
    out.write_bytes(copies.data)
    for name in ("one", "two"):
        copies.pack(name, 8).unlink()
    report = restore_disk(
        copies.open(), copies.point, "disk1", str(out), ignore, threading.Event(),
        RestoreOptions(skip_damaged=True, compare="always", verify_all=True),
    )  # fmt: skip
    assert out.read_bytes() == copies.data
    assert (report.damaged, report.root_matched) == ((), True)


def test_point_and_map_come_from_the_copy_that_has_them(copies: Copies, tmp_path: Path) -> None:
    map = copies.folder / "one" / map_name(copies.point.header.maps[0].map)
    map.write_bytes(map.read_bytes()[:-1] + b"x")
    (copies.folder / "two" / point_name("hv1", copies.point.header.created, copies.point.id)).unlink()
    told: list[str] = []
    repository = copies.open()
    assert isinstance(repository.store, FailoverStore)
    with repository.store.told(told.append):
        point = repository.point("hv1", "latest")
        assert repository.chunk_map(point, "disk1").root() == copies.map.root()
    assert [text for text in told if str(copies.folder / "one") in text and "damaged" in text]
    with pytest.raises(NotFoundError):
        copies.open("two").point("hv1", "latest")
    with pytest.raises(IntegrityError):
        copies.open("one").chunk_map(point, "disk1")


def test_sizes_and_lists_are_those_of_all_copies(copies: Copies) -> None:
    whole = {info.name: info.size for info in copies.open("two").store.list("packs/")}
    copies.cut("one", 9)
    copies.pack("one", 15).unlink()
    copies.pack("two", 30).unlink()
    store = copies.open().store
    assert {info.name: info.size for info in store.list("packs/")} == whole
    assert {name: store.size(name) for name in whole} == whole
    assert store.size(pack_name("0" * 64)) is None


def test_another_repository_is_no_copy(copies: Copies) -> None:
    new_repository(copies.folder / "other")
    with pytest.raises(UsageError, match="not a copy"):
        copies.open("one", "other")
    (copies.folder / "none").mkdir()
    with pytest.raises(NotFoundError):
        copies.open("one", "none")
    store = copies.open().store
    for write in (lambda: store.delete("repo.json"), lambda: store.put_if_absent("repo.json", b"x")):
        with pytest.raises(UsageError):
            write()


class Silent(DirectoryStore):
    """A server that went away after it was opened; ``asked`` counts the reads until now."""

    gone = False
    asked = 0

    def read_into(self, name: str, offset: int, buffer: memoryview) -> None:
        self.asked += 1
        if self.gone:
            raise UnreachableError("The server at one does not answer.")
        super().read_into(name, offset, buffer)


def test_a_copy_that_does_not_answer_is_asked_last(copies: Copies, tmp_path: Path) -> None:
    first = Silent(tmp_path / "one")
    repository = with_copies(reopen(first), [open_local(tmp_path / "two")])
    first.gone, first.asked = True, 0
    events: list[Event] = []
    restore_disk(repository, copies.point, "disk1", str(tmp_path / "out"), events.append, threading.Event(),
                 RestoreOptions(workers=2))  # fmt: skip
    assert (tmp_path / "out").read_bytes() == copies.data
    assert first.asked <= 2  # both workers may have asked before one of them knew
    assert texts(events).count("does not answer") == 1


def test_a_chunk_that_a_silent_copy_may_have_is_not_given_up(
    copies: Copies, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recovery.restore.worker._FIRST_WAIT", 0.01)
    copies.flip("one", 12)
    second = Silent(tmp_path / "two")
    repository = with_copies(reopen(open_local(tmp_path / "one")), [second])
    second.gone = True
    with pytest.raises(UnreachableError):
        restore_disk(repository, copies.point, "disk1", str(tmp_path / "out"), ignore, threading.Event(),
                     RestoreOptions(patience=0.05, skip_damaged=True))  # fmt: skip

    def comes_back(event: Event) -> None:
        second.gone = second.gone and not (isinstance(event, Message) and "Trying again" in event.text)

    restore_disk(repository, copies.point, "disk1", str(tmp_path / "out"), comes_back, threading.Event())
    assert (tmp_path / "out").read_bytes() == copies.data


def test_a_server_that_dies_on_the_way_is_replaced_by_the_disk_with_the_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recovery.restore.disk.NEXT_COPY", 0.3)
    rig = ServerRig(tmp_path / "server")
    try:
        data = random.Random(8).randbytes(40 * CHUNK)
        stored = store_disk(rig.local, data, chunk_size=CHUNK)
        point = commit(rig.local, "hv1", {"disk1": stored})
        copy = shutil.copytree(rig.root, tmp_path / "usb", ignore=shutil.ignore_patterns(".server"))
        repository = with_copies(rig.repository("restore"), [open_local(copy)])
        reads: list[str] = []
        through_server = HttpStore.read_into

        def read_or_die(store: HttpStore, name: str, offset: int, buffer: memoryview) -> None:
            reads.append(name)
            if len(reads) == 4:
                rig.stop(0)
            through_server(store, name, offset, buffer)

        monkeypatch.setattr(HttpStore, "read_into", read_or_die)
        events: list[Event] = []
        restore_disk(repository, point, "disk1", str(tmp_path / "out"), events.append, threading.Event(),
                     RestoreOptions(workers=1, verify_all=True, request=2**20))  # fmt: skip
        assert (tmp_path / "out").read_bytes() == data
        assert len(reads) == 4  # then only the disk was asked
        assert texts(events).count("Asking another copy") == 1
    finally:
        rig.close()


@pytest.mark.parametrize("place", [7 * CHUNK + 99, 21 * CHUNK, 44 * CHUNK + 1, 45 * CHUNK + 2559])
def test_the_whole_disk_is_read_back_and_one_wrong_byte_is_found(
    copies: Copies, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: int
) -> None:
    """A disk that lost a byte of what it acknowledged: in stored content, in zeros, in a duplicate, in the tail."""
    out = tmp_path / "out"
    syncs: list[int] = []
    original = Target.sync

    def sync_and_forget(target: Target) -> None:
        original(target)
        syncs.append(1)
        if len(syncs) == (2 if place >= 45 * CHUNK else 1):  # the end of the disk is written last
            with out.open("r+b") as file:
                file.seek(place)
                file.write(bytes([copies.data[place] ^ 0x10]))
                os.fsync(file.fileno())

    monkeypatch.setattr(Target, "sync", sync_and_forget)
    with pytest.raises(IntegrityError, match=f"byte {place // CHUNK * CHUNK} of disk1"):
        restore_disk(copies.open("one"), copies.point, "disk1", str(out), ignore, threading.Event(),
                     RestoreOptions(verify_all=True))  # fmt: skip


def test_the_root_is_that_of_the_bytes_on_the_disk_and_is_told(copies: Copies, tmp_path: Path) -> None:
    events: list[Event] = []
    repository = copies.open("one")
    report = restore_disk(repository, copies.point, "disk1", str(tmp_path / "out"), events.append,
                          threading.Event(), RestoreOptions(verify_all=True))  # fmt: skip
    assert report.root_matched and report.root == copies.point.disk("disk1").root
    assert report.verified_bytes == report.logical
    assert report.root in report.verdict()
    assert any(isinstance(event, Progress) and "reading back" in event.note for event in events)
    sampled = restore_disk(repository, copies.point, "disk1", str(tmp_path / "2"), ignore, threading.Event(),
                           RestoreOptions(sample=3))  # fmt: skip
    assert not sampled.root_matched and sampled.verified and sampled.verified_bytes < sampled.logical
    # Another disk's content under this point's signature: each chunk is right, the whole is not.
    other = store_disk(repository, copies.data[::-1], chunk_size=CHUNK)[1]
    with pytest.raises(IntegrityError, match="Merkle root"):
        restore_disk(repository, copies.point, "disk1", str(tmp_path / "3"), ignore, threading.Event(),
                     RestoreOptions(verify_all=True), chunk_map=other)  # fmt: skip


def test_damage_is_named_by_partition() -> None:
    def part(number: int, start: int, size: int, kind: str = "") -> Partition:
        return Partition(number=number, start=start, size=size, content=Content(kind=kind))

    table = PartitionTable(kind="mbr", partitions=(part(1, 100, 200, "ext4"), part(2, 300, 700), part(5, 400, 500)))
    found = locate_damage([(350, 100), (0, 50), (50, 150), (950, 100)], table)
    assert [(d.offset, d.length, d.partition, d.content) for d in found] == [
        (0, 100, 0, ""), (100, 100, 1, "ext4"), (350, 50, 2, ""), (400, 50, 5, ""), (950, 50, 2, ""),
        (1000, 50, 0, ""),
    ]  # fmt: skip
    assert found[1].place() == "byte 100: 100 bytes, partition 1 (ext4)"
