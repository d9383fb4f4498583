"""Real NTFS volumes and registry hives, made here: looked at by a capture, adapted, undone, and left alone where only
Windows may write. Nothing of Microsoft is in them and nothing in them starts."""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from recovery.adapt import windows_drivers, windows_hibernation, windows_letters, windows_loader
from recovery.adapt.devices import Node
from recovery.adapt.model import AdaptRequest, Job, Moved
from recovery.adapt.ntfs import facts_of, grow_ntfs, ntfs_mounted, wait_until_let_go, why_not_writable
from recovery.adapt.windows_letters import mbr_entry
from recovery.capture.rawtable import parse_table
from recovery.errors import CommandError, IntegrityError
from recovery.format.point import Point
from recovery.layout import WINDOWS, PartitionTable
from recovery.machine.model import Bus, Disk, Machine
from recovery.units import MIB
from recovery.windows.hives import Hive, control_sets, is_whole
from tests.integration.test_landing import loop
from tests.support.captures import take
from tests.support.hives import Keys
from tests.support.repositories import new_repository
from tests.support.windows_host import (
    DRIVERS,
    GPT,
    MBR,
    SYSTEM,
    gpt_letter,
    make_windows,
    ntfs,
    set_flag,
    set_log,
    sh,
    system_keys,
)

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0 or not Path("/dev/fuse").exists(), reason="needs root and FUSE"),
]

C = "\\DosDevices\\C:"


class WindowsHost:
    """A disk of ``size`` bytes with a Windows on partition ``number``; its other NTFS partitions are empty."""

    def __init__(self, folder: Path, script: str, number: int, size: int = 84 * MIB) -> None:
        self.folder, self.number = folder, number
        self.image = folder / "host.img"
        self.image.touch()
        os.truncate(self.image, size)
        sh("sfdisk", "--quiet", self.image, input=script)
        self.table = self.read_table()
        self.part = next(p for p in self.table.partitions if p.number == number)
        for part in self.table.partitions:
            if part.type in ("07", "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7"):
                with self.device(part.number) as device:
                    sh("mkntfs", "--quick", "--quiet", "-p", part.start // 512, "-H", 255, "-S", 63, device)

    def read_table(self) -> PartitionTable:
        with self.image.open("rb") as file:

            def read(offset: int, length: int) -> bytes:
                return os.pread(file.fileno(), length, offset)

            return parse_table(read, self.image.stat().st_size, 512).table

    @contextlib.contextmanager
    def device(self, number: int = 0) -> Iterator[str]:
        part = next(p for p in self.table.partitions if p.number == (number or self.number))
        with loop(self.image, part.start, part.size) as device:
            yield device

    @contextlib.contextmanager
    def files(self, options: str = "rw") -> Iterator[Path]:
        with self.device() as device, ntfs(device, self.folder / "m", options) as root:
            yield root

    def capture(self) -> Point:
        return take(new_repository(self.folder / "repo"), self.image)

    @contextlib.contextmanager
    def job(self, point: Point, bus: Bus = "nvme", **request: object) -> Iterator[Job]:
        """An adaptation of the disk, whose partition has a device of its own here."""
        with self.device() as device:
            node = Node(device, "part", self.part.size, "disk1", self.number, "ntfs")
            targets = {"disk1": Disk(id="x", path=str(self.image), size=self.image.stat().st_size, bus=bus)}
            asked = AdaptRequest(point=point, targets=targets, machine=Machine(), **request)  # type: ignore[arg-type]
            yield Job(asked, lambda event: None, nodes=(node,))

    def hive(self, name: str = SYSTEM) -> Hive:
        with self.files("ro") as root:
            copy = self.folder / "looked-at"
            copy.write_bytes((root / name).read_bytes())
        return Hive(copy)

    def digest(self) -> str:
        return hashlib.sha256(self.image.read_bytes()).hexdigest()


@pytest.fixture
def uefi(tmp_path: Path) -> WindowsHost:
    host = WindowsHost(tmp_path, GPT, 3)
    with host.device(1) as device:
        sh("mkfs.vfat", "-n", "SYSTEM", device)
        for name in ("EFI", "EFI/Boot", "EFI/Microsoft", "EFI/Microsoft/Boot"):
            sh("mmd", "-i", device, f"::/{name}")
        (tmp_path / "loader").write_bytes(b"MZ")
        for name in ("EFI/Boot/bootx64.efi", "EFI/Microsoft/Boot/bootmgfw.efi"):
            sh("mcopy", "-i", device, tmp_path / "loader", f"::/{name}")
    with host.files() as root:
        letters = {
            C: gpt_letter(host.part.uuid),
            "\\DosDevices\\E:": gpt_letter("99999999-0000-0000-0000-000000000000"),
        }
        make_windows(root, system_keys(letters=letters))
    return host


def starts(hive: Hive, control_set: str = "ControlSet001") -> dict[str, int | None]:
    services = f"{control_set}/Services"
    return {name: hive.dword(f"{services}/{name}", "Start") for name in hive.children(services)}


def overrides(hive: Hive) -> list[str]:
    services = "ControlSet001/Services"
    return [name for name in hive.children(services) if hive.children(f"{services}/{name}")]


def test_a_capture_tells_the_windows_on_the_disk_and_writes_nothing(uefi: WindowsHost) -> None:
    before = uefi.digest()
    body = uefi.capture().body
    assert uefi.digest() == before
    (found,) = body.windows
    assert (found.volume, found.name, found.problem) == ("disk1:3", "Windows 11 Pro", "")
    assert set(found.drivers or ()) == set(DRIVERS)
    assert not found.hibernated and found.unclean == ""
    system = body.system
    assert (system.os_id, system.os_name, system.root, system.esp) == (WINDOWS, "Windows 11 Pro", "disk1:3", "disk1:1")
    assert (system.architecture, body.firmware) == ("x86_64", "uefi")
    content = next(p.content for p in body.disks[0].table.partitions if p.number == 3)
    assert content.kind == "ntfs" and content.unclean == "" and 0 < (content.used or 0) < 40 * MIB


def test_a_driver_counts_only_with_its_file(uefi: WindowsHost) -> None:
    with uefi.files() as root:
        (root / "Windows/System32/drivers/pvscsi.sys").unlink()
    (found,) = uefi.capture().body.windows
    assert set(found.drivers or ()) == set(DRIVERS) - {"pvscsi"}


def test_drivers_are_loaded_at_the_start_and_the_original_stays_beside(uefi: WindowsHost) -> None:
    point = uefi.capture()
    with uefi.files("ro") as root:
        original = (root / SYSTEM).read_bytes()
        rights = os.getxattr(root / SYSTEM, "system.ntfs_acl")
    assert overrides(uefi.hive()) and starts(uefi.hive())["stornvme"] == 3
    with uefi.job(point) as job:
        assert "loaded at its start" in windows_drivers.enable_drivers(job)
        windows_letters.keep_letters(job)
    assert len(job.changes) == 1 and "stornvme" in job.changes[0]
    assert len(job.warnings) == 1 and "was not proven" in job.warnings[0]
    hive = uefi.hive()
    assert set(starts(hive).values()) == {0} and overrides(hive) == []
    assert hive.values("MountedDevices")[C][1] == gpt_letter(uefi.part.uuid)  # a GUID that stays valid is kept
    assert len(hive.values("MountedDevices")) == 2
    with uefi.files("ro") as root:
        kept = root / f"{SYSTEM}.rekindle-orig"
        assert kept.read_bytes() == original and is_whole(root / SYSTEM)
        assert os.getxattr(kept, "system.ntfs_acl") == os.getxattr(root / SYSTEM, "system.ntfs_acl") == rights
        assert not (root / f"{SYSTEM}.rekindle-new").exists()
    # Again: nothing is left to do, so nothing is written.
    before = uefi.digest()
    with uefi.job(point) as job:
        windows_hibernation.end_hibernation(job)
        windows_drivers.enable_drivers(job)
        windows_letters.keep_letters(job)
    assert job.changes == [] and uefi.digest() == before


def test_without_a_point_windows_is_found_by_its_files(uefi: WindowsHost) -> None:
    point = msgspec.structs.replace(uefi.capture(), id="")
    point = msgspec.structs.replace(point, body=msgspec.structs.replace(point.body, windows=()))
    with uefi.job(point) as job:
        windows_drivers.enable_drivers(job)
    assert starts(uefi.hive())["stornvme"] == 0


def test_a_disk_that_windows_has_no_driver_for_is_refused(uefi: WindowsHost) -> None:
    with uefi.job(uefi.capture(), bus="virtio") as job, pytest.raises(IntegrityError, match="viostor"):
        windows_drivers.enable_drivers(job)


def test_both_control_sets_are_changed_when_the_next_start_uses_another(tmp_path: Path) -> None:
    image = "\\SystemRoot\\System32\\drivers\\stornvme.sys"
    keys: Keys = {
        "Select": {"Current": 1, "Default": 2},
        **{f"ControlSet00{n}/Services/stornvme": {"Start": 3, "ImagePath": image} for n in (1, 2, 3)},
    }
    host = WindowsHost(tmp_path, GPT, 3)
    with host.files() as root:
        make_windows(root, keys)
    with host.job(host.capture()) as job:
        windows_drivers.enable_drivers(job)
    hive = host.hive()
    assert control_sets(hive) == ["ControlSet001", "ControlSet002"]
    assert [starts(hive, f"ControlSet00{n}")["stornvme"] for n in (1, 2, 3)] == [0, 0, 3]


def test_letters_of_a_moved_partition_of_an_mbr_mean_it_still(tmp_path: Path) -> None:
    host = WindowsHost(tmp_path, MBR, 2)
    old = {p.number: p.start for p in host.table.partitions}
    letters = {
        C: mbr_entry("1234abcd", old[2]),
        "\\DosDevices\\D:": mbr_entry("1234abcd", old[3]),
        "\\DosDevices\\E:": mbr_entry("feedf00d", old[3]),
        "\\DosDevices\\F:": b"_\0?\0?\0_\0USBSTOR",
    }
    with host.files() as root:
        make_windows(root, system_keys(letters=letters))
    point = host.capture()
    assert point.body.disks[0].table.uuid == "1234abcd"
    moved = (Moved(disk="disk1", number=3, old_start=old[3], start=old[3] + 50 * MIB),)
    for changes in (1, 0):  # the second time there is nothing to do
        with host.job(point, moved=moved) as job:
            windows_letters.keep_letters(job)
        assert len(job.changes) == changes
        entries = {name: data for name, (_, data) in host.hive().values("MountedDevices").items()}
        assert entries == {**letters, "\\DosDevices\\D:": mbr_entry("1234abcd", old[3] + 50 * MIB)}


def test_the_boot_manager_is_put_back_at_the_fallback_path(uefi: WindowsHost) -> None:
    point = uefi.capture()
    esp = next(p for p in uefi.table.partitions if p.number == 1)
    with uefi.device(1) as device:
        sh("mdeltree", "-i", device, "::/EFI/Boot")
        node = Node(device, "part", esp.size, "disk1", 1, "vfat")
        with uefi.job(point) as job:
            job.nodes = (node,)
            for changes in (1, 1):  # the second time it is there
                windows_loader.keep_loader(job)
                assert len(job.changes) == changes
        assert sh("mtype", "-i", device, "::/EFI/BOOT/BOOTX64.EFI") == "MZ"
        sh("mdeltree", "-i", device, "::/EFI/Boot", "::/EFI/Microsoft")
        with uefi.job(point) as job, pytest.raises(CommandError, match="no EFI system partition"):
            job.nodes = (node,)
            windows_loader.keep_loader(job)


def states(host: WindowsHost, kind: str) -> None:
    if kind == "log":
        set_log(host.image, host.part.start, major=1, client=0)
    elif kind == "fast start":
        set_log(host.image, host.part.start, major=2, client=0)
    elif kind == "check":
        set_flag(host.image, host.part.start, dirty=True)
    else:
        with host.files() as root, (root / "hiberfil.sys").open("r+b") as file:
            file.write(b"hibr")


@pytest.mark.parametrize(
    ("kind", "why"),
    [("log", "changes wait"), ("fast start", "fast start"), ("check", "check of it"), ("hibernated", "sleeps in it")],
)
def test_what_only_windows_may_write_to_is_left_alone(uefi: WindowsHost, kind: str, why: str) -> None:
    states(uefi, kind)
    before = uefi.digest()
    point = uefi.capture()
    (found,) = point.body.windows
    content = next(p.content for p in point.body.disks[0].table.partitions if p.number == 3)
    assert why in content.unclean
    assert found.hibernated == (kind == "hibernated") and bool(found.unclean) != found.hibernated
    with uefi.job(point) as job:
        assert why in why_not_writable(job.nodes[0].path)
        with pytest.raises(IntegrityError, match="left as it is"):
            windows_drivers.enable_drivers(job)
        with pytest.raises(CommandError, match="left as it is"):
            os.truncate(uefi.image, 160 * MIB)
            with loop(uefi.image, uefi.part.start, 100 * MIB) as device:
                grow_ntfs(device)
        os.truncate(uefi.image, 84 * MIB)
    assert uefi.digest() == before


def test_a_session_that_may_be_dropped_is_dropped_and_nothing_else(uefi: WindowsHost) -> None:
    states(uefi, "hibernated")
    point = uefi.capture()
    with uefi.job(point) as job, pytest.raises(IntegrityError, match="--drop-hibernation|fast start"):
        windows_hibernation.end_hibernation(job)
    with uefi.job(point, drop_hibernation=True) as job:
        windows_hibernation.end_hibernation(job)
        assert "was dropped" in job.changes[0]
        windows_drivers.enable_drivers(job)
        windows_hibernation.end_hibernation(job)
    assert len(job.changes) == 2
    with uefi.files("ro") as root:
        assert not (root / "hiberfil.sys").exists() and (root / "Windows/System32/ntoskrnl.exe").exists()
    assert starts(uefi.hive())["stornvme"] == 0


def test_windows_beside_a_linux_is_only_warned_of(uefi: WindowsHost) -> None:
    states(uefi, "log")
    point = uefi.capture()
    linux = msgspec.structs.replace(point.body.system, os_id="debian", root="disk1:4")
    point = msgspec.structs.replace(point, body=msgspec.structs.replace(point.body, system=linux))
    before = uefi.digest()
    with uefi.job(point) as job:
        windows_drivers.enable_drivers(job)
    assert "changes wait" in job.warnings[0] and job.changes == [] and uefi.digest() == before


def test_a_hive_that_lies_in_its_logs_is_not_changed(uefi: WindowsHost) -> None:
    with uefi.files() as root, (root / SYSTEM).open("r+b") as file:
        file.seek(4)
        file.write(struct.pack("<I", 77))
    point = uefi.capture()
    (found,) = point.body.windows
    assert found.drivers is None and found.damaged and "written out in full" in found.problem
    before = uefi.digest()
    with uefi.job(point) as job, pytest.raises(IntegrityError, match="written out in full"):
        windows_drivers.enable_drivers(job)
    assert uefi.digest() == before


def test_a_run_that_was_cut_off_while_writing_is_completed(uefi: WindowsHost) -> None:
    """As left by a power cut between the first and the last of its writes."""
    point = uefi.capture()
    with uefi.files() as root:
        path = root / SYSTEM
        wanted = path.read_bytes()
        path.with_name("SYSTEM.rekindle-new").write_bytes(wanted)
        with path.open("r+b") as file:
            file.seek(8)
            file.write(struct.pack("<I", struct.unpack_from("<I", wanted, 4)[0] - 1))
            file.seek(4096)
            file.write(b"\xa5" * 512)
    with uefi.job(point) as job:
        windows_drivers.enable_drivers(job)
    with uefi.files("ro") as root:
        assert is_whole(root / SYSTEM) and not (root / f"{SYSTEM}.rekindle-new").exists()
    assert set(starts(uefi.hive()).values()) == {0}


def test_what_an_older_run_left_does_not_come_back(uefi: WindowsHost) -> None:
    point = uefi.capture()
    with uefi.files() as root:
        path = root / SYSTEM
        path.with_name("SYSTEM.rekindle-new").write_bytes(path.read_bytes())
        with path.open("r+b") as file:
            file.seek(4)
            file.write(struct.pack("<II", 4711, 4710))
    before = uefi.digest()
    with uefi.job(point) as job, pytest.raises(IntegrityError, match="written out in full"):
        windows_drivers.enable_drivers(job)
    assert uefi.digest() == before


def test_the_process_of_a_mount_is_waited_for(uefi: WindowsHost) -> None:
    """It writes what is left after the unmount, and keeps the device open until then."""
    with uefi.device() as device:
        with ntfs_mounted(device, write=True) as root:
            (root / "data").write_bytes(b"\x5a" * MIB)
            assert not wait_until_let_go(device, 0.1)
        assert wait_until_let_go(device, 0)
        assert why_not_writable(device) == ""


def test_a_volume_is_grown_to_its_partition_and_its_files_stay(uefi: WindowsHost) -> None:
    with uefi.files() as root:
        (root / "data").write_bytes(b"\x5a" * (10 * MIB))
    os.truncate(uefi.image, 160 * MIB)
    with loop(uefi.image, uefi.part.start, 100 * MIB) as device:
        assert facts_of(device).size < 41 * MIB
        assert grow_ntfs(device)
        assert 99 * MIB < facts_of(device).size < 100 * MIB
        assert not grow_ntfs(device)  # and does not mind that Windows is asked to check it
        assert facts_of(device).dirty
        sh("ntfsresize", "--info", "--force", device)
        with ntfs(device, uefi.folder / "m", "ro") as root:
            assert (root / "data").read_bytes() == b"\x5a" * (10 * MIB)
            assert (root / SYSTEM).is_file()
