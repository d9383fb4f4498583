"""Which volumes are suspended for a point, and how device-mapper is asked; the kernel's part is tried in a guest."""

from __future__ import annotations

import errno
import fcntl
import json
import signal
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from recovery.capture import busy
from recovery.capture.live import freezer, rawvolumes
from recovery.capture.live.filesystems import Filesystem
from recovery.capture.live.freezer import (
    DM_INACTIVE,
    DM_STATUS,
    DM_SUSPEND,
    DM_SUSPENDED,
    Freezer,
    LockedGroup,
    SuspendedVolume,
)
from recovery.capture.live.rawvolumes import RawVolume, find_raw_volumes
from recovery.capture.tracking.model import TrackedDisk

#: kernel name -> (number, what it lies on, LVM's name, device-mapper's uuid)
HOST = {
    "sda": ("8:0", (), "", ""),
    "dm-0": ("253:0", ("sda",), "pve-root", "LVM-root"),
    "dm-1": ("253:1", ("sda",), "pve-swap", "LVM-swap"),
    "dm-2": ("253:2", ("sda",), "pve-data_tmeta", "LVM-tmeta"),
    "dm-3": ("253:3", ("sda",), "pve-data_tdata", "LVM-tdata"),
    "dm-4": ("253:4", ("dm-2", "dm-3"), "pve-data-tpool", "LVM-data-tpool"),
    "dm-5": ("253:5", ("dm-4",), "pve-data", "LVM-data-pool"),
    "dm-6": ("253:6", ("dm-4",), "pve-vm--100--disk--0", "LVM-vm100"),
    "dm-7": ("253:7", ("dm-4",), "pve-vm--101--disk--0", "LVM-vm101"),
    "dm-8": ("253:8", ("sda",), "pve-raw", "LVM-raw"),
}
OPEN = {"253:0", "253:1", "253:2", "253:3", "253:4", "253:6", "253:8"}
ROOT = Filesystem("253:0", "/dev/mapper/pve-root", "/", "ext4")


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Proxmox host in sysfs: VM 100 runs, VM 101 does not, and something has pve/raw open."""
    blocks, numbers = tmp_path / "block", tmp_path / "numbers"
    numbers.mkdir()
    for name, (number, below, volume, uuid) in HOST.items():
        for folder in ("holders", "slaves", *(("dm",) if volume else ())):
            (blocks / name / folder).mkdir(parents=True, exist_ok=True)
        (blocks / name / "dev").write_text(number + "\n")
        (numbers / number).symlink_to(blocks / name)
        if volume:
            (blocks / name / "dm/name").write_text(volume + "\n")
            (blocks / name / "dm/uuid").write_text(uuid + "\n")
        for each in below:
            (blocks / each / "holders" / name).symlink_to(blocks / name)
            (blocks / name / "slaves" / each).symlink_to(blocks / each)
    control = tmp_path / "control"
    control.touch()
    swaps = tmp_path / "swaps"
    swaps.write_text("Filename Type Size Used Priority\n/dev/dm-1 partition 1 0 -2\n")
    monkeypatch.setattr(busy, "_SYS_BLOCK", numbers)
    monkeypatch.setattr(rawvolumes, "_SYS", blocks)
    monkeypatch.setattr(rawvolumes, "_NUMBERS", numbers)
    monkeypatch.setattr(rawvolumes, "_SWAPS", swaps)
    monkeypatch.setattr(rawvolumes, "_BTRFS", tmp_path / "btrfs")
    mounts = tmp_path / "mounts"
    mounts.write_text("")
    monkeypatch.setattr(rawvolumes, "_MOUNTINFO", mounts)
    monkeypatch.setattr(rawvolumes, "CONTROL", str(control))
    monkeypatch.setattr(rawvolumes, "is_open", OPEN.__contains__)


def disks() -> list[TrackedDisk]:
    return [TrackedDisk(name="disk1", path=Path("/dev/sda"), kernel_name="sda", major=8, minor=0, size=1 << 40)]


def test_what_vms_write_to_and_its_pool_last(host: None) -> None:
    assert find_raw_volumes(disks(), [ROOT]) == [
        RawVolume("253:6", "pve-vm--100--disk--0", "pve"),
        RawVolume("253:8", "pve-raw", "pve"),
        RawVolume("253:4", "pve-data-tpool", "pve"),
    ]


def test_a_pool_below_a_filesystem_of_the_host_is_left_alone(host: None) -> None:
    """What the agent itself needs may lie there; its own freeze makes the pool write down what it gave out."""
    also = Filesystem("253:7", "/dev/mapper/pve-vm--101--disk--0", "/mnt", "xfs")
    assert [each.name for each in find_raw_volumes(disks(), [ROOT, also])] == ["pve-vm--100--disk--0", "pve-raw"]


def test_what_is_mounted_read_only_and_all_of_a_btrfs_are_left_alone(host: None, tmp_path: Path) -> None:
    (tmp_path / "mounts").write_text("30 1 253:8 / /usr ro - ext4 /dev/dm-8 ro\n")
    assert [each.name for each in find_raw_volumes(disks(), [ROOT])] == ["pve-vm--100--disk--0", "pve-data-tpool"]
    (tmp_path / "btrfs/some-uuid/devices/dm-6").mkdir(parents=True)
    assert find_raw_volumes(disks(), [ROOT]) == []


@pytest.mark.parametrize(
    ("name", "group"),
    [("pve-root", "pve"), ("vg--0-root", "vg-0"), ("a--b-c--d", "a-b"), ("vg----x-lv", "vg--x"), ("plain", "")],
)
def test_the_group_of_a_volume(name: str, group: str) -> None:
    assert rawvolumes.group_of(name) == group


def test_a_host_without_device_mapper_has_none(host: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rawvolumes, "CONTROL", "/nonexistent/control")
    assert find_raw_volumes(disks(), [ROOT]) == []


class Kernel:
    """Device-mapper's control, with one volume (253:300)."""

    def __init__(self, *, suspended: bool = False, more: int = 0) -> None:
        self.suspended, self.more, self.asked = suspended, more, list[int]()

    def ioctl(self, descriptor: int, code: int, data: bytearray) -> int:
        # include/uapi/linux/dm-ioctl.h; linux/kdev_t.h for the number.
        version, size = struct.unpack_from("<I", data, 0)[0], struct.unpack_from("<I", data, 12)[0]
        flags, device = struct.unpack_from("<I", data, 28)[0], struct.unpack_from("<Q", data, 40)[0]
        assert (version, size, len(data)) == (4, 312, 312) and not any(data[48:])
        assert ((device & 0xFFF00) >> 8, (device & 0xFF) | (device >> 12) & 0xFFF00) == (253, 300)
        self.asked.append(code)
        if code == DM_SUSPEND:
            self.suspended = bool(flags & DM_SUSPENDED)
        struct.pack_into("<iI", data, 24, 2, (DM_SUSPENDED if self.suspended else 0) | self.more)
        return 0


def test_device_mapper_is_asked_as_its_header_says(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel()
    monkeypatch.setattr(fcntl, "ioctl", kernel.ioctl)
    volume = SuspendedVolume(5, 253, 300)
    assert volume.status() == (False, 2)
    volume.hold()
    assert kernel.suspended and volume.status()[0]
    volume.release()
    assert not kernel.suspended
    kernel.asked.clear()
    volume.release()
    assert kernel.asked == [DM_STATUS], "a resume would bring into force what LVM prepares"


@pytest.mark.parametrize("flags", [DM_SUSPENDED, DM_INACTIVE])
def test_what_somebody_else_is_at_is_left_alone(flags: int, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel(suspended=flags == DM_SUSPENDED, more=flags)
    monkeypatch.setattr(fcntl, "ioctl", kernel.ioctl)
    with pytest.raises(OSError) as caught:
        SuspendedVolume(5, 253, 300).hold()
    assert caught.value.errno == errno.EBUSY
    assert DM_SUSPEND not in kernel.asked


def test_a_volume_that_is_gone_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*words: object) -> int:
        raise OSError(errno.ENXIO, "gone")

    monkeypatch.setattr(fcntl, "ioctl", gone)
    with pytest.raises(OSError) as caught:
        SuspendedVolume(5, 253, 300).hold()
    assert caught.value.errno == errno.ENXIO, "which the freezer passes over"
    SuspendedVolume(5, 253, 300).release()


# --- LVM's lock ------------------------------------------------------------------------------------------------------


def test_a_group_that_lvm_works_on_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(freezer, "LOCKS", str(tmp_path))
    ours = LockedGroup("pve")
    ours.hold()
    with (tmp_path / "V_pve").open() as theirs:
        with pytest.raises(BlockingIOError):
            fcntl.flock(theirs, fcntl.LOCK_EX | fcntl.LOCK_NB)
        ours.release()
        fcntl.flock(theirs, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with pytest.raises(OSError) as caught:
            ours.hold()
        assert caught.value.errno == errno.EBUSY
    ours.release()
    monkeypatch.setattr(freezer, "LOCKS", str(tmp_path / "none"))
    ours.hold()
    ours.release()


# --- the freezer's times ---------------------------------------------------------------------------------------------


@dataclass
class Thing:
    """Takes ``slow`` seconds to be held, which a signal ends when it ``hears``; released only while ``below`` is not
    held, as a thin volume waits for its pool."""

    name: str
    log: list[str]
    rank: int = 1
    slow: float = 0.0
    below: Thing | None = None
    held: threading.Event = field(default_factory=threading.Event)

    def hold(self) -> None:
        self.held.set()
        time.sleep(self.slow)
        self.log.append(f"hold {self.name}")

    def release(self) -> None:
        while self.below is not None and self.below.held.is_set():
            time.sleep(0.01)
        self.held.clear()
        self.log.append(f"release {self.name}")


@pytest.fixture
def interruptible() -> Iterator[None]:
    """As freezer.main does it: thawing signals the thread that still freezes, or has just said that all is frozen."""
    usual = signal.signal(signal.SIGUSR1, lambda number, frame: None)
    yield
    signal.signal(signal.SIGUSR1, usual)


@pytest.mark.usefixtures("interruptible")
def test_a_pool_that_is_slow_to_suspend_does_not_hold_up_the_host() -> None:
    """The limit passes while the pool is being suspended: the filesystem thaws at once, the thin volume when the pool
    was resumed, by the thread that suspended it."""
    log: list[str] = []
    pool = Thing("pool", log, slow=0.5)
    thin, root = Thing("thin", log, below=pool), Thing("root", log, rank=0)
    ours, theirs = socket.socketpair()
    things = {"dm:thin": thin, "dm:pool": pool}
    served = Freezer(theirs, [root], things.__getitem__)
    thread = threading.Thread(target=served.serve, daemon=True)
    thread.start()
    lines = ours.makefile()
    assert "ready" in lines.readline()
    ours.sendall(b"freeze 0.2 dm:thin dm:pool\n")
    failed = json.loads(lines.readline())
    assert (failed["event"], failed["number"], failed["errno"]) == ("failed", 2, errno.ETIMEDOUT)
    ours.sendall(b"thaw\n")
    thawed = json.loads(lines.readline())
    assert thawed["expired"] and not thawed["stuck"] and len(thawed["milliseconds"]) == 3
    assert log == ["hold root", "hold thin", "release root", "hold pool", "release pool", "release thin"]
    ours.close()
    lines.close()
    thread.join(10)
    assert not thread.is_alive()


@pytest.mark.usefixtures("interruptible")
def test_a_volume_that_does_not_resume_is_told() -> None:
    class Broken(Thing):
        def release(self) -> None:
            raise OSError(errno.EIO, "no")

    log: list[str] = []
    ours, theirs = socket.socketpair()
    thread = threading.Thread(target=Freezer(theirs, [], lambda word: Broken(word, log)).serve, daemon=True)
    thread.start()
    lines = ours.makefile()
    ours.sendall(b"freeze 5 dm:x\n")
    assert "ready" in lines.readline() and "frozen" in lines.readline()
    ours.sendall(b"thaw\n")
    assert json.loads(lines.readline())["stuck"] == [0]
    ours.close()
    lines.close()
    thread.join(10)
