"""A host whose MBR became a GPT: its old PARTUUIDs are found and replaced, and GRUB is installed anew."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from recovery.adapt import rename
from recovery.adapt.devices import Node, resolve
from recovery.adapt.grub_bios import install_bios
from recovery.adapt.land import converted, landed
from recovery.adapt.model import AdaptRequest, Job
from recovery.adapt.newtable import new_table
from recovery.commands import Completed, FakeRunner, use_runner
from recovery.errors import CommandError
from recovery.format.point import Point, PointBody, PointDisk, PointHeader
from recovery.layout import Content, Landing, Partition, PartitionTable, SystemFacts
from recovery.machine.model import Disk, Machine
from recovery.machine.partuuid import gpt_guid
from recovery.plan.togpt import land_as_gpt
from recovery.units import GIB, MIB, TIB
from tests.unit.adapt.test_adapt_firmware import bios_disk, job_for, write

EXT4 = Content(kind="ext4", uuid="boot-uuid")
GUID = {number: gpt_guid("deadbeef", number, "disk1 ") for number in (1, 5, 6)}
NODES = (
    Node("/dev/sda1", "part", 1, "disk1", 1, "ext4", "boot-uuid", part_uuid=GUID[1]),
    Node("/dev/sda5", "part", 1, "disk1", 5, "ext4", "root-uuid", part_uuid=GUID[5]),
    Node("/dev/sda6", "part", 1, "disk1", 6, "crypto_LUKS", "", part_uuid=GUID[6]),
)
FILES = {
    "etc/fstab": "PARTUUID=deadbeef-05 / ext4 defaults 0 1\n"
    "/dev/disk/by-partuuid/DEADBEEF-01 /boot ext4 defaults 0 2\n"
    "UUID=data-uuid /srv ext4 defaults 0 2\n/dev/sda5 /again ext4 ro 0 0\nPARTUUID=0badcafe-01 /x ext4 ro 0 0\n",
    "etc/crypttab": "swap PARTUUID=deadbeef-06 /dev/urandom swap\n",
    "etc/default/grub": 'GRUB_CMDLINE_LINUX="root=PARTUUID=deadbeef-05 resume=PARTUUID=deadbeef-06 quiet"\n',
    "etc/initramfs-tools/conf.d/resume": "RESUME=PARTUUID=deadbeef-01\n",
}


def source(name: str = "disk1") -> PointDisk:
    parts = (
        Partition(number=1, start=MIB, size=GIB, type="83", flags=("boot",), uuid="deadbeef-01", content=EXT4),
        Partition(number=2, start=MIB + GIB, size=9 * GIB, type="05", uuid="deadbeef-02"),
        Partition(number=5, start=2 * MIB + GIB, size=8 * GIB, type="83", uuid="deadbeef-05", content=EXT4),
    )
    table = PartitionTable(kind="mbr", uuid="deadbeef", partitions=parts)
    return PointDisk(name=name, size=11 * GIB, sector_size=512, chunk_size=1, root="", table=table)


def landing(name: str = "disk1") -> Landing:
    found = land_as_gpt(source(name), Disk(id="x", path="/dev/sda", size=3 * TIB))
    assert isinstance(found, Landing)
    return found


def asked(*paths: str) -> AdaptRequest:
    names = [f"disk{n}" for n in range(1, len(paths) + 1)]
    point = Point(
        id="p",
        header=PointHeader(version=1, repository="r", host="h", created=0),
        body=PointBody(
            disks=tuple(source(name) for name in names), consistency="offline", firmware="bios",
            system=SystemFacts(root="disk1:5", boot="disk1:1"),
        ),
    )  # fmt: skip
    landings = {name: landing(name) for name in names}
    targets = {name: Disk(id=name, path=path, size=3 * TIB) for name, path in zip(names, paths, strict=True)}
    return AdaptRequest(
        point=landed(point, landings), targets=targets, machine=Machine(firmware="bios"),
        to_gpt=converted(point, landings),
    )  # fmt: skip


def test_names_from_before_are_found_and_replaced(tmp_path: Path) -> None:
    write(tmp_path, FILES)
    job = host_job(tmp_path)
    assert job.request.to_gpt == ("disk1",)
    with use_runner(FakeRunner()):
        rename.rename(job)
    fstab = (tmp_path / "etc/fstab").read_text().splitlines()
    assert fstab[0] == "UUID=root-uuid / ext4 defaults 0 1"
    assert fstab[1] == "UUID=boot-uuid /boot ext4 defaults 0 2"
    assert fstab[2] == "UUID=data-uuid /srv ext4 defaults 0 2"
    assert fstab[3] == "UUID=root-uuid /again ext4 ro 0 0"
    assert fstab[4] == "PARTUUID=0badcafe-01 /x ext4 ro 0 0"  # of a disk that is none of ours
    assert (tmp_path / "etc/crypttab").read_text() == f"swap PARTUUID={GUID[6]} /dev/urandom swap\n"
    grub = (tmp_path / "etc/default/grub").read_text()
    assert grub == f'GRUB_CMDLINE_LINUX="root=UUID=root-uuid resume=PARTUUID={GUID[6]} quiet"\n'
    assert (tmp_path / "etc/initramfs-tools/conf.d/resume").read_text() == "RESUME=UUID=boot-uuid\n"
    before = len(job.changes)
    with use_runner(FakeRunner()):
        rename.rename(job)
    assert len(job.changes) == before


def host_job(root: Path) -> Job:
    job = job_for(root, asked("/dev/sda"))
    job.nodes, job.root = NODES, NODES[1]
    return job


def test_a_name_from_before_is_nothing_that_the_host_would_find() -> None:
    disks = asked("/dev/sda").point.body.disks
    assert resolve("PARTUUID=deadbeef-05", NODES, disks) == NODES[1]
    assert resolve("PARTUUID=deadbeef-05", NODES) is None
    assert resolve("PARTUUID=deadbeef-07", NODES, disks) is None


def test_a_host_that_keeps_its_mbr_keeps_its_partuuids(tmp_path: Path) -> None:
    write(tmp_path, FILES)
    job = host_job(tmp_path)
    job.nodes = tuple(
        Node(n.path, n.kind, 1, n.disk, n.number, n.content, n.uuid, part_uuid=f"deadbeef-{n.number:02x}")
        for n in NODES
    )
    with use_runner(FakeRunner()):
        rename.rename(job)
    assert (tmp_path / "etc/fstab").read_text().startswith("PARTUUID=deadbeef-05 / ")
    assert (tmp_path / "etc/crypttab").read_text() == FILES["etc/crypttab"]
    assert (tmp_path / "etc/default/grub").read_text() == FILES["etc/default/grub"]


def test_boot_code_of_an_mbr_is_left_out_and_that_of_a_gpt_stays() -> None:
    old = bytearray(64 * 1024)
    old[:446] = b"\xeb\x63GRUB".ljust(440, b"x") + b"\xef\xbe\xad\xde\0\0"
    old[450], old[510:512] = 0x83, b"\x55\xaa"
    first = new_table(landing(), 3 * TIB, bytes(old), 512)[-1].data
    assert not any(first[:440]) and first[440:444] == b"\xef\xbe\xad\xde" and first[450] == 0xEE
    old[450] = 0xEE
    assert new_table(landing(), 3 * TIB, bytes(old), 512)[-1].data[:6] == b"\xeb\x63GRUB"


def test_grub_is_installed_on_what_lost_it_and_the_disk_is_marked_active(tmp_path: Path) -> None:
    disk = bios_disk(tmp_path / "disk", gpt=True)
    job = job_for(tmp_path / "host", asked(disk))
    (tmp_path / "host/usr/lib/grub/i386-pc").mkdir(parents=True)
    write(tmp_path / "host", {"usr/sbin/grub-install": ""})
    assert job.host is not None
    fake = FakeRunner()
    with use_runner(fake):
        assert disk in install_bios(job, job.host)
    assert [call[-3:] for call in fake.calls if call[0] == "chroot"] == [
        ("/usr/sbin/grub-install", "--target=i386-pc", disk)
    ]
    assert Path(disk).read_bytes()[446] == 0x80
    broken = FakeRunner({("chroot",): Completed((), 1, "", "no"), ("grub-install",): Completed((), 1, "", "no room")})
    write(tmp_path / "host", {"boot/grub/grub.cfg": "menu"})
    with use_runner(broken), pytest.raises(CommandError, match="no room"):
        install_bios(job, job.host)


def test_a_disk_of_data_gets_no_boot_loader(tmp_path: Path) -> None:
    disks = [bios_disk(tmp_path / name, gpt=True) for name in ("one", "two")]
    request = asked(*disks)
    quiet = tuple(msgspec.structs.replace(part, flags=()) for part in request.point.disk("disk2").table.partitions)
    table = msgspec.structs.replace(request.point.disk("disk2").table, partitions=quiet)
    second = msgspec.structs.replace(request.point.disk("disk2"), table=table)
    body = msgspec.structs.replace(request.point.body, disks=(request.point.disk("disk1"), second))
    plain = msgspec.structs.replace(request, point=msgspec.structs.replace(request.point, body=body))
    (tmp_path / "host/usr/lib/grub/i386-pc").mkdir(parents=True)
    write(tmp_path / "host", {"usr/sbin/grub-install": ""})
    for given, expected in ((plain, disks[:1]), (request, disks)):
        job = job_for(tmp_path / "host", given)
        assert job.host is not None
        fake = FakeRunner()
        with use_runner(fake):
            install_bios(job, job.host)
        assert [call[-1] for call in fake.calls if call[0] == "chroot"] == expected
