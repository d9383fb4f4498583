"""Device names: which survive, what they mean on the restored disks, and how files are rewritten."""

from __future__ import annotations

import dataclasses

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recovery.adapt.devices import Node, is_unstable, partition_path, resolve, split_mapper_name
from recovery.adapt.names import (
    allow_uuid_root,
    parse_fstab,
    rewrite_crypttab,
    rewrite_fstab,
    rewrite_parameters,
    rewrite_resume,
)
from recovery.adapt.rename import stable_name
from recovery.format.point import PointDisk
from recovery.layout import Partition, PartitionTable

NODES = (
    Node("/dev/nvme0n1", "disk", 100, "disk1"),
    Node("/dev/nvme0n1p1", "part", 10, "disk1", 1, "vfat", "AB12-CD34", "EFI", "p-1", "esp", "/dev/nvme0n1"),
    Node("/dev/nvme0n1p2", "part", 80, "disk1", 2, "ext4", "root-uuid", "root disk", "p-2", "", "/dev/nvme0n1"),
    Node("/dev/nvme0n1p3", "part", 10, "disk1", 3, "swap", "swap-uuid", "", "p-3", "", "/dev/nvme0n1"),
    Node("/dev/nvme1n1", "disk", 100, "disk2"),
    Node("/dev/nvme1n1p1", "part", 90, "disk2", 1, "LVM2_member", "pv-uuid", "", "p-4", "", "/dev/nvme1n1"),
    Node("/dev/mapper/vg--a-vm--1", "lvm", 90, "disk2", 0, "xfs", "vm-uuid", "", "", "", "/dev/nvme1n1p1"),
)


def disk(name: str, device: str = "", serial: str = "", wwn: str = "") -> PointDisk:
    return PointDisk(name=name, size=1, sector_size=512, chunk_size=1, root="", device=device, serial=serial, wwn=wwn)


DISKS = (disk("disk1", "/dev/sda", "S4EVNX0M", "0x5002538e"), disk("disk2", "/dev/sdb", "WD-77"))


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        ("UUID=root-uuid", "/dev/nvme0n1p2"),
        ('UUID="root-uuid"', "/dev/nvme0n1p2"),
        ("UUID=ab12-cd34", "/dev/nvme0n1p1"),
        ("PARTUUID=P-2", "/dev/nvme0n1p2"),
        ("PARTLABEL=esp", "/dev/nvme0n1p1"),
        ("/dev/disk/by-uuid/root-uuid", "/dev/nvme0n1p2"),
        ("/dev/disk/by-label/root\\x20disk", "/dev/nvme0n1p2"),
        ("/dev/disk/by-partuuid/p-3", "/dev/nvme0n1p3"),
        ("/dev/mapper/vg--a-vm--1", "/dev/mapper/vg--a-vm--1"),
        ("/dev/vg-a/vm-1", "/dev/mapper/vg--a-vm--1"),
        ("/dev/sda2", "/dev/nvme0n1p2"),
        ("/dev/sdb1", "/dev/nvme1n1p1"),
        ("/dev/vda3", "/dev/nvme0n1p3"),
        ("/dev/nvme1n1p1", "/dev/nvme1n1p1"),
        ("/dev/sda", "/dev/nvme0n1"),
        ("/dev/disk/by-id/ata-Samsung_SSD_S4EVNX0M-part2", "/dev/nvme0n1p2"),
        ("/dev/disk/by-id/wwn-0x5002538e-part1", "/dev/nvme0n1p1"),
        ("/dev/disk/by-id/ata-WDC_WD-77-part1", "/dev/nvme1n1p1"),
    ],
)
def test_a_name_is_read_against_the_restored_disks(spec: str, path: str) -> None:
    node = resolve(spec, NODES, DISKS)
    assert node is not None and node.path == path


@pytest.mark.parametrize(
    "spec",
    ["UUID=other", "UUID=", "/dev/sdc1", "/dev/sda9", "/dev/disk/by-path/pci-0-part1", "/dev/mapper/x-y", "tmpfs"],
)
def test_what_is_not_there_is_not_guessed(spec: str) -> None:
    assert resolve(spec, NODES, DISKS) is None


def test_a_disk_that_was_never_captured_is_not_guessed() -> None:
    assert resolve("/dev/sdc2", NODES, DISKS[:1]) is None
    assert resolve("/dev/sdb1", NODES, (disk("disk1", "/dev/sda"),)) is None
    assert resolve("/dev/disk/by-id/ata-Other-part2", NODES, DISKS[:1]) is None


def test_the_only_disk_of_an_image_is_the_first_disk() -> None:
    image = (disk("disk1", "/srv/host.raw"),)
    for spec in ("/dev/sda2", "/dev/nvme0n1p2", "/dev/disk/by-id/ata-X-part2", "/dev/disk/by-path/pci-0-part2"):
        node = resolve(spec, NODES, image)
        assert node is not None and node.path == "/dev/nvme0n1p2"
    assert resolve("/dev/sdb2", NODES, image) is None


def test_a_guess_that_contradicts_the_filesystem_type_is_none() -> None:
    assert resolve("/dev/sda2", NODES, DISKS, "swap") is None
    assert resolve("/dev/sda2", NODES, DISKS, "auto") is not None


def test_a_number_that_the_captured_disk_had_not_means_no_partition_that_was_made_here() -> None:
    parts = (Partition(number=1, start=1, size=1, type="83"), Partition(number=2, start=2, size=1, type="83"))
    table = PartitionTable(kind="mbr", partitions=parts)
    image = (msgspec.structs.replace(disk("disk1", "/srv/host.raw"), table=table),)
    assert resolve("/dev/sda2", NODES, image) is not None
    assert resolve("/dev/sda3", NODES, image) is None


def test_swap_that_a_session_sleeps_in_is_swap() -> None:
    asleep = (dataclasses.replace(NODES[3], content="swsuspend"),)
    assert resolve("/dev/sda3", asleep, DISKS, "swap") == asleep[0]
    assert resolve("/dev/sda3", asleep, DISKS, "ext4") is None


def test_an_array_is_meant_rather_than_its_member() -> None:
    member = Node("/dev/sda1", "part", 1, "disk1", 1, "ext4", "u", parent="/dev/sda")
    array = Node("/dev/md0", "raid1", 1, "disk1", 0, "ext4", "u", parent="/dev/sda1")
    assert resolve("UUID=u", (member, array)) == array


@pytest.mark.parametrize("spec", ["/dev/md0", "/dev/md/0", "/dev/md/host:0", "/dev/md127"])
def test_an_array_is_found_by_the_name_in_its_members(spec: str) -> None:
    member = Node("/dev/sda1", "part", 1, "disk1", 1, "linux_raid_member", "u", "host:0")
    array = Node("/dev/md127", "raid1", 1, "disk1", 0, "ext4", "v", parent="/dev/sda1")
    assert resolve(spec, (member, array)) == array
    assert resolve("/dev/md1", (member, array)) is None


def test_names() -> None:
    assert partition_path("/dev/sda", 3) == "/dev/sda3"
    assert partition_path("/dev/nvme0n1", 3) == "/dev/nvme0n1p3"
    assert split_mapper_name("pve-vm--101--disk--0") == ("pve", "vm-101-disk-0")
    assert split_mapper_name("mpatha") is None
    assert is_unstable("/dev/sda1") and is_unstable("/dev/nvme0n1p2") and is_unstable("/dev/disk/by-path/x")
    assert not is_unstable("/dev/mapper/vg-root") and not is_unstable("UUID=x")
    assert not is_unstable("/dev/disk/by-uuid/x") and not is_unstable("/dev/sr0")


def lookup(spec: str, content: str) -> str | None:
    node = resolve(spec, NODES, DISKS, content)
    return stable_name(node) if node else None


FSTAB = """# <file system> <mount point>   <type>  <options>       <dump>  <pass>
# / was on /dev/sda2 during installation
/dev/sda2\t/               ext4    errors=remount-ro 0       1
UUID=AB12-CD34  /boot/efi       vfat    umask=0077      0       1

/dev/sda3 none swap sw 0 0
/dev/vg-a/vm-1 /srv\\040data xfs defaults 0 0
/dev/sdz1 /usb ext4 nofail 0 0
/dev/sr0 /media/cdrom0 udf,iso9660 user,noauto 0 0
"""


def test_fstab_is_rewritten_where_it_must_be_and_only_there() -> None:
    result = rewrite_fstab(FSTAB, lookup)
    assert result.text.splitlines()[2] == "UUID=root-uuid\t/               ext4    errors=remount-ro 0       1"
    changed = [a for a, b in zip(FSTAB.splitlines(), result.text.splitlines(), strict=True) if a != b]
    assert changed == [FSTAB.splitlines()[2], FSTAB.splitlines()[5]]
    assert result.changes == (
        "fstab: /dev/sda2 became UUID=root-uuid.",
        "fstab: /dev/sda3 became UUID=swap-uuid.",
    )
    assert len(result.unresolved) == 1 and "/dev/sdz1" in result.unresolved[0]


def test_mount_points_are_unescaped() -> None:
    assert [m.point for m in parse_fstab(FSTAB)][3] == "/srv data"


@given(st.text(st.sampled_from(list("/devsa12 \t#\nUID=x")), max_size=200))
def test_rewriting_twice_is_rewriting_once(text: str) -> None:
    once = rewrite_fstab(text, lookup)
    assert rewrite_fstab(once.text, lookup).text == once.text
    assert len(once.text.splitlines()) == len(text.splitlines())


def test_crypttab() -> None:
    result = rewrite_crypttab("# c\ncrypt /dev/sda2 none luks\nother UUID=x none\n", lookup)
    assert result.text == "# c\ncrypt UUID=root-uuid none luks\nother UUID=x none\n"


def test_a_physical_volume_is_named_by_its_partition() -> None:
    assert lookup("/dev/sdb1", "") == "PARTUUID=p-4"


def test_kernel_command_lines() -> None:
    text = (
        'GRUB_CMDLINE_LINUX_DEFAULT="quiet resume=/dev/sda3 splash"\n'
        "#GRUB_CMDLINE_LINUX=root=/dev/sda2\n"
        'GRUB_CMDLINE_LINUX="root=/dev/disk/by-id/ata-X_S4EVNX0M-part2 root=/dev/mapper/a-b"\n'
        "nfsroot=/dev/sda2\n"
    )
    result = rewrite_parameters(text, lookup, "grub")
    assert 'resume=UUID=swap-uuid splash"' in result.text
    assert 'LINUX="root=UUID=root-uuid root=/dev/mapper/a-b"' in result.text
    assert "#GRUB_CMDLINE_LINUX=root=/dev/sda2\n" in result.text and "nfsroot=/dev/sda2" in result.text
    assert len(result.changes) == 2


def test_resume_means_swap_or_the_filesystem_of_a_swap_file() -> None:
    found = rewrite_parameters("quiet resume=/dev/sda2 splash\n", lookup, "grub")
    assert found.text == "quiet splash\n" and "was taken out" in found.changes[0]
    of_file = rewrite_parameters("resume=/dev/sda2 resume_offset=34816\n", lookup, "grub")
    assert of_file.text == "resume=UUID=root-uuid resume_offset=34816\n"


def test_resume_is_never_waited_for() -> None:
    assert rewrite_resume("RESUME=/dev/sda3\n", lookup).text == "RESUME=UUID=swap-uuid\n"
    assert rewrite_resume("RESUME=/dev/sdz3\n", lookup).text == "RESUME=none\n"
    assert rewrite_resume("RESUME=UUID=x\n", lookup).changes == ()


def test_grub_may_use_uuids_again() -> None:
    assert allow_uuid_root("GRUB_DISABLE_LINUX_UUID=true\n").text == "#GRUB_DISABLE_LINUX_UUID=true\n"
    assert allow_uuid_root("#GRUB_DISABLE_LINUX_UUID=true\n").changes == ()
