"""Targets that fill up, fail or shrink in the middle of a restore: one clear error, and it can be gone on with."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from recovery.errors import DeviceError, IntegrityError, SpaceError
from recovery.events import Event, Progress, ignore
from recovery.restore.disk import restore_disk
from tests.support.disks import AVAILABLE, failing_disk, loop
from tests.support.fault_world import MIB, SIZE, FaultWorld, make_fault_world, start
from tests.support.faults import Fault, Faults
from tests.support.processes import environment, restore_arguments

pytestmark = [
    pytest.mark.faults,
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root and loop devices"),
]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultWorld]:
    made = make_fault_world(tmp_path_factory.mktemp("targets"))
    yield made
    made.close()


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of 6 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@contextlib.contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_filesystem_in_memory_that_fills_up(world: FaultWorld, small: Path) -> None:
    out = small / "out.img"
    restored = start(world.rig.repository("restore"), world.point, out, workers=4)
    with pytest.raises(SpaceError, match="no room left") as caught:
        restored.join(20)
    assert caught.value.hint
    assert not any(out.read_bytes()[: 256 * 1024])
    subprocess.run(["mount", "-o", "remount,size=40m", small], check=True)
    report = start(world.rig.repository("restore"), world.point, out).join()
    assert report.skipped > 0
    assert out.read_bytes() == world.data


def test_a_filesystem_on_a_disk_that_fills_up(world: FaultWorld, tmp_path: Path) -> None:
    backing, folder = tmp_path / "fs.img", tmp_path / "fs"
    with backing.open("wb") as file:
        file.truncate(8 * MIB)
    subprocess.run(["mkfs.ext4", "-q", "-O", "^has_journal", backing], check=True)
    folder.mkdir()
    with loop(backing) as device:
        subprocess.run(["mount", device, folder], check=True)
        try:
            restored = start(world.rig.repository("restore"), world.point, folder / "out.img")
            with pytest.raises(SpaceError, match="no room left"):
                restored.join(20)
        finally:
            subprocess.run(["umount", folder], check=True)


def test_a_disk_that_fails_while_it_is_written(world: FaultWorld, small: Path) -> None:
    """A loop device whose file has no room: the kernel answers as a disk that fails, with an I/O error."""
    backing = small / "disk.img"
    with backing.open("wb") as file:
        file.truncate(16 * MIB)
    with loop(backing) as device:
        restored = start(world.rig.repository("restore"), world.point, device)
        with pytest.raises(
            (DeviceError, SpaceError), match=f"'{device}'.*at byte|'{device}' could not write"
        ) as caught:
            restored.join(20)
        assert caught.value.hint
        subprocess.run(["mount", "-o", "remount,size=40m", small], check=True)
        start(world.rig.repository("restore"), world.point, device).join()
        assert Path(device).read_bytes()[: len(world.data)] == world.data


def test_a_write_that_is_cut_short_and_then_refused(world: FaultWorld, tmp_path: Path) -> None:
    """Beyond the limit the kernel writes less than asked, then nothing."""
    out = tmp_path / "out.img"
    out.write_bytes(b"\xaa" * (12 * MIB))
    repository = world.rig.repository("restore")
    with file_size_limit(6 * MIB + 8192), pytest.raises(DeviceError, match="cannot be written at byte") as caught:
        restore_disk(repository, world.point, "disk1", str(out), ignore, threading.Event())
    assert caught.value.hint
    assert not any(out.read_bytes()[: 256 * 1024])
    report = start(repository, world.point, out).join()
    assert report.skipped > 0
    assert out.read_bytes()[: len(world.data)] == world.data


def test_a_disk_that_shrinks_under_the_restore(world: FaultWorld, tmp_path: Path) -> None:
    """As a disk that vanishes: what is written beyond its end fails, and is not taken for success."""
    backing = tmp_path / "disk.img"
    backing.write_bytes(b"\xaa" * (16 * MIB))
    with loop(backing) as device:
        cut = threading.Event()

        def hear(event: object) -> None:
            if not cut.is_set():
                cut.set()
                with backing.open("r+b") as file:
                    file.truncate(4 * MIB)
                subprocess.run(["losetup", "-c", device], check=True)

        restored = start(world.rig.repository("restore"), world.point, device, hear=hear)
        # IntegrityError: all was written before the first event, and what is read back shows the cut.
        with pytest.raises((DeviceError, SpaceError, IntegrityError)):
            restored.join(20)
        assert cut.is_set()


needs_fuse = pytest.mark.skipif(not AVAILABLE, reason="needs qemu-storage-daemon and FUSE")


@pytest.fixture
def backing(tmp_path: Path) -> Path:
    """What a disk of 16 MiB holds: a stranger's data."""
    path = tmp_path / "disk.img"
    path.write_bytes(b"\xaa" * (16 * MIB))
    return path


@needs_fuse
def test_a_sector_that_cannot_be_written_is_told_with_disk_and_offset(world: FaultWorld, backing: Path) -> None:
    with failing_disk(backing, bad=("write", 5 * MIB)) as disk:
        restored = start(world.rig.repository("restore"), world.point, disk.device)
        with pytest.raises(DeviceError, match=f"'{disk.device}' cannot be written at byte [0-9]+: ") as caught:
            restored.join(20)
        begin = int(re.findall(r"at byte (\d+)", caught.value.message)[0])
        assert begin <= 5 * MIB < begin + 8 * MIB, "the write that failed, of at most 8 MiB"
        assert "choose another" in caught.value.hint
    assert not any(backing.read_bytes()[: 256 * 1024]), "it must not boot"
    # The same content on a disk that is well: it is gone on with.
    with loop(backing) as device:
        report = start(world.rig.repository("restore"), world.point, device).join()
    assert report.skipped > 0 and report.root_matched
    assert backing.read_bytes()[: len(world.data)] == world.data


@needs_fuse
def test_a_sector_that_cannot_be_read_back_fails_the_restore(world: FaultWorld, backing: Path) -> None:
    """What was written and acknowledged, and does not come back: the disk is not called complete."""
    with failing_disk(backing, bad=("read", 5 * MIB)) as disk:
        restored = start(world.rig.repository("restore"), world.point, disk.device)
        with pytest.raises(DeviceError, match=f"'{disk.device}' cannot be read at byte [0-9]+") as caught:
            restored.join(20)
        assert caught.value.hint
    assert not any(backing.read_bytes()[: 256 * 1024])


@needs_fuse
@pytest.mark.parametrize("when", ["while it is written", "while it is read back"])
def test_a_disk_that_vanishes_and_comes_back(world: FaultWorld, backing: Path, when: str) -> None:
    with failing_disk(backing) as disk:
        gone = threading.Event()

        def hear(event: Event) -> None:
            writing = when == "while it is written" and isinstance(event, Progress) and event.written > SIZE // 3
            reading = isinstance(event, Progress) and event.note.startswith("reading back")
            if (writing or reading) and not gone.is_set():
                gone.set()
                disk.vanish()

        proxy = Faults(world.rig.server.listener.port)
        proxy.always(Fault(rate=3_000_000))
        restored = start(world.opened(world.store(proxy.url)), world.point, disk.device, hear=hear)
        with pytest.raises(DeviceError, match=f"'{disk.device}'") as caught:
            restored.join(30)
        proxy.close()
        assert gone.is_set()
        assert caught.value.hint
    assert not any(backing.read_bytes()[: 256 * 1024]), "it must not boot"
    with failing_disk(backing) as disk:
        report = start(world.rig.repository("restore"), world.point, disk.device).join()
    assert report.skipped > 0 and report.root_matched
    assert backing.read_bytes()[: len(world.data)] == world.data


@needs_fuse
def test_a_disk_that_vanishes_ends_the_command_and_it_is_said_how_to_go_on(
    world: FaultWorld, backing: Path, tmp_path: Path
) -> None:
    """The real command, onto a block device: the error with the disk, what is incomplete, and the command again."""
    proxy = Faults(world.rig.server.listener.port)
    proxy.always(Fault(rate=1_000_000))
    with failing_disk(backing) as disk:
        confirm = ["--confirm", f"disk1={16 * MIB}", "--loops", "--no-adapt", "--no-grow"]
        words = restore_arguments(world, tmp_path, proxy.url, Path(disk.device), *confirm)
        del words[words.index(f"disk1={SIZE}") - 1 : words.index(f"disk1={SIZE}") + 1]
        process = subprocess.Popen(
            words, env=environment(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        while not proxy.seen and process.poll() is None:
            threading.Event().wait(0.02)
        disk.vanish()
        out, errors = process.communicate(timeout=60)
    proxy.close()
    assert process.returncode == 12, out + errors
    assert f"'{disk.device}'" in errors and "Traceback" not in errors
    assert f"not complete: {disk.device} has no partition table and no boot sector" in out
    assert re.search(rf"to go on: rekindle restore http\S+ --host hv1 --point \w+ --target disk1={disk.device}", out)


def test_what_is_read_back_comes_from_the_disk_and_not_from_the_cache(world: FaultWorld, backing: Path) -> None:
    """A disk that lost a byte, while the kernel's cache of it still has the right one."""
    place = 5 * MIB + 17
    with loop(backing) as device:
        spoilt = threading.Event()

        def hear(event: Event) -> None:
            if isinstance(event, Progress) and event.note.startswith("reading back") and not spoilt.is_set():
                spoilt.set()
                assert Path(device).read_bytes()[place] == world.data[place]  # the cache has all of it now
                with backing.open("r+b") as file:
                    file.seek(place)
                    file.write(bytes([world.data[place] ^ 0x40]))

        restored = start(world.rig.repository("restore"), world.point, device, hear=hear)
        with pytest.raises(IntegrityError, match="does not give back") as caught:
            restored.join(20)
        assert spoilt.is_set()
        assert "failing" in caught.value.hint
    assert not any(backing.read_bytes()[:4096]), "it must not boot"
