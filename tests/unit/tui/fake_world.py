"""What the console's tests see: a machine with three disks and more, and the points of a host with two VMs."""

from __future__ import annotations

import msgspec

from recovery.format.point import DiskMapRef, Point, PointBody, PointDisk, PointHeader
from recovery.layout import Content, Partition, PartitionTable, SystemFacts, VirtualMachine, VmDisk, VolumeGroup
from recovery.machine.model import Disk, Machine, Nic
from recovery.units import GIB, MIB

URL = "https://backup.example.org:8460"
FINGERPRINT = "9F:86:D0:81:88:4C:7D:65:9A:2F:EA:A0:C5:5A:D0:15:A3:BF:4F:1B:2B:0B:82:2C:D1:5D:6C:15:B0:F0:0A:08"
USER, PASSWORD, CODE, PASSPHRASE = "restore", "wool-gate", "K7QF-2MZD", "correct horse battery"
LUKS_PASSPHRASE = "opens hv1"
HOST = "hv1.example.org"
#: Where a copy that is added says that it is.
COPY = "/run/rekindle/usb/sdb1"
NOW = 1_763_900_000.0

BLANK = Disk(
    id="wwn:0x5002538d40f1a001",
    path="/dev/nvme0n1",
    size=1000204886016,
    bus="nvme",
    model="Samsung SSD 980 PRO",
    serial="S5GXNX0T103344",
)
USED = Disk(
    id="wwn:0x5000c500a1b2c3d4",
    path="/dev/sda",
    size=480103981056,
    bus="sata",
    model="ST480 Nytro 1351",
    serial="ZHZ0A1B2",
    table=PartitionTable(
        kind="gpt",
        partitions=(
            Partition(number=1, start=MIB, size=512 * MIB, content=Content(kind="vfat"), name="EFI System"),
            Partition(number=2, start=513 * MIB, size=400 * GIB, content=Content(kind="ext4", label="archive")),
        ),
    ),
    systems=("Debian GNU/Linux 12 on partition 2",),
)
BUSY = Disk(
    id="serial:WDC:WD-77",
    path="/dev/sdb",
    size=2000398934016,
    bus="usb",
    model="WDC Elements",
    serial="WD-77",
    removable=True,
    repository="4f2a77aa01bc",
    busy=("/dev/sdb1 is mounted on /run/rekindle/usb/sdb1.",),
    table=PartitionTable(kind="gpt", partitions=(Partition(number=1, start=MIB, size=1862 * GIB),)),
)
MEDIUM_DISK = Disk(
    id="path:/dev/sr0",
    path="/dev/sr0",
    size=290 * MIB,
    bus="sata",
    model="QEMU DVD-ROM",
    read_only=True,
    removable=True,
    boot_medium=True,
)
NO_SERIAL = Disk(id="path:/dev/vdb", path="/dev/vdb", size=64 * GIB, bus="virtio")
MACHINE = Machine(
    firmware="uefi",
    memory=64 * GIB,
    cpus=16,
    vendor="Supermicro",
    model="X11",
    disks=(BLANK, USED, BUSY, MEDIUM_DISK, NO_SERIAL),
    nics=(
        Nic(name="enp3s0", mac="52:54:00:12:34:56", driver="e1000e", carrier=True, speed=1000),
        Nic(name="enp4s0", mac="52:54:00:12:34:57", driver="ixgbe"),
    ),
)
ADDRESS = "192.168.1.20/24"


def with_address(machine: Machine, interface: str = "enp3s0", address: str = ADDRESS) -> Machine:
    """The machine with one more address."""
    nics = tuple(
        msgspec.structs.replace(nic, addresses=(address,)) if nic.name == interface else nic for nic in machine.nics
    )
    return msgspec.structs.replace(machine, nics=nics)


SYSTEM_TABLE = PartitionTable(
    kind="gpt",
    partitions=(
        Partition(number=1, start=MIB, size=512 * MIB, type="c12a7328-f81f-11d2-ba4b-00a0c93ec93b",
                  content=Content(kind="vfat"), name="EFI System"),
        Partition(number=2, start=513 * MIB, size=20 * GIB, content=Content(kind="ext4", label="root")),
        Partition(number=3, start=513 * MIB + 20 * GIB, size=79 * GIB,
                  content=Content(kind="LVM2_member", uuid="pv-1")),
    ),
)  # fmt: skip
DATA_TABLE = PartitionTable(
    kind="gpt",
    partitions=(Partition(number=1, start=MIB, size=60 * GIB - 2 * MIB, content=Content(kind="xfs", label="images")),),
)


def make_point(number: int, disks: int = 1) -> Point:
    """A point of the host, the higher the newer; an odd one was taken while the host ran."""
    created = NOW - (5 - number) * 86400
    found = [
        PointDisk(name=f"disk{i}", size=(100 if i == 1 else 60) * GIB, sector_size=512, chunk_size=MIB, root="ab" * 32,
                  device=f"/dev/sd{chr(96 + i)}", model="PERC H740P", used=(31 if i == 1 else 12) * GIB,
                  changed=(31 * GIB if number == 1 else number * number * 300 * MIB),
                  table=SYSTEM_TABLE if i == 1 else DATA_TABLE)
        for i in range(1, disks + 1)
    ]  # fmt: skip
    vms = (
        VirtualMachine(name="web1", memory=4 * GIB, vcpus=2, autostart=True, state="running",
                       disks=(VmDisk(target="vda", source="/var/lib/libvirt/images/web1.qcow2", format="qcow2",
                                     size=20 * GIB, on="disk1:2"),),
                       definition="<domain><name>web1</name></domain>"),
        VirtualMachine(name="db1", memory=16 * GIB, vcpus=4, autostart=True, state="running",
                       disks=(VmDisk(target="vda", source="/dev/vg0/db1", size=40 * GIB, on="vg0/db1"),)),
    )  # fmt: skip
    return Point(
        id=f"{number:02x}" * 32,
        header=PointHeader(
            version=1,
            repository="4f2a",
            host=HOST,
            created=created,
            parent="" if number == 1 else f"{number - 1:02x}" * 32,
            maps=tuple(DiskMapRef(disk=d.name, map="aa") for d in found),
        ),
        body=PointBody(
            disks=tuple(found),
            consistency="filesystem" if number % 2 else "offline",
            firmware="uefi",
            system=SystemFacts(os_name="Debian GNU/Linux 12 (bookworm)"),
            vms=vms,
            volume_groups=(VolumeGroup(name="vg0", pv_uuids=("pv-1",)),),
        ),
    )
