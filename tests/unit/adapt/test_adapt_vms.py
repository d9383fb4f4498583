"""VMs of a restored host: device names in their definitions, missing disks, and who starts by itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from recovery.adapt import vms
from recovery.adapt.devices import Node
from recovery.adapt.host import HostTree
from recovery.adapt.model import AdaptRequest, Job
from recovery.adapt.names import Rewrite
from recovery.adapt.vms import rewrite_definition, see_to_vms
from recovery.commands import Completed, FakeRunner, use_runner
from recovery.format.point import Point, PointBody, PointDisk, PointHeader
from recovery.machine.model import Machine

DISK = Node("/dev/nvme0n1", "disk", 100, "disk1")
PART = Node("/dev/nvme0n1p2", "part", 80, "disk1", 2, "LVM2_member", part_uuid="p-2", parent="/dev/nvme0n1")
BAY = Node("/dev/nvme1n1", "disk", 100, "disk2")
WEB = """<domain type='kvm'><name>web</name><devices>
<disk type='block'><source dev='/dev/disk/by-id/ata-OLD1-part2'/><target dev='vda'/></disk>
<disk type='block'><source dev="/dev/vg0/web"/></disk>
<disk type='file'><source file='/var/lib/libvirt/images/web.qcow2'/></disk>
<interface type='direct'><source dev='eno1' mode='bridge'/></interface>
{}</devices></domain>
"""
HANDED = """<hostdev mode='subsystem' type='pci'><source>
<address domain='0x0000' bus='0x03' slot='0x00' function='0x0'/></source></hostdev>"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for folder in ("etc/libvirt/qemu/autostart", "var/lib/libvirt/images", "srv"):
        (tmp_path / "host" / folder).mkdir(parents=True)
    (tmp_path / "host/etc/fstab").write_text("UUID=r / ext4 x 0 1\nUUID=s /srv ext4 x 0 2\n")
    (tmp_path / "host/var/lib/libvirt/images/web.qcow2").touch()
    return tmp_path / "host"


def define(root: Path, name: str, text: str) -> Path:
    file = root / f"etc/libvirt/qemu/{name}.xml"
    file.write_text(text)
    (root / f"etc/libvirt/qemu/autostart/{name}.xml").symlink_to(f"/etc/libvirt/qemu/{name}.xml")
    return file


def adapted(root: Path, *, devices: Path) -> Job:
    """The job after the step, with ``devices`` as this machine's PCI bus."""
    disks = [
        PointDisk(name=f"disk{n}", size=1, sector_size=512, chunk_size=1, root="", serial=f"OLD{n}") for n in (1, 2)
    ]
    header = PointHeader(version=1, repository="r", host="h", created=0)
    host = Point(id="p", header=header, body=PointBody(disks=tuple(disks), consistency="offline", firmware="bios"))
    request = AdaptRequest(point=host, targets={}, machine=Machine())
    job = Job(request, lambda event: None, host=HostTree(root), nodes=(DISK, PART, BAY), root=PART)
    links = Completed((), 0, "disk/by-path/pci-1 disk/by-id/nvme-NEW2 disk/by-id/wwn-0x2")
    with pytest.MonkeyPatch.context() as patch, use_runner(FakeRunner({("udevadm",): links})):
        patch.setattr(vms, "_PCI", devices)
        see_to_vms(job)
        see_to_vms(job)  # a second run changes nothing more
    return job


def test_names_of_devices_are_replaced_and_nothing_else(root: Path, tmp_path: Path) -> None:
    file = define(root, "web", WEB.format(""))
    job = adapted(root, devices=tmp_path / "no-pci")
    old = "/dev/disk/by-id/ata-OLD1-part2"
    assert file.read_text() == WEB.format("").replace(old, "/dev/disk/by-partuuid/p-2")
    assert job.changes == [f"VM web: {old} became /dev/disk/by-partuuid/p-2."] and not job.warnings
    assert file.with_name("web.xml.rekindle-orig").read_text() == WEB.format("")
    assert (root / "etc/libvirt/qemu/autostart/web.xml").is_symlink()


def test_a_whole_disk_gets_its_own_name_here(root: Path, tmp_path: Path) -> None:
    text = "<domain><name>nas</name><devices><disk><source dev='/dev/disk/by-id/ata-OLD2'/></disk></devices></domain>"
    file = define(root, "nas", text)
    adapted(root, devices=tmp_path / "no-pci")
    assert "dev='/dev/disk/by-id/nvme-NEW2'" in file.read_text()


def test_a_vm_with_a_disk_that_is_not_here_is_not_started_by_itself(root: Path, tmp_path: Path) -> None:
    text = "<domain><name>nas</name><devices><disk><source dev='/dev/sdx'/></disk></devices></domain>"
    file = define(root, "nas", text)
    job = adapted(root, devices=tmp_path / "no-pci")
    assert file.read_text() == text
    link = root / "etc/libvirt/qemu/autostart/nas.xml"
    assert not link.is_symlink() and link.with_name("nas.xml.rekindle-orig").is_symlink()
    assert "/dev/sdx is on none of the restored disks" in job.warnings[0] and "virsh edit nas" in job.warnings[0]
    assert "not started with the host any more" in job.warnings[1] and "another disk's" in job.warnings[1]
    assert len(job.warnings) == 2


def test_a_vm_takes_no_device_of_this_machine_away_from_the_host(root: Path, tmp_path: Path) -> None:
    file = define(root, "gpu", WEB.format(HANDED))
    bus = tmp_path / "pci"
    (bus / "0000:03:00.0").mkdir(parents=True)
    job = adapted(root, devices=bus)
    assert not (root / "etc/libvirt/qemu/autostart/gpu.xml").is_symlink()
    assert "PCI 0000:03:00.0" in job.warnings[0] and file.exists()


def test_where_nothing_has_that_address_the_vm_stays_as_it_was(root: Path, tmp_path: Path) -> None:
    define(root, "gpu", WEB.format(HANDED))
    bus = tmp_path / "pci"
    (bus / "0000:00:02.0").mkdir(parents=True)
    assert not adapted(root, devices=bus).warnings
    assert (root / "etc/libvirt/qemu/autostart/gpu.xml").is_symlink()


def test_missing_files_are_told_where_one_can_look(root: Path, tmp_path: Path) -> None:
    disk = "<disk><source file='{}'/></disk>"
    gone, unseen = disk.format("/var/lib/libvirt/images/gone.raw"), disk.format("/srv/vm/data.raw")
    define(root, "web", WEB.format(gone + unseen))
    (warning,) = adapted(root, devices=tmp_path / "no-pci").warnings
    assert "gone.raw is not on the restored host" in warning


def test_a_definition_that_is_no_xml_is_told_and_left(root: Path, tmp_path: Path) -> None:
    file = define(root, "bad", "<domain")
    (warning,) = adapted(root, devices=tmp_path / "no-pci").warnings
    assert "bad" in warning and file.read_text() == "<domain"


def test_a_pools_devices_are_replaced_too(root: Path, tmp_path: Path) -> None:
    define(root, "web", WEB.format(""))
    (root / "etc/libvirt/storage").mkdir()
    pool = root / "etc/libvirt/storage/data.xml"
    pool.write_text("<pool type='fs'><source><device path='/dev/disk/by-id/ata-OLD1-part2'/></source></pool>")
    adapted(root, devices=tmp_path / "no-pci")
    assert "path='/dev/disk/by-partuuid/p-2'" in pool.read_text()


def test_a_host_without_vms(root: Path, tmp_path: Path) -> None:
    assert adapted(root, devices=tmp_path / "no-pci").warnings == []


def test_only_names_that_do_not_survive_are_replaced() -> None:
    text = "<a dev='/dev/mapper/x' file='/dev/sda' path='/dev/sdb1'/> <!-- dev=/dev/sda -->"
    assert rewrite_definition(text, lambda spec: "/dev/new", "pool p") == Rewrite(
        text.replace("/dev/sdb1", "/dev/new"), ("pool p: /dev/sdb1 became /dev/new.",)
    )
    (unresolved,) = rewrite_definition(text, lambda spec: None, "pool p").unresolved
    assert "virsh pool-edit p" in unresolved
