"""Whole disks restored to files and loop devices, onto dirt, through faults, from damaged repositories."""

from __future__ import annotations

import mmap
import os
import random
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from recovery.errors import (
    BusyError,
    CancelledError,
    IntegrityError,
    NotFoundError,
    UnreachableError,
    UnsafeTargetError,
)
from recovery.events import Event, Message, Progress, ignore
from recovery.format.point import Point
from recovery.repository.repository import Repository
from recovery.repository.store import DirectoryStore, open_local
from recovery.restore.disk import RestoreOptions, restore_disk
from recovery.restore.target import Target
from tests.support.repositories import commit, new_repository, reopen, store_disk

MIB = 2**20


def content(seed: int, size: int = 24 * MIB + 512 * 5) -> bytes:
    rng = random.Random(seed)
    parts: list[bytes] = []
    while sum(map(len, parts)) < size:
        kind = rng.random()
        length = rng.randrange(1, 3 * MIB)
        parts.append(
            bytes(length)
            if kind < 0.4
            else rng.randbytes(length)
            if kind < 0.7
            else rng.randbytes(997) * (length // 997)
        )
    parts.append(parts[0] * 2)
    return b"".join(parts)[-size:]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Repository, Point, bytes]:
    """What each test gets a copy of."""
    repository = new_repository(tmp_path_factory.mktemp("model") / "r")
    data = content(1)
    return repository, commit(repository, "hv1", {"disk1": store_disk(repository, data)}), data


@pytest.fixture
def made(model: tuple[Repository, Point, bytes], tmp_path: Path) -> tuple[Repository, Point, bytes]:
    repository, point, data = model
    assert isinstance(repository.store, DirectoryStore)
    shutil.copytree(repository.store.root, tmp_path / "r")
    return Repository(open_local(tmp_path / "r"), repository.file, repository.keys), point, data


@pytest.fixture
def loop_device(tmp_path: Path) -> Iterator[str]:
    if os.geteuid() != 0:
        pytest.skip("loop devices need root")
    image = tmp_path / "loop.img"
    image.write_bytes(os.urandom(MIB) * 32)
    device = subprocess.run(
        ["losetup", "-f", "--show", image], check=True, capture_output=True, text=True
    ).stdout.strip()
    yield device
    subprocess.run(["losetup", "-d", device], check=True)


def test_a_new_file_gets_the_disk(made: tuple[Repository, Point, bytes], tmp_path: Path) -> None:
    repository, point, data = made
    events: list[Event] = []
    report = restore_disk(repository, point, "disk1", str(tmp_path / "out.img"), events.append, threading.Event())
    assert (tmp_path / "out.img").read_bytes() == data
    assert report.logical == len(data) == report.written + report.zeroed + report.skipped
    assert report.transferred < len(data)
    assert report.verified and report.verified_bytes > MIB
    last = [e for e in events if isinstance(e, Progress)][-1]
    assert last.done == last.total == len(data)


def test_a_dirty_larger_file_gets_the_disk_and_loses_its_old_backup_table(
    made: tuple[Repository, Point, bytes], tmp_path: Path
) -> None:
    repository, point, data = made
    out = tmp_path / "out.img"
    out.write_bytes(b"\xaa" * (40 * MIB))
    restore_disk(repository, point, "disk1", str(out), ignore, threading.Event(), RestoreOptions(verify_all=True))
    result = out.read_bytes()
    assert result[: len(data)] == data
    assert not any(result[-MIB:])


@pytest.mark.root
def test_a_dirty_block_device_gets_the_disk(made: tuple[Repository, Point, bytes], loop_device: str) -> None:
    repository, point, data = made
    report = restore_disk(
        repository, point, "disk1", loop_device, ignore, threading.Event(), RestoreOptions(verify_all=True)
    )
    assert Path(loop_device).read_bytes()[: len(data)] == data
    assert report.verified_bytes == len(data)


@pytest.mark.root
def test_the_unaligned_end_is_read_back_from_the_disk_and_not_from_the_cache(tmp_path: Path) -> None:
    """The backup partition table lies there: a disk that loses it must be found by the verification."""
    image = tmp_path / "loop.img"
    image.write_bytes(bytes(MIB + 512 * 5))
    device = subprocess.run(
        ["losetup", "-f", "--show", image], check=True, capture_output=True, text=True
    ).stdout.strip()
    try:
        with Target(device, MIB) as target:
            written, seen = (memoryview(mmap.mmap(-1, 512 * 5)) for _ in range(2))
            written[:] = b"table" * 512
            target.write(MIB, written)
            target.sync()
            target.read(MIB, seen)
            assert seen == written
            with image.open("r+b") as disk:  # the disk forgets what it acknowledged
                disk.seek(MIB)
                disk.write(bytes(512))
            target.read(MIB, seen)
            assert seen[:512] == bytes(512)
    finally:
        subprocess.run(["losetup", "-d", device], check=True)


@pytest.mark.root
def test_a_mounted_device_is_refused_and_keeps_its_content(
    made: tuple[Repository, Point, bytes], loop_device: str, tmp_path: Path
) -> None:
    repository, point, _ = made
    subprocess.run(["mkfs.ext4", "-q", loop_device], check=True)
    mount = tmp_path / "mount"
    mount.mkdir()
    subprocess.run(["mount", loop_device, mount], check=True)
    try:
        (mount / "precious").write_text("x")
        with pytest.raises(BusyError, match="in use"):
            restore_disk(repository, point, "disk1", loop_device, ignore, threading.Event())
        assert (mount / "precious").read_text() == "x"
    finally:
        subprocess.run(["umount", mount], check=True)


@pytest.mark.root
def test_a_device_that_is_too_small_is_refused_before_anything_is_written(
    made: tuple[Repository, Point, bytes], tmp_path: Path
) -> None:
    repository, point, _ = made
    image = tmp_path / "small.img"
    image.write_bytes(b"\x55" * (8 * MIB))
    device = subprocess.run(
        ["losetup", "-f", "--show", image], check=True, capture_output=True, text=True
    ).stdout.strip()
    try:
        with pytest.raises(UnsafeTargetError, match="less than"):
            restore_disk(repository, point, "disk1", device, ignore, threading.Event())
    finally:
        subprocess.run(["losetup", "-d", device], check=True)
    assert image.read_bytes() == b"\x55" * (8 * MIB)


def test_a_missing_device_is_named(made: tuple[Repository, Point, bytes]) -> None:
    repository, point, _ = made
    with pytest.raises(NotFoundError, match="/dev/nothing"):
        restore_disk(repository, point, "disk1", "/dev/nothing", ignore, threading.Event())


class Flaky(DirectoryStore):
    """A directory whose reads fail now and then, or flip a bit, as a bad network does."""

    def __init__(self, root: Path, *, unreachable: float = 0.0, flips: float = 0.0) -> None:
        super().__init__(root)
        self.rng, self.unreachable, self.flips = random.Random(3), unreachable, flips

    def read_into(self, name: str, offset: int, buffer: memoryview) -> None:
        if self.rng.random() < self.unreachable:
            raise UnreachableError("The server does not answer.")
        super().read_into(name, offset, buffer)
        if len(buffer) > 300_000 and self.rng.random() < self.flips:
            buffer[len(buffer) // 2] ^= 1


def test_a_server_that_comes_and_goes_only_costs_time(
    made: tuple[Repository, Point, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, point, data = made
    monkeypatch.setattr("recovery.restore.worker._FIRST_WAIT", 0.01)
    repository = reopen(Flaky(tmp_path / "r", unreachable=0.4))
    events: list[Event] = []
    restore_disk(repository, point, "disk1", str(tmp_path / "out.img"), events.append, threading.Event())
    assert (tmp_path / "out.img").read_bytes() == data
    assert any(isinstance(e, Message) and "Trying again" in e.text for e in events)


def test_bits_flipped_on_the_way_are_fetched_again(made: tuple[Repository, Point, bytes], tmp_path: Path) -> None:
    _, point, data = made
    repository = reopen(Flaky(tmp_path / "r", flips=0.5))
    restore_disk(repository, point, "disk1", str(tmp_path / "out.img"), ignore, threading.Event())
    assert (tmp_path / "out.img").read_bytes() == data


def test_patience_ends(made: tuple[Repository, Point, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, point, _ = made
    monkeypatch.setattr("recovery.restore.worker._FIRST_WAIT", 0.01)
    store = Flaky(tmp_path / "r")
    repository = reopen(store)
    store.unreachable = 1.0
    map = repository.chunk_map(point, "disk1")
    with pytest.raises(UnreachableError):
        restore_disk(repository, point, "disk1", str(tmp_path / "o"), ignore, threading.Event(),
                     RestoreOptions(patience=0.05), chunk_map=map)  # fmt: skip


@pytest.mark.parametrize("damage", ["flip", "cut", "missing"])
def test_a_damaged_pack_is_reported_with_its_place_and_the_disk_cannot_half_boot(
    made: tuple[Repository, Point, bytes], tmp_path: Path, damage: str
) -> None:
    _, point, _ = made
    packs = sorted((tmp_path / "r" / "packs").rglob("*/*"), key=lambda p: p.stat().st_mtime)
    victim = packs[len(packs) // 2]
    data = bytearray(victim.read_bytes())
    if damage == "flip":
        data[len(data) // 3] ^= 1
        victim.write_bytes(data)
    elif damage == "cut":
        victim.write_bytes(data[: len(data) // 3])
    else:
        victim.unlink()
    out = tmp_path / "out.img"
    out.write_bytes(b"\xaa" * (30 * MIB))
    with pytest.raises((IntegrityError, NotFoundError)) as caught:
        restore_disk(reopen(open_local(tmp_path / "r")), point, "disk1", str(out), ignore, threading.Event())
    assert victim.name[:16] in caught.value.message + caught.value.hint
    if damage == "flip":
        assert "of disk1" in caught.value.message
    assert not any(out.read_bytes()[: 256 * 1024])


def test_a_listener_that_fails_stops_the_workers(made: tuple[Repository, Point, bytes], tmp_path: Path) -> None:
    repository, point, data = made

    held = threading.Event()

    def broken(event: Event) -> None:
        threading.Timer(0.5, held.set).start()  # by then the workers have been told
        raise KeyboardInterrupt

    class Slow(DirectoryStore):
        def read_into(self, name: str, offset: int, buffer: memoryview) -> None:
            if name.startswith("packs/"):
                held.wait(60)
            super().read_into(name, offset, buffer)

    repository.store = Slow(tmp_path / "r")
    with pytest.raises(KeyboardInterrupt):
        restore_disk(repository, point, "disk1", str(tmp_path / "out.img"), broken, threading.Event())
    assert (tmp_path / "out.img").read_bytes().count(0) == len(data)


def test_cancel_stops_and_leaves_no_partition_table(made: tuple[Repository, Point, bytes], tmp_path: Path) -> None:
    repository, point, _ = made
    cancel = threading.Event()
    cancel.set()
    out = tmp_path / "out.img"
    out.write_bytes(b"\xaa" * (30 * MIB))
    with pytest.raises(CancelledError, match="not complete"):
        restore_disk(repository, point, "disk1", str(out), ignore, cancel)
    assert not any(out.read_bytes()[: 256 * 1024])


def test_a_restore_that_was_cut_off_goes_on_where_it_was(
    made: tuple[Repository, Point, bytes], tmp_path: Path
) -> None:
    repository, point, data = made
    out = tmp_path / "out.img"
    first = restore_disk(repository, point, "disk1", str(out), ignore, threading.Event())
    written = bytearray(out.read_bytes())
    chunk = 256 * 1024
    for index in (0, 7, 31, 60):
        written[index * chunk + 99] ^= 1
    out.write_bytes(written)
    events: list[Event] = []
    again = restore_disk(
        repository, point, "disk1", str(out), events.append, threading.Event(), RestoreOptions(verify_all=True)
    )
    assert out.read_bytes() == data
    assert again.skipped > 0
    assert again.logical == again.written + again.zeroed + again.skipped
    assert again.transferred <= 6 * (chunk + 200) < first.transferred / 4
    assert any(isinstance(e, Message) and "only what differs" in e.text for e in events)


def test_a_disk_with_other_content_is_not_compared(made: tuple[Repository, Point, bytes], tmp_path: Path) -> None:
    repository, point, data = made
    out = tmp_path / "out.img"
    out.write_bytes(content(99))
    report = restore_disk(repository, point, "disk1", str(out), ignore, threading.Event())
    assert (report.skipped, out.read_bytes()) == (0, data)
