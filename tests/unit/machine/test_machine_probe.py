"""The probe against what lsblk, sfdisk, blkid, LVM and sysfs say on machines of different kinds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from recovery.commands import Completed, FakeRunner, use_runner
from recovery.errors import CommandError
from recovery.machine.identity import bus_of, disk_id, normal_wwn
from recovery.machine.model import Machine, load_machine
from recovery.machine.probe import probe_machine
from recovery.machine.probe_disks import partition_path

GIB = 1 << 30
Answers = dict[tuple[str, ...], Completed]


def node(
    name: str, kind: str = "disk", size: int = 20 * GIB, *children: dict[str, Any], **facts: Any
) -> dict[str, Any]:
    """A node of lsblk's tree with the columns that matter."""
    mounts = facts.pop("mountpoints", [None])
    base = {"name": name, "path": f"/dev/{name}", "type": kind, "size": size, "log-sec": 512, "phy-sec": 512}
    return {**base, "mountpoints": mounts, **({"children": list(children)} if children else {}), **facts}


def lsblk(*nodes: dict[str, Any]) -> Answers:
    return {("lsblk",): Completed((), 0, json.dumps({"blockdevices": nodes}))}


def probe(tmp_path: Path, answers: Answers, repositories: dict[str, str] | None = None) -> Machine:
    with use_runner(FakeRunner(answers)):
        return probe_machine(repositories, sysfs=tmp_path / "sys", procfs=tmp_path / "proc")


def put(path: Path, text: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)


@pytest.mark.parametrize(
    ("word", "bare"),
    [
        ("0x5002538F4130A1B2", "5002538f4130a1b2"),
        ("naa.5002538f4130a1b2", "5002538f4130a1b2"),
        ("eui.0025385b71b01234", "0025385b71b01234"),
        ("eui.e8238fa6bf530001001b448b4a111111", "e8238fa6bf530001001b448b4a111111"),
        ("nvme.1b36-726b-51454d55204e564d65204374726c-00000001", ""),
        ("t10.ATA     QEMU HARDDISK   QM00001", ""),
        ("0x0000000000000000", ""),
        ("", ""),
    ],
)
def test_world_wide_names(word: str, bare: str) -> None:
    assert normal_wwn(word) == bare


def test_ids_and_busses() -> None:
    assert disk_id(wwn="5", model="M", serial="S", path="/dev/a") == "wwn:5"
    assert disk_id(wwn="", model="M", serial="S", path="/dev/a") == "serial:M:S"
    assert disk_id(wwn="", model="M", serial="", path="/dev/a") == "path:/dev/a"
    found = [
        bus_of(*words)
        for words in (
            ("nvme0n1", "", []), ("vda", "", []), ("sda", "sata", []), ("sda", "usb", []), ("sda", "sas", []),
            ("sda", "", ["block", "scsi", "virtio", "pci"]), ("mmcblk0", "", []), ("xvda", "", []),
        )
    ]  # fmt: skip
    assert found == ["nvme", "virtio", "sata", "usb", "scsi", "scsi", "mmc", "other"]
    assert partition_path("/dev/sda", 3) == "/dev/sda3"
    assert partition_path("/dev/nvme0n1", 3) == "/dev/nvme0n1p3"


def test_identity_from_sysfs_where_lsblk_is_silent(tmp_path: Path) -> None:
    put(tmp_path / "sys/block/vda/serial", "disk-one\0\0")
    put(tmp_path / "sys/block/nvme0n1/wwid", "eui.0025385b71b01234\n")
    put(tmp_path / "sys/block/nvme0n1/device/serial", "S5GXNX0T123456B     \n")
    put(tmp_path / "sys/block/nvme0n1/device/model", "Samsung SSD 980 PRO 1TB                 \n")
    put(tmp_path / "sys/block/sda/device/wwid", "naa.5002538f4130a1b2\n")
    machine = probe(tmp_path, lsblk(node("vda"), node("nvme0n1"), node("sda", tran="sata"), node("vdb")))
    assert [d.id for d in machine.disks] == [
        "serial::disk-one", "wwn:0025385b71b01234", "wwn:5002538f4130a1b2", "path:/dev/vdb",
    ]  # fmt: skip
    assert machine.disks[1].model == "Samsung SSD 980 PRO 1TB"
    assert machine.disks[1].confirmation == "S5GXNX0T123456B"
    assert machine.disks[3].confirmation == str(20 * GIB)


def test_ids_that_two_disks_claim_name_none(tmp_path: Path) -> None:
    enclosure: dict[str, Any] = {"tran": "usb", "model": "Dock", "serial": "0123"}
    machine = probe(tmp_path, lsblk(node("sda", **enclosure), node("sdb", **enclosure)))
    assert [d.id for d in machine.disks] == ["path:/dev/sda", "path:/dev/sdb"]


def test_what_is_not_a_disk(tmp_path: Path) -> None:
    nodes = [node("sr0", "rom"), node("zram0"), node("loop0", "loop"), node("mmcblk0boot0"), node("sdb", size=0)]
    assert probe(tmp_path, lsblk(*nodes, node("mmcblk0"))).disks[0].path == "/dev/mmcblk0"
    assert len(probe(tmp_path, lsblk(*nodes)).disks) == 0


def test_busy_in_whole_sentences(tmp_path: Path) -> None:
    root = node("vg0-root", "lvm", path="/dev/mapper/vg0-root", mountpoints=["/"])
    disks = [
        node("sda", "disk", GIB, node("sda1", "part", mountpoints=["/boot", "/mnt"]), node("sda2", "part", GIB, root)),
        node("sdb", "disk", GIB, node("sdb1", "part", mountpoints=["[SWAP]"])),
        node("sdc", "disk", GIB, node("md0", "raid1", mountpoints=["/srv"])),
        node("sdd", "disk", GIB, node("luks-1", "crypt", path="/dev/mapper/luks-1")),
        node("sde", "disk", GIB, node("md1", "raid1"), node("vg1-idle", "lvm")),
        node("sdf", "disk", GIB, node("vg0-vm--disk", "lvm", path="/dev/mapper/vg0-vm--disk")),
    ]
    lv = {
        "vg_name": "vg0", "lv_name": "vm-disk", "lv_uuid": "u", "lv_size": "1024", "segtype": "linear",
        "lv_active": "active", "lv_device_open": "open",
    }  # fmt: skip
    lvs: Answers = {("lvs",): Completed((), 0, json.dumps({"report": [{"lv": [lv]}]}))}
    busy = [d.busy for d in probe(tmp_path, {**lsblk(*disks), **lvs}).disks]
    assert busy == [
        ("/dev/sda1 is mounted at /boot and /mnt.", "The logical volume /dev/mapper/vg0-root is mounted at /."),
        ("/dev/sdb1 is in use as swap space.",),
        ("The array /dev/md0 is mounted at /srv.",),
        ("The encrypted volume /dev/mapper/luks-1 on it is open.",),
        (),
        ("The logical volume /dev/mapper/vg0-vm--disk on it is open, perhaps by a virtual machine.",),
    ]


def test_the_boot_medium(tmp_path: Path) -> None:
    stick = node("sdb", "disk", 8 * GIB, node("sdb1", "part", mountpoints=["/run/live/medium"]), rm=True)
    whole = node("sdc", mountpoints=["/run/initramfs/live"])
    copied = node("sdd", label="REKINDLE", fstype="iso9660")
    machine = probe(tmp_path, lsblk(node("sda"), stick, whole, copied))
    assert [d.boot_medium for d in machine.disks] == [False, True, True, True]
    assert all(bool(d.busy) == d.boot_medium for d in machine.disks)
    assert "mounted" not in machine.disks[1].busy[0]


def test_a_medium_copied_to_memory_is_known_by_its_label_without_udev(tmp_path: Path) -> None:
    blkid: Answers = {("blkid",): Completed((), 0, "TYPE=iso9660\nLABEL=REKINDLE\\ 13\n")}
    (disk,) = probe(tmp_path, {**lsblk(node("sdb")), **blkid}).disks
    assert disk.boot_medium
    assert disk.busy


def test_a_repository_on_a_partition(tmp_path: Path) -> None:
    mounted = node("sda1", "part", mountpoints=["/run/rekindle/repositories/sda1"])
    (disk,) = probe(tmp_path, lsblk(node("sda", "disk", GIB, mounted)), {"/dev/sda1": "f00dfeed" * 4}).disks
    assert disk.repository == "f00dfeed" * 4
    assert disk.busy == ("It holds the backup repository f00dfeedf00dfeed.",)


def test_a_table_and_its_contents(tmp_path: Path) -> None:
    table = {
        "label": "dos", "id": "0xA1B2C3D4", "unit": "sectors", "sectorsize": 512, "partitions": [
            {"node": "/dev/sda5", "start": 6144, "size": 2048, "type": "8e"},
            {"node": "/dev/sda1", "start": 2048, "size": 2048, "type": "83", "bootable": True},
            {"node": "/dev/sda2", "start": 4096, "size": 8192, "type": "5"},
        ],
    }  # fmt: skip
    pv = {"pv_name": "/dev/sda5", "pv_uuid": "PvUuid", "vg_name": "vg-a"}
    group = {"vg_name": "vg-a", "vg_uuid": "g", "vg_size": "100", "vg_free": "1"}
    answers = {
        **lsblk(node("sda")),
        ("sfdisk", "-J"): Completed((), 0, json.dumps({"partitiontable": table})),
        ("blkid", "-p", "-o", "export", "-O", "3145728"): Completed((), 0, "TYPE=LVM2_member\nUUID=PvUuid\n"),
        ("blkid", "-p", "-o", "export", "-O", "1048576"): Completed(
            (), 0, "TYPE=ext4\nLABEL=my\\ root\nBLOCK_SIZE=4096\n"
        ),
        ("pvs",): Completed((), 0, json.dumps({"report": [{"pv": [pv]}]})),
        ("vgs",): Completed((), 0, json.dumps({"report": [{"vg": [group]}]})),
    }
    machine = probe(tmp_path, answers)
    (disk,) = machine.disks
    assert [p.number for p in disk.table.partitions] == [1, 2, 5]
    first, extended, logical = disk.table.partitions
    assert (first.type, first.flags, first.content.label, first.content.block_size) == (
        "83",
        ("boot",),
        "my root",
        4096,
    )
    assert (extended.type, extended.content.kind) == ("05", "")
    assert logical.content.uuid == "PvUuid"
    assert disk.table.kind == "mbr"
    assert disk.table.uuid == "a1b2c3d4"
    assert disk.volume_groups == ("vg-a",)
    assert machine.volume_groups[0].pv_uuids == ("PvUuid",)


def test_firmware_memory_vendor_and_nics(tmp_path: Path) -> None:
    put(tmp_path / "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c", b"\6\0\0\0\1")
    put(tmp_path / "proc/meminfo", "MemTotal:        2048 kB\nMemFree: 1 kB\n")
    put(tmp_path / "proc/cpuinfo", "processor\t: 0\nflags\t\t: fpu vmx avx2\nbugs\t\t: x\n\nflags\t\t: other\n")
    put(tmp_path / "sys/class/dmi/id/sys_vendor", "Supermicro\n")
    put(tmp_path / "sys/class/net/eno1/address", "0c:c4:7a:11:22:33\n")
    put(tmp_path / "sys/class/net/eno1/carrier", "1\n")
    put(tmp_path / "sys/class/net/eno1/speed", "1000\n")
    put(tmp_path / "sys/class/net/eno1/device/vendor", "0x8086\n")
    put(tmp_path / "sys/class/net/br0/address", "02:00:00:00:00:01\n")
    link = [
        {"ifname": "eno1", "addr_info": [{"scope": "link", "local": "fe80::1", "prefixlen": 64}]},
        {
            "ifname": "eno1.7",
            "link": "eno1",
            "addr_info": [{"scope": "global", "local": "192.0.2.4", "prefixlen": 24}],
        },
    ]
    machine = probe(tmp_path, {**lsblk(), ("ip", "-j"): Completed((), 0, json.dumps(link))})
    assert (machine.firmware, machine.secure_boot) == ("uefi", True)
    assert machine.memory == 2048 * 1024
    assert machine.processor == ("fpu", "vmx", "avx2")
    assert machine.vendor == "Supermicro"
    (nic,) = machine.nics
    assert (nic.name, nic.carrier, nic.speed, nic.addresses) == ("eno1", True, 1000, ("192.0.2.4/24",))


def test_bios_without_any_tool_but_lsblk(tmp_path: Path) -> None:
    machine = probe(tmp_path, lsblk(node("sda")))
    assert machine.firmware == "bios"
    assert machine.disks[0].blank


def test_lsblk_that_says_nonsense(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="did not answer"):
        probe(tmp_path, {("lsblk",): Completed((), 0, "no json")})
    with pytest.raises(CommandError, match="exit code 32"):
        probe(tmp_path, {("lsblk",): Completed((), 32, "", "no such device")})


def test_a_machine_is_recorded_and_loaded(tmp_path: Path) -> None:
    machine = probe(tmp_path, lsblk(node("sda"), node("nvme0n1")))
    (tmp_path / "machine.json").write_bytes(msgspec.json.encode(machine))
    assert load_machine(tmp_path / "machine.json") == machine
