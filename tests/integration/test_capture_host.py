"""A hypervisor's disk with ESP, /boot, LVM and VMs: what the inventory finds, and disks in use that are refused."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from recovery.capture.identity import geometry
from recovery.capture.inventory import Inventory, take_inventory
from recovery.capture.pipeline import capture
from recovery.capture.privately import in_private_mounts
from recovery.capture.reader import SourceReader
from recovery.capture.request import CaptureRequest
from recovery.capture.sources import Source, open_raw, open_sources
from recovery.cli.main import main
from recovery.errors import BusyError, DeviceError
from recovery.events import ignore
from recovery.format.point import Point
from recovery.repository.index import SqliteIndex
from recovery.repository.repository import Repository
from recovery.repository.store import DirectoryStore
from tests.integration.capture_images import (
    MIB,
    copy_into,
    host_files,
    loop,
    make_ext4,
    make_host,
    sh,
    sparse,
    write_files,
)
from tests.support.proxmox import lay_database
from tests.support.repositories import PASSPHRASE, new_repository

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        os.geteuid() != 0 or not Path("/dev/loop-control").exists(), reason="needs root and loop devices"
    ),
]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("host")
    return make_host(folder / "host.img", folder)


def look(*disks: Path) -> tuple[Inventory, list[str]]:
    warnings: list[str] = []
    with open_sources(disks) as sources:
        return in_private_mounts(lambda: take_inventory(sources, warnings.append)), warnings


def leftovers(folder: Path) -> str:
    return "\n".join(
        line
        for text in (sh("losetup", "-a"), Path("/proc/self/mountinfo").read_text())
        for line in text.splitlines()
        if str(folder) in line or "rekindle-look-" in line or "rekindle-join-" in line
    )


def test_the_inventory_of_a_host(host: Path) -> None:
    found, warnings = look(host)
    assert warnings == []
    system = found.system
    assert (system.os_id, system.root, system.boot, system.esp) == ("debian", "rkvg-1/root", "disk1:3", "disk1:2")
    assert (system.mounts["/"], system.mounts["/boot"]) == ("rkvg-1/root", "disk1:3")
    assert system.kernels == ("6.1.0-9-amd64", "6.1.0-28-amd64")
    assert (system.initramfs, system.bootloader) == ("initramfs-tools", "grub")
    assert [(item.interface, item.addresses) for item in system.network] == [
        ("br0", ("192.0.2.10/24",)), ("enp1s0", ()),
    ]  # fmt: skip
    vms = {vm.name: (vm.autostart, vm.disks[0].on, vm.disks[0].size) for vm in found.vms}
    assert vms == {"web": (True, "rkvg-1/root", 3 << 30), "db": (False, "rkvg-1/db", 8 * MIB)}
    assert (found.firmware.firmware, found.firmware.secure_boot) == ("uefi", True)
    kinds = [part.content.kind for part in found.tables["disk1"].partitions]
    assert kinds == ["", "vfat", "ext4", "LVM2_member"]
    assert found.tables["disk1"].partitions[2].content.used
    (group,) = found.groups
    assert group.name == "rkvg-1"
    assert [(lv.name, lv.size, lv.content.kind) for lv in group.volumes] == [
        ("root", 40 * MIB, "ext4"), ("db", 8 * MIB, ""),
    ]  # fmt: skip
    assert group.volumes[0].content.used
    assert leftovers(host.parent) == ""


def test_the_inventory_agrees_with_lvm(host: Path) -> None:
    found, _ = look(host)
    part = found.tables["disk1"].partitions[3]
    with loop(host, part.start, part.size, read_only=True) as device:
        argv = ("--devices", device, "--reportformat", "json", "--units", "b", "--nosuffix")
        said = json.loads(sh("vgs", *argv, "-o", "vg_name,vg_uuid,vg_size,vg_free"))["report"][0]["vg"][0]
        pv = json.loads(sh("pvs", *argv, "-o", "pv_uuid"))["report"][0]["pv"][0]
    (group,) = found.groups
    assert (group.name, group.uuid, group.size, group.free) == (
        said["vg_name"], said["vg_uuid"], int(said["vg_size"]), int(said["vg_free"]),
    )  # fmt: skip
    assert group.pv_uuids == (pv["pv_uuid"],)


def test_the_same_from_a_qcow2_and_from_a_block_device(host: Path, tmp_path: Path) -> None:
    expected, _ = look(host)
    image = tmp_path / "host.qcow2"
    sh("qemu-img", "convert", "-O", "qcow2", host, image)
    found, warnings = look(image)
    assert (found.system, found.vms, found.tables, warnings) == (expected.system, expected.vms, expected.tables, [])
    with loop(host) as device:
        found, warnings = look(Path(device))
    assert (found.system, found.vms, found.groups, warnings) == (expected.system, expected.vms, expected.groups, [])
    assert leftovers(tmp_path) == ""


def test_a_root_with_data_on_xfs_and_a_bios_boot_loader(tmp_path: Path) -> None:
    """Two disks: an MBR disk with GRUB's boot code and an ext4 root; a whole-disk XFS with the VM's image."""
    first = sparse(tmp_path / "a.img", 60 * MIB)
    sh("sfdisk", "-q", first, input="label: dos\nstart=2048, type=83, bootable\n")
    copy_into(first, 0, b"\xeb\x63\x90GRUB Geom")
    data = sparse(tmp_path / "b.img", 310 * MIB)
    sh("mkfs.xfs", "-q", "-L", "vms", data)
    with loop(data) as device:
        target = tmp_path / "mnt"
        target.mkdir()
        sh("mount", device, target)
        sh("qemu-img", "create", "-q", "-f", "raw", target / "web.qcow2", "5M")
        sh("umount", target)
    root = write_files(tmp_path / "root", host_files("/dev/sda1", data_spec="LABEL=vms"))
    (root / "boot").mkdir()
    (root / "var/lib/libvirt/images").mkdir(parents=True)
    (root / "boot/vmlinuz-6.12.1").write_text("k")
    make_ext4(tmp_path / "root.img", 40 * MIB, root)
    copy_into(first, 2048 * 512, (tmp_path / "root.img").read_bytes())
    found, warnings = look(first, data)
    assert (found.system.root, found.system.boot, found.system.esp) == ("disk1:1", "disk1:1", "")
    assert {"disk1:1", "disk2"} == set(found.system.mounts.values())
    assert found.firmware.firmware == "bios"
    assert {vm.name: vm.disks[0].on for vm in found.vms} == {"web": "disk2", "db": ""}
    assert warnings == []


def test_a_proxmox_hosts_guests_are_found_with_the_places_of_their_disks(tmp_path: Path) -> None:
    disk = sparse(tmp_path / "a.img", 60 * MIB)
    sh("sfdisk", "-q", disk, input="label: dos\nstart=2048, type=83, bootable\n")
    root = write_files(tmp_path / "root", {**host_files("/dev/sda1"), "/boot/vmlinuz-6.8.12-1-pve": "k"})
    conf = "name: web\nmemory: 2048\nonboot: 1\nscsi0: local:100/vm-100-disk-0.qcow2,size=3G\nhostpci0: 0000:01:00\n"
    lay_database(root, {"nodes/pve1/qemu-server/100.conf": conf})
    image = root / "var/lib/vz/images/100/vm-100-disk-0.qcow2"
    image.parent.mkdir(parents=True)
    sh("qemu-img", "create", "-q", "-f", "qcow2", image, "3G")
    make_ext4(tmp_path / "root.img", 40 * MIB, root)
    copy_into(disk, 2048 * 512, (tmp_path / "root.img").read_bytes())
    found, warnings = look(disk)
    (guest,) = (vm for vm in found.vms if vm.manager == "proxmox")
    assert (guest.name, guest.autostart, guest.definition) == ("100-web", True, conf)
    (where,) = guest.disks
    assert (where.source, where.on, where.size) == ("/var/lib/vz/images/100/vm-100-disk-0.qcow2", "disk1:1", 3 << 30)
    assert where.occupies is not None and where.occupies.disks[0].disk == "disk1" and not where.unmapped
    assert warnings == []


def test_damaged_filesystems_are_warned_of_and_do_not_stop_it(host: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.img"
    sh("cp", "--sparse=always", host, broken)
    found, _ = look(broken)
    boot = found.tables["disk1"].partitions[2]
    # The superblock stays, what it points to does not.
    copy_into(broken, boot.start + 2048, b"\xff" * 65536)
    pv = found.tables["disk1"].partitions[3]
    copy_into(broken, pv.start + 4096, b"\xff" * 8192)
    found, warnings = look(broken)
    assert any("LVM metadata" in text for text in warnings)
    assert any("No operating system" in text for text in warnings)
    assert found.groups == []
    assert found.firmware.firmware == "uefi"
    assert leftovers(tmp_path) == ""


def test_a_disk_mounted_read_write_is_refused(host: Path, tmp_path: Path) -> None:
    copy = tmp_path / "disk.img"
    make_ext4(copy, 40 * MIB)
    target = tmp_path / "mnt"
    target.mkdir()
    with loop(copy) as device:
        sh("mount", device, target)
        try:
            for path in (Path(device), copy):
                with pytest.raises(BusyError, match="mounted read-write") as caught, open_sources([path]):
                    pass
                assert "snapshot" in caught.value.hint
        finally:
            sh("umount", target)
        sh("mount", "-o", "ro", device, target)
        try:
            with open_sources([Path(device)]) as sources:
                assert sources[0].size == 40 * MIB
        finally:
            sh("umount", target)


def test_a_disk_that_a_program_has_open_for_writing_is_refused(tmp_path: Path) -> None:
    path = sparse(tmp_path / "disk.img", MIB)
    holder = subprocess.Popen(["sleep", "60"], stdin=path.open("r+b"))
    try:
        with pytest.raises(BusyError, match=f"process {holder.pid}"), open_sources([path]):
            pass
    finally:
        holder.kill()
        holder.wait()
    with open_sources([path]):
        pass


@pytest.mark.parametrize("driver", ["raw", "qcow2"])
def test_a_disk_of_a_running_vm_is_refused(tmp_path: Path, driver: str) -> None:
    path = tmp_path / "disk.image"
    sh("qemu-img", "create", "-q", "-f", driver, path, "10M")
    node = {"driver": driver, "node-name": "n", "file": {"driver": "file", "filename": str(path)}}
    export = {"type": "fuse", "id": "e", "node-name": "n", "mountpoint": str(tmp_path / "x"), "writable": True}
    (tmp_path / "x").touch()
    # What holds a VM's lock is the block layer; a whole VM would take no other.
    argv = ["qemu-storage-daemon", "--blockdev", json.dumps(node), "--export", json.dumps(export)]
    daemon = subprocess.Popen(argv)
    try:
        while not os.path.ismount(tmp_path / "x"):
            assert daemon.poll() is None
            time.sleep(0.02)
        with pytest.raises(BusyError, match="in use"), open_sources([path]):
            pass
    finally:
        daemon.terminate()
        daemon.wait()


def test_a_device_that_cannot_be_read_is_named_with_its_offset(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    path.write_bytes(b"x" * (2 * MIB))
    with loop(path) as device, open_sources([Path(device)]) as sources:
        # Behind the end of its file a loop device answers with I/O errors.
        os.truncate(path, MIB + 8192)
        assert geometry(Path(device)) == (2 * MIB, 512)
        reader = SourceReader(sources[0])
        buffer = memoryview(bytearray(2 * MIB + 4096))
        with pytest.raises(DeviceError, match=rf"'{device}' cannot be read at byte {MIB + 8192}"):
            reader.read_into(MIB, buffer[:MIB])
        reader.close()


@dataclass
class Said:
    stdout: str
    stderr: str


def test_a_whole_capture_of_a_failing_disk_leaves_nothing(tmp_path: Path) -> None:
    repository = new_repository(tmp_path / "repository")
    path = tmp_path / "disk.img"
    path.write_bytes(random.Random(1).randbytes(5 * MIB))
    with loop(path) as device:
        os.truncate(path, 3 * MIB + 4096)
        request = CaptureRequest(host="h", disks=(Path(device),))
        with pytest.raises(DeviceError, match=f"cannot be read at byte {3 * MIB + 4096}"):
            capture(repository, SqliteIndex(":memory:"), request, ignore, threading.Event())
    assert repository.hosts() == []


def test_a_block_device_is_captured_with_direct_reads(tmp_path: Path) -> None:
    repository = new_repository(tmp_path / "repository")
    path = tmp_path / "disk.img"
    path.write_bytes(random.Random(1).randbytes(5 * MIB + 4096))
    from_file = capture(
        repository, SqliteIndex(":memory:"), CaptureRequest(host="h", disks=(path,)), ignore, threading.Event()
    )
    with loop(path) as device:
        descriptor, direct = open_raw(Source("disk1", Path(device), Path(device), 5 * MIB + 4096, 512, True))
        os.close(descriptor)
        assert direct
        from_device = capture(
            repository,
            SqliteIndex(":memory:"),
            CaptureRequest(host="h", disks=(Path(device),)),
            ignore,
            threading.Event(),
        )
    disk = from_device.body.disks[0]
    assert (disk.root, disk.changed) == (from_file.body.disks[0].root, 0)
    assert disk.device == device


def rekindle(*argv: str | Path, code: int = 0) -> Said:
    """The command in this process, at 80 columns; only its exit code and words count."""
    out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.TextIOWrapper(io.BytesIO(), "utf-8")
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as ended:
        main([str(word) for word in argv])
    texts = []
    for stream in (out, err):
        stream.flush()
        stream.seek(0)
        texts.append(stream.read())
    assert ended.value.code == code, (argv, texts)
    return Said(*texts)


@pytest.fixture(scope="module")
def captured(host: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Sequence[str | Path], Point]:
    """A repository with one point of the host, made by the command; the options that open it."""
    folder = tmp_path_factory.mktemp("cli")
    repository = new_repository(folder / "repository")
    secret = folder / "secret"
    secret.write_text(PASSPHRASE + "\n")
    assert isinstance(repository.store, DirectoryStore)
    access: Sequence[str | Path] = ("--secret-file", secret)
    done = rekindle(
        "capture", repository.store.root, host, "--host", "kvm1", "--note", "before", "--json", *access
    )  # fmt: skip
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert {"step-started", "progress", "point"} <= {line["type"] for line in lines}
    point = msgspec.convert({key: value for key, value in lines[-1].items() if key != "type"}, Point)
    return repository.store.root, access, point


def test_the_point_says_what_was_found(captured: tuple[Path, Sequence[str | Path], Point], host: Path) -> None:
    root, _, point = captured
    stored = Repository.open(DirectoryStore(root), PASSPHRASE).point("kvm1", "latest")
    assert stored == point
    body = stored.body
    assert (body.consistency, body.firmware, body.note) == ("offline", "uefi", "before")
    assert (body.disks[0].name, body.disks[0].device, body.disks[0].size) == ("disk1", "host.img", 160 * MIB)
    assert len(body.vms) == 2


def test_points_lists_and_shows(captured: tuple[Path, Sequence[str | Path], Point]) -> None:
    root, access, point = captured
    listed = rekindle("points", root, *access).stdout
    assert "kvm1" in listed
    assert point.id[:12] in listed
    shown = rekindle("points", root, "kvm1", "--point", point.id[:6], *access).stdout
    for words in (point.id, "rkvg-1", "web.qcow2", "Debian GNU/Linux 12", "uefi with Secure Boot", "192.0.2.10/24"):
        assert words in shown.replace("\n", " "), words
    as_json = json.loads(rekindle("points", root, "kvm1", "--json", *access).stdout)
    assert as_json["id"] == point.id


def test_the_command_says_what_is_wrong(
    captured: tuple[Path, Sequence[str | Path], Point], host: Path, tmp_path: Path
) -> None:
    root, access, _ = captured
    (tmp_path / "wrong").write_text("wrong\n")
    assert (
        "Error:" in rekindle("capture", root, host, "--host", "h", "--secret-file", tmp_path / "wrong", code=4).stderr
    )
    assert "lsblk" in rekindle("capture", root, "/dev/none", "--host", "h", *access, code=3).stderr
    assert "named twice" in rekindle("capture", root, host, host, "--host", "h", *access, code=2).stderr
    assert "no directory" in rekindle("capture", tmp_path / "none", host, "--host", "h", *access, code=3).stderr
    assert "kvm1" in rekindle("points", root, "other", *access, code=3).stderr
    assert "has no point" in rekindle("points", root, "kvm1", "--point", "ffff", *access, code=3).stderr
    assert rekindle("points", root, *access).stdout.count("kvm1") == 1


def test_no_thread_or_mount_stays(captured: tuple[Path, Sequence[str | Path], Point], host: Path) -> None:
    assert not any(thread.name.startswith("capture-") for thread in threading.enumerate())
    assert leftovers(host.parent) == ""
