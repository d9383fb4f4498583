"""VMs of a restored host: device names in their definitions, missing disks, and who starts by itself."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import msgspec
import pytest

from recovery.adapt import vms
from recovery.adapt.devices import Node
from recovery.adapt.host import HostTree
from recovery.adapt.model import AdaptRequest, Job
from recovery.adapt.names import Rewrite
from recovery.adapt.vms import Lost, rewrite_definition, see_to_vms
from recovery.commands import Completed, FakeRunner, use_runner
from recovery.domain import parse, pci_addresses
from recovery.format.point import Point, PointBody, PointDisk, PointHeader
from recovery.machine.model import Disk, Machine, Nic
from recovery.machine.partuuid import gpt_guid

SYSTEM = Node("/dev/nvme0n1", "disk", 100, "disk1")
ROOT = Node("/dev/nvme0n1p1", "part", 80, "disk1", 1, "ext4", "root-uuid", parent="/dev/nvme0n1", part_uuid="p-1")
DATA = Node("/dev/nvme1n1", "disk", 100, "disk2")
PART = Node("/dev/nvme1n1p2", "part", 80, "disk2", 2, "ntfs", part_uuid="p-2", parent="/dev/nvme1n1")
DISKS = tuple(
    PointDisk(name=f"disk{n}", size=1, sector_size=512, chunk_size=1, root="", serial=f"OLD{n}", device=f"/dev/sd{x}")
    for n, x in ((1, "a"), (2, "b"))
)
LINKS = "disk/by-path/pci-1 disk/by-id/nvme-NEW2 disk/by-id/wwn-0x2"
WEB = """<domain type='kvm'><name>web</name><devices>
<disk type='block'><source dev='/dev/disk/by-id/ata-OLD2-part2'/><target dev='vda'/></disk>
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


def adapted(
    root: Path, sysfs: Path, *, disks: tuple[PointDisk, ...] = DISKS, here: tuple[str, ...] = (), links: str = LINKS,
    point: str = "p", part: Node = PART,
) -> Job:  # fmt: skip
    """The job after the step ran twice on a machine with this ``sysfs``; ``here``: names of devices that exist."""
    header = PointHeader(version=1, repository="r", host="h", created=0)
    host = Point(id=point, header=header, body=PointBody(disks=disks, consistency="offline", firmware="bios"))
    nic = Nic(name="enp5s0", mac="52:54:00:00:00:01", slot="0000:05:00.0")
    target = Disk(id="x", path="/dev/nvme0n1", size=1)
    request = AdaptRequest(point=host, targets={"disk1": target}, machine=Machine(nics=(nic,)))
    job = Job(request, lambda event: None, host=HostTree(root), nodes=(SYSTEM, ROOT, DATA, part), root=ROOT)
    known = Completed((), 0, links)
    with pytest.MonkeyPatch.context() as patch, use_runner(FakeRunner({("udevadm",): known})):
        patch.setattr(vms, "_SYS", sysfs)
        patch.setattr(vms, "_is_here", lambda name: name in {*here, "/dev/disk/by-id/nvme-NEW2"})
        see_to_vms(job)
        told = (list(job.changes), list(job.warnings))
        see_to_vms(job)
    assert (job.changes, job.warnings) == told, "a second run says or does more"
    return job


def disk_of(name: str, dev: str, more: str = "") -> str:
    disk = f"<disk><source dev='{dev}'/></disk>"
    return f"<domain><name>{name}</name><uuid>u-{name}</uuid><devices>{disk}{more}</devices></domain>"


def starts(root: Path, name: str) -> bool:
    return (root / f"etc/libvirt/qemu/autostart/{name}.xml").is_symlink()


def test_names_of_devices_are_replaced_and_nothing_else(root: Path, tmp_path: Path) -> None:
    file = define(root, "web", WEB.format(""))
    job = adapted(root, tmp_path)
    old = "/dev/disk/by-id/ata-OLD2-part2"
    assert file.read_text() == WEB.format("").replace(old, "/dev/disk/by-partuuid/p-2")
    assert job.changes == [f"VM web: {old} became /dev/disk/by-partuuid/p-2."] and not job.warnings
    assert file.with_name("web.xml.rekindle-orig").read_text() == WEB.format("")
    assert starts(root, "web")


@pytest.mark.parametrize("old", ["/dev/disk/by-id/ata-OLD2", "/dev/sdb"])
def test_a_whole_disk_gets_its_own_name_here(root: Path, tmp_path: Path, old: str) -> None:
    file = define(root, "nas", disk_of("nas", old))
    assert not adapted(root, tmp_path).warnings
    assert file.read_text() == disk_of("nas", "/dev/disk/by-id/nvme-NEW2") and starts(root, "nas")


@pytest.mark.parametrize(
    "name", ["/dev/disk/by-path/pci-0000:00:1f.2-ata-2", "/dev/sdc", "/dev/sda", "/dev/sda1", "/dev/nvme0n1"]
)
def test_no_vm_gets_what_the_host_lies_on_and_a_name_that_may_be_another_disks_keeps_it_off(
    root: Path, tmp_path: Path, name: str
) -> None:
    """Not by a guess either: the only disk of a point is the host's own."""
    file = define(root, "nas", disk_of("nas", name))
    job = adapted(root, tmp_path, disks=DISKS[:1])
    assert file.read_text() == disk_of("nas", name) and not job.changes
    assert not starts(root, "nas") and "virsh edit nas" in job.warnings[0] and len(job.warnings) == 2
    assert "not started with the host any more" in job.warnings[1] and "another one's" in job.warnings[1]


def test_an_image_without_a_serial_is_no_reason_to_guess(root: Path, tmp_path: Path) -> None:
    plain = (msgspec.structs.replace(DISKS[0], serial="", device="/srv/host.raw"),)
    define(root, "nas", disk_of("nas", "/dev/disk/by-id/dm-name-vg0-web"))
    job = adapted(root, tmp_path, disks=plain)
    assert not job.changes and len(job.warnings) == 1 and starts(root, "nas")


def test_a_name_that_is_true_here_stays_and_one_that_names_nothing_is_only_told(root: Path, tmp_path: Path) -> None:
    san, gone = "/dev/disk/by-id/wwn-0x6001405aaaa", "/dev/disk/by-id/usb-BACKUP"
    define(root, "san", disk_of("san", san))
    define(root, "usb", disk_of("usb", gone))
    (warning,) = adapted(root, tmp_path, here=(san,)).warnings
    assert gone in warning and "is on none of the restored disks" in warning
    assert starts(root, "san") and starts(root, "usb")


def test_a_partition_by_its_guid_stays_also_where_its_disk_was_not_restored(root: Path, tmp_path: Path) -> None:
    define(root, "nas", disk_of("nas", "/dev/disk/by-partuuid/other-guid"))
    job = adapted(root, tmp_path)
    assert not job.warnings and not job.changes and starts(root, "nas")


def test_a_name_from_before_the_gpt_is_replaced(root: Path, tmp_path: Path) -> None:
    guid = gpt_guid("1234abcd", 2, "x")
    file = define(root, "nas", disk_of("nas", "/dev/disk/by-partuuid/1234abcd-02"))
    part = dataclasses.replace(PART, part_uuid=guid)
    adapted(root, tmp_path, part=part)
    assert f"/dev/disk/by-partuuid/{guid}" in file.read_text()


def test_a_restored_disk_without_a_lasting_name_is_told_as_such(root: Path, tmp_path: Path) -> None:
    define(root, "nas", disk_of("nas", "/dev/disk/by-id/ata-OLD2"))
    (warning,) = adapted(root, tmp_path, links="disk/by-path/x").warnings
    assert "is /dev/nvme1n1 here, which has no lasting name" in warning and starts(root, "nas")


def test_a_repair_changes_nothing(root: Path, tmp_path: Path) -> None:
    file = define(root, "nas", disk_of("nas", "/dev/sdx", HANDED))
    job = adapted(root, pci(tmp_path), point="")
    assert not job.warnings and file.read_text() == disk_of("nas", "/dev/sdx", HANDED) and starts(root, "nas")


def pci(tmp_path: Path, *, disk: bool = False) -> Path:
    """A machine with something at 0000:03:00.0, to which its system disk is attached or not."""
    device = tmp_path / "sys/bus/pci/devices/0000:03:00.0"
    device.mkdir(parents=True)
    real = tmp_path / f"sys/devices/pci0000:00/0000:0{3 if disk else 1}:00.0/nvme/nvme0/nvme0n1"
    real.mkdir(parents=True)
    (tmp_path / "sys/class/block").mkdir(parents=True)
    (tmp_path / "sys/class/block/nvme0n1").symlink_to(real)
    return tmp_path / "sys"


NVME = "<disk type='nvme' device='disk'><source type='pci' managed='yes' namespace='1'>{}</source></disk>"
AT = "<address domain='0x0000' bus='0x03' slot='0x00' function='0x0'/>"


@pytest.mark.parametrize("body", [HANDED, NVME.format(AT)])
def test_a_vm_takes_the_controller_of_the_hosts_disk_from_nobody(root: Path, tmp_path: Path, body: str) -> None:
    define(root, "gpu", WEB.format(body))
    job = adapted(root, pci(tmp_path, disk=True))
    assert not starts(root, "gpu") and "controller of the host's own disk /dev/nvme0n1" in job.warnings[0]


def test_a_device_that_the_host_does_not_need_is_the_vms(root: Path, tmp_path: Path) -> None:
    define(root, "gpu", WEB.format(HANDED))
    assert not adapted(root, pci(tmp_path)).warnings and starts(root, "gpu")


@pytest.mark.parametrize("by", ["interface", "network"])
def test_a_vm_takes_the_hosts_network_card_from_nobody(root: Path, tmp_path: Path, by: str) -> None:
    place = "<address type='pci' domain='0' bus='05' slot='0' function='0'/>"
    card = f"<interface type='hostdev'><source>{place}</source></interface>"
    if by == "network":
        card = "<interface type='network'><source network='sriov'/></interface>"
        network = f"<network><name>sriov</name><forward mode='hostdev'>{place}</forward></network>"
        (root / "etc/libvirt/qemu/networks").mkdir()
        (root / "etc/libvirt/qemu/networks/sriov.xml").write_text(network)
    define(root, "fw", WEB.format(card))
    (root / "etc/systemd/network").mkdir(parents=True)
    link = root / "etc/systemd/network/10-rekindle-eno1.link"
    (tmp_path / "sys/bus/pci/devices/0000:05:00.0").mkdir(parents=True)
    link.write_text("[Match]\nPermanentMACAddress=52:54:00:00:00:99\n")
    assert not adapted(root, tmp_path / "sys").warnings and starts(root, "fw")
    link.write_text("[Match]\nPermanentMACAddress=52:54:00:00:00:01\n")
    assert "network card that the host itself uses" in adapted(root, tmp_path / "sys").warnings[0]
    assert not starts(root, "fw")


def test_what_a_person_switched_on_again_stays_on(root: Path, tmp_path: Path) -> None:
    define(root, "nas", disk_of("nas", "/dev/sdx"))
    adapted(root, tmp_path)
    (root / "etc/libvirt/qemu/autostart/nas.xml").symlink_to("/etc/libvirt/qemu/nas.xml")
    adapted(root, tmp_path)
    assert starts(root, "nas")


def test_a_vm_that_ran_is_not_started_by_libvirt_guests_either(root: Path, tmp_path: Path) -> None:
    define(root, "nas", disk_of("nas", "/dev/sdx"))
    ran = root / "var/lib/libvirt/libvirt-guests"
    ran.write_text("default u-web u-nas u-db\n")
    adapted(root, tmp_path)
    assert ran.read_text() == "default u-web u-db\n"


def test_a_scsi_device_by_its_place_may_be_this_machines_own(root: Path, tmp_path: Path) -> None:
    given = (
        "<hostdev mode='subsystem' type='scsi'><source><adapter name='scsi_host0'/>"
        "<address bus='0' target='0' unit='0'/></source></hostdev>"
    )
    define(root, "tape", WEB.format(given))
    (tmp_path / "sys/class/scsi_device/0:0:0:0").mkdir(parents=True)
    assert "SCSI 0:0:0:0" in adapted(root, tmp_path / "sys").warnings[0] and not starts(root, "tape")


def test_missing_files_are_told_where_one_can_look(root: Path, tmp_path: Path) -> None:
    disk = "<disk><source file='{}'/></disk>"
    gone, unseen = disk.format("/var/lib/libvirt/images/gone.raw"), disk.format("/srv/vm/data.raw")
    (root / "var/lib/libvirt/pool").symlink_to("/srv/images")  # its filesystem is not mounted now
    (root / "srv/images").mkdir()
    linked = disk.format("/var/lib/libvirt/pool/a.raw")
    cd = "<disk device='cdrom'><source file='/var/lib/libvirt/images/no.iso'/></disk>"
    define(root, "web", WEB.format(gone + unseen + linked + cd))
    (warning,) = adapted(root, tmp_path).warnings
    assert "gone.raw is not in its folder" in warning


def test_a_managed_save_is_told(root: Path, tmp_path: Path) -> None:
    define(root, "web", WEB.format(""))
    (root / "var/lib/libvirt/qemu/save").mkdir(parents=True)
    (root / "var/lib/libvirt/qemu/save/web.save").touch()
    assert "managedsave-remove web" in adapted(root, tmp_path).warnings[0]


def test_what_goes_wrong_with_a_vm_is_a_warning_and_the_next_one_is_seen_to(root: Path, tmp_path: Path) -> None:
    bad = define(root, "bad", "<domain")
    loop = root / "var/lib/libvirt/loop"
    loop.symlink_to("loop")
    define(root, "circle", WEB.format("<disk><source file='/var/lib/libvirt/loop/x.raw'/></disk>"))
    define(root, "long", WEB.format(f"<disk><source file='/var/{'x' * 300}/x.raw'/></disk>"))
    good = define(root, "nas", disk_of("nas", "/dev/sdb"))
    job = adapted(root, tmp_path)
    assert "VM bad was not seen to: its definition is no XML" in job.warnings[0] and bad.read_text() == "<domain"
    assert any("circle" in warning for warning in job.warnings)
    assert "nvme-NEW2" in good.read_text()


def test_a_pools_devices_are_replaced_too(root: Path, tmp_path: Path) -> None:
    define(root, "web", WEB.format(""))
    (root / "etc/libvirt/storage").mkdir()
    pool = root / "etc/libvirt/storage/data.xml"
    pool.write_text("<pool type='fs'><source><device path='/dev/disk/by-id/ata-OLD2-part2'/></source></pool>")
    adapted(root, tmp_path)
    assert "path='/dev/disk/by-partuuid/p-2'" in pool.read_text()


def test_a_host_without_vms(root: Path, tmp_path: Path) -> None:
    assert adapted(root, tmp_path).warnings == []


def test_only_names_of_devices_are_asked_for() -> None:
    text = "<a dev='/dev/mapper/x' file='/dev/sda' path='/dev/sdb1'/> <!-- dev=/dev/sda --><b dev='eno1'/>"
    asked: list[str] = []

    def find(spec: str) -> str:
        asked.append(spec)
        return "/dev/new" if spec == "/dev/sdb1" else spec

    found, mistaken = rewrite_definition(text, find, "pool p")
    assert found == Rewrite(text.replace("/dev/sdb1", "/dev/new"), ("pool p: /dev/sdb1 became /dev/new.",))
    assert asked == ["/dev/mapper/x", "/dev/sda", "/dev/sdb1"] and not mistaken
    found, mistaken = rewrite_definition(text, lambda spec: Lost("is gone", True), "pool p")
    assert mistaken and "virsh pool-edit p" in found.unresolved[0]


@pytest.mark.parametrize(
    ("bus", "place"),
    [
        ("0x03", "0000:03:00.0"), ("3", "0000:03:00.0"), ("010", "0000:08:00.0"), ("03", "0000:03:00.0"),
        ("09", ""), ("9" * 5000, ""), ("x", ""),
    ],
)  # fmt: skip
def test_addresses_are_read_as_libvirt_reads_them(bus: str, place: str) -> None:
    text = f"<domain><devices><hostdev type='pci'><source><address bus='{bus}'/></source></hostdev></devices></domain>"
    assert pci_addresses(parse(text)) == ([place] if place else [])
