"""What is read from text: networks, VM definitions, fstab, firmware evidence, mounts, blkid, md superblocks."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recovery.capture.busy import parse_mountinfo
from recovery.capture.content import parse_blkid
from recovery.capture.firmware import Evidence, decide, has_boot_code
from recovery.capture.md import parse_superblock, read_member
from recovery.capture.network import read_network
from recovery.capture.ranges import Extent
from recovery.capture.system import parse_fstab, parse_os_release, rank_as_root
from recovery.capture.tree import Tree
from recovery.capture.vms import parse_domain, read_vms, virtual_size
from recovery.capture.volumes import Volume, find_volume
from recovery.capture.yamlsubset import parse_yaml
from recovery.layout import Content


def tree(root: Path, files: dict[str, str]) -> Tree:
    for name, text in files.items():
        path = root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Tree({"/": root})


def networks(root: Path, files: dict[str, str]) -> dict[str, tuple[str, tuple[str, ...], bool]]:
    return {item.interface: (item.mac, item.addresses, item.dhcp) for item in read_network(tree(root, files))}


def test_ifupdown_with_bridge_source_and_second_address(tmp_path: Path) -> None:
    found = networks(
        tmp_path,
        {
            "/etc/network/interfaces": "source interfaces.d/*.cfg\nauto lo eth0\niface lo inet loopback\n"
            "iface eth0 inet dhcp\n# iface no inet static\n",
            "/etc/network/interfaces.d/br.cfg": "iface br0 inet static\n address 10.0.0.5\n netmask 255.255.254.0\n"
            " hwaddress ether AA:BB:cc:00:11:22\n bridge_ports eth1\n"
            "iface br0 inet6 static\n address 2001:db8::5/64\n",
            "/etc/network/interfaces.d/ignored": "iface bad inet static\n address 1.1.1.1/8\n",
        },
    )
    assert found == {
        "eth0": ("", (), True),
        "br0": ("aa:bb:cc:00:11:22", ("10.0.0.5/23", "2001:db8::5/64"), False),
    }


def test_networkd(tmp_path: Path) -> None:
    found = networks(
        tmp_path,
        {
            "/etc/systemd/network/10-lan.network": "[Match]\nName=enp1s0\n[Network]\nBridge=br0\n",
            "/etc/systemd/network/20-br.network": "[Match]\nName=br0\n[Network]\nAddress=10.1.0.2/16\nDHCP=no\n"
            "[Address]\nAddress=10.1.0.3/16\n",
            "/etc/systemd/network/30-mac.network": "[Match]\nMACAddress=AA:00:00:00:00:01\n[Network]\nDHCP=yes\n",
        },
    )
    assert found == {
        "enp1s0": ("", (), False),
        "br0": ("", ("10.1.0.2/16", "10.1.0.3/16"), False),
        "aa:00:00:00:00:01": ("aa:00:00:00:00:01", (), True),
    }


def test_netplan(tmp_path: Path) -> None:
    text = """
# comment
network:
  version: 2
  ethernets:
    lan:
      match: {macaddress: "52:54:00:AA:bb:cc"}
      set-name: lan
      dhcp4: true
    enp2s0: {}
  bridges:
    br0:
      interfaces: [enp2s0]
      addresses:
        - 192.0.2.7/24   # main
        - "2001:db8::7/64":
            label: x
      routes:
      - to: default
        via: 192.0.2.1
      dhcp4: no
"""
    assert networks(tmp_path, {"/etc/netplan/01.yaml": text}) == {
        "lan": ("52:54:00:aa:bb:cc", (), True),
        "enp2s0": ("", (), False),
        "br0": ("", ("192.0.2.7/24", "2001:db8::7/64"), False),
    }


@given(st.text(st.sampled_from("ab:-[]{}\"'# \n,"), max_size=80))
def test_odd_yaml_never_raises_or_hangs(text: str) -> None:
    parse_yaml(text)


def test_network_manager(tmp_path: Path) -> None:
    folder = "/etc/NetworkManager/system-connections"
    found = networks(
        tmp_path,
        {
            f"{folder}/br.nmconnection": "[connection]\nid=bridge\ninterface-name=br0\ntype=bridge\n"
            "[ipv4]\naddress1=10.2.0.9/24,10.2.0.1\nmethod=manual\n[ethernet]\nmac-address=AA:00:00:00:00:02\n",
            f"{folder}/auto.nmconnection": "[connection]\nid=wired\n[ipv4]\nmethod=auto\n",
            f"{folder}/broken": "no section",
        },
    )
    assert found == {"br0": ("aa:00:00:00:00:02", ("10.2.0.9/24",), False), "wired": ("", (), True)}


def test_links_never_leave_the_captured_tree(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "usr").mkdir()
    (root / "usr/real").write_text("inside")
    (root / "etc/absolute").symlink_to("/usr/real")
    (root / "etc/escape").symlink_to("../../../../../../../etc/passwd")
    (root / "etc/loop").symlink_to("loop")
    (root / "lib").symlink_to("usr")
    here = Tree({"/": root})
    assert here.text("/etc/absolute") == here.text("/lib/real") == here.text("/etc/../lib/real") == "inside"
    assert here.text("/etc/escape") == here.text("/etc/loop") == here.text("/etc/missing") == ""
    (root / "etc/passwd").write_text("theirs")
    assert here.text("/etc/escape") == "theirs"


def test_a_path_is_found_on_the_filesystem_mounted_there(tmp_path: Path) -> None:
    (tmp_path / "root/var/lib").mkdir(parents=True)
    (tmp_path / "data/images").mkdir(parents=True)
    (tmp_path / "data/images/a.raw").write_bytes(b"1234")
    (tmp_path / "root/vms").symlink_to("/var/lib/images")
    (tmp_path / "root/var/lib/libvirt").mkdir()
    here = Tree({"/": tmp_path / "root", "/var/lib": tmp_path / "data"})
    found = here.locate("/vms/a.raw")
    assert found is not None
    assert (found.mount, found.path) == ("/var/lib", "/var/lib/images/a.raw")
    assert here.size("/vms/a.raw") == 4
    assert here.names("/var/lib") == ["images"]


DOMAIN = """<domain type='kvm'><name>web 1</name><uuid>u</uuid><memory unit='GiB'>2</memory>
<currentMemory>1</currentMemory><vcpu placement='static'>4</vcpu><devices>
<disk type='file' device='disk'><driver name='qemu' type='qcow2'/>
<source file='/img/a.qcow2'/><target dev='vda'/></disk>
<disk type='block' device='disk'><source dev='/dev/vg-a/lv-1'/><target dev='vdb'/></disk>
<disk type='volume' device='disk'><source pool='fast' volume='b.raw'/><target dev='vdc'/></disk>
<disk type='network' device='disk'><source protocol='rbd' name='pool/img'/><target dev='vdd'/></disk>
<disk type='file' device='cdrom'><source file='/x.iso'/><target dev='sda'/></disk></devices></domain>"""


def test_a_domain_and_where_its_disks_lie(tmp_path: Path) -> None:
    here = tree(
        tmp_path,
        {
            "/etc/libvirt/qemu/web.xml": DOMAIN,
            "/etc/libvirt/qemu/bad.xml": "<domain><name>",
            "/etc/libvirt/qemu/networks/default.xml": "<network/>",
            "/etc/libvirt/storage/fast.xml": "<pool><target><path>/img/fast</path></target></pool>",
        },
    )
    asked: list[tuple[str, str]] = []

    def find(source: str, driver: str) -> tuple[str, int | None]:
        asked.append((source, driver))
        return "vg/lv", 7

    vms, problems = read_vms(here, find)
    assert [(vm.name, vm.memory, vm.vcpus, vm.autostart, vm.state) for vm in vms] == [
        ("web 1", 2 * 1024**3, 4, False, "unknown")
    ]
    assert asked == [
        ("/img/a.qcow2", "qcow2"), ("/dev/vg-a/lv-1", "raw"), ("/img/fast/b.raw", "raw"), ("rbd:pool/img", "raw"),
    ]  # fmt: skip
    assert vms[0].disks[0].on == "vg/lv"
    assert vms[0].definition == DOMAIN
    assert "bad.xml" in problems[0]


def test_the_size_of_a_qcow2_is_the_one_in_its_header(tmp_path: Path) -> None:
    here = Tree({"/": tmp_path})
    (tmp_path / "a").write_bytes(b"QFI\xfb" + bytes(20) + struct.pack(">Q", 5 << 30))
    assert virtual_size(here, "/a", "qcow2") == 5 << 30
    assert virtual_size(here, "/a", "raw") == 32
    assert virtual_size(here, "/a", "vdi") is None


@pytest.mark.parametrize("text", ["", "<a/>", "<domain/>", "not xml", "<domain><name></name></domain>"])
def test_what_is_no_domain_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="."):
        parse_domain(text)


VOLUMES = [
    Volume("disk1:1", 1, (), Content(kind="vfat", uuid="ABCD-1234"), "p-1", "EFI"),
    Volume("disk1:2", 1, (), Content(kind="ext4", uuid="u-2", label="boot"), "p-2"),
    Volume("disk2:1", 1, (), Content(kind="xfs", uuid="u-3"), "p-3"),
    Volume("vg-0/my-root", 1, (), Content(kind="ext4", uuid="u-4")),
]


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("UUID=u-2", "disk1:2"),
        ('UUID="abcd-1234"', "disk1:1"),
        ("LABEL=boot", "disk1:2"),
        ("PARTUUID=P-3", "disk2:1"),
        ("PARTLABEL=EFI", "disk1:1"),
        ("/dev/disk/by-uuid/u-4", "vg-0/my-root"),
        ("/dev/vg-0/my-root", "vg-0/my-root"),
        ("/dev/mapper/vg--0-my--root", "vg-0/my-root"),
        ("/dev/vda2", "disk1:2"),
        ("/dev/nvme0n1p2", "disk1:2"),
        ("/dev/sda1", None),
        ("UUID=", None),
        ("tmpfs", None),
    ],
)
def test_fstab_names_a_volume(spec: str, name: str | None) -> None:
    found = find_volume(spec, VOLUMES)
    assert (found.name if found else None) == name


def test_fstab_and_os_release() -> None:
    lines = parse_fstab("# x\nUUID=1 / btrfs rw,subvol=/@ 0 0\n\nnone /a\\040b tmpfs\nshort\n")
    assert [(line.spec, line.point, line.subvolume) for line in lines] == [("UUID=1", "/", "@"), ("none", "/a b", "")]
    assert parse_os_release('ID=debian\nPRETTY_NAME="Debian 12"\n# c\n') == {
        "ID": "debian",
        "PRETTY_NAME": "Debian 12",
    }


def test_the_hosts_root_outranks_the_root_of_a_vm(tmp_path: Path) -> None:
    host = tree(tmp_path / "a", {"/etc/os-release": "ID=debian", "/etc/fstab": "/dev/vg-0/my-root / ext4\n"})
    vm = tree(tmp_path / "b", {"/etc/os-release": "ID=x", "/etc/fstab": "UUID=u-9 / ext4\n", "/boot/vmlinuz-1": ""})
    none = tree(tmp_path / "c", {"/etc/fstab": "x / ext4\n"})
    ranks = [rank_as_root(host, VOLUMES[3], VOLUMES), rank_as_root(vm, VOLUMES[2], VOLUMES)]
    assert ranks[0] > ranks[1] > 0
    assert rank_as_root(none, VOLUMES[1], VOLUMES) == 0


EFI = ["/EFI/DEBIAN/SHIMX64.EFI"]


@pytest.mark.parametrize(
    ("evidence", "firmware", "secure"),
    [
        (Evidence(), "unknown", False),
        (Evidence(esp_files=["/README"]), "unknown", False),
        (Evidence(esp_files=EFI), "uefi", True),
        (Evidence(esp_files=["/EFI/BOOT/BOOTX64.EFI"]), "uefi", False),
        (Evidence(mbr_boot_code=True), "bios", False),
        (Evidence(mbr_boot_code=True, esp_files=EFI, esp_in_fstab=True, grub_platforms=["x86_64-efi"]), "uefi", True),
        (Evidence(mbr_boot_code=True, esp_files=EFI, grub_platforms=["i386-pc"]), "bios", True),
        (Evidence(mbr_boot_code=True, esp_files=EFI, grub_platforms=["x86_64-efi"]), "uefi", True),
        (Evidence(mbr_boot_code=True, esp_files=EFI, bios_boot_partition=True), "bios", True),
        (Evidence(mbr_boot_code=True, esp_files=EFI), "uefi", True),
    ],
)
def test_firmware_is_decided_and_explained(evidence: Evidence, firmware: str, secure: bool) -> None:
    decision = decide(evidence)
    assert (decision.firmware, decision.secure_boot) == (firmware, secure)
    assert decision.why
    both = evidence.mbr_boot_code and bool(evidence.esp_files)
    assert bool(decision.notes) == both


def test_boot_code() -> None:
    assert has_boot_code((b"\xeb\x63\x90GRUB ".ljust(510, b"\0")) + b"\x55\xaa")
    assert not has_boot_code(bytes(510) + b"\x55\xaa")
    assert not has_boot_code(b"\xeb\x58\x90 This is not a bootable disk.".ljust(510, b"\0") + b"\x55\xaa")
    assert not has_boot_code(b"\xeb".ljust(512, b"\0"))
    assert not has_boot_code(b"")


def test_mountinfo() -> None:
    text = (
        "22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw,errors=remount-ro\n"
        "30 22 0:40 /@ /mnt/a\\040b rw - btrfs /dev/vdb ro,space_cache\n"
        "31 22 7:0 / /mnt/ro ro - ext4 /dev/loop0 rw\nrubbish\n"
    )
    mounts = parse_mountinfo(text)
    assert [(mount.device, mount.point, mount.read_only) for mount in mounts] == [
        ("254:1", "/", False),
        ("0:40", "/mnt/a b", True),
        # A read-only bind of a filesystem that is writable elsewhere.
        ("7:0", "/mnt/ro", False),
    ]


def test_blkid() -> None:
    text = "DEVNAME=/x\nLABEL=my\\ root\nUUID=1-2\nBLOCK_SIZE=4096\nTYPE=ext4\nUSAGE=filesystem\n"
    assert parse_blkid(text) == Content(kind="ext4", uuid="1-2", label="my root", block_size=4096)
    assert parse_blkid("PTTYPE=gpt\n") == Content()


def superblock() -> bytes:
    block = struct.pack("<IIII", 0xA92B4EFC, 1, 0, 0) + bytes(range(16)) + b"host:0".ljust(32, b"\0")
    return (block + struct.pack("<QiIQII", 0, 1, 0, 2048, 0, 2)).ljust(256, b"\0")


@pytest.mark.parametrize("offset", [0, 4096, 1024 * 1024 - 8192])
def test_an_md_member_of_each_version(tmp_path: Path, offset: int) -> None:
    data = bytearray(1024 * 1024)
    data[offset : offset + 256] = superblock()
    (tmp_path / "member").write_bytes(data)
    member = read_member("disk1:2", [Extent(tmp_path / "member", 0, len(data))])
    assert member is not None
    array = member.array
    assert (array.uuid, array.level, array.name, array.devices) == (
        "00010203:04050607:08090a0b:0c0d0e0f", "raid1", "host:0", 2,
    )  # fmt: skip
    assert parse_superblock(bytes(256)) is None
