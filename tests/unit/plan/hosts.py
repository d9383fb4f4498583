"""Points and machines that the plan's tests share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from recovery.format.point import Point, PointBody, PointDisk, PointHeader
from recovery.layout import Content, Partition, PartitionTable, SystemFacts, VolumeGroup
from recovery.machine.model import Machine, load_machine
from recovery.plan.build import build_plan
from recovery.plan.model import Choices, RestorePlan
from recovery.units import GIB, MIB

MACHINES = Path(__file__).parents[2] / "machines"
ESP = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
BIOS_BOOT = "21686148-6449-6e6f-744e-656564454649"
LINUX = "0fc63daf-8483-4772-8e79-3d69d8477de4"
LVM = "e6d6d379-f507-44c2-a23c-238f2a3df928"
PV_UUID = "HostPv-1111-2222-3333-4444-5555-666666"


def recorded(name: str) -> Machine:
    """A machine of tests/machines."""
    return load_machine(MACHINES / f"{name}.json")


def all_machines() -> dict[str, Machine]:
    """Every recorded machine."""
    return {path.stem: load_machine(path) for path in sorted(MACHINES.glob("*.json"))}


def table(*, bios_boot: bool = False, esp: bool = True, pv: bool = False, size: int = 100 * GIB) -> PartitionTable:
    parts = []
    if bios_boot:
        parts.append(Partition(number=14, start=MIB, size=MIB, type=BIOS_BOOT))
    if esp:
        content = Content(kind="vfat", uuid="AAAA-0001", label="EFI")
        parts.append(Partition(number=1, start=2 * MIB, size=256 * MIB, type=ESP, content=content))
    content = Content(kind="LVM2_member", uuid=PV_UUID) if pv else Content(kind="ext4", uuid="root-uuid", label="root")
    rest = size - 400 * MIB
    parts.append(Partition(number=2, start=300 * MIB, size=rest, type=LVM if pv else LINUX, content=content))
    return PartitionTable(kind="gpt", uuid="host-table", partitions=tuple(parts))


def shrinkable(size: int) -> PartitionTable:
    """An ESP and a root of which the filesystem's tool said how small it can be."""
    found = table(size=size)
    esp, root = found.partitions
    small = Content(kind="ext4", uuid="root-uuid", label="root", block_size=4096, used=size // 4, minimum=size // 3)
    vfat = Content(kind="vfat", uuid="AAAA-0001", label="EFI", block_size=512)
    parts = (msgspec.structs.replace(esp, content=vfat), msgspec.structs.replace(root, content=small))
    return msgspec.structs.replace(found, partitions=parts)


def disk(name: str = "disk1", size: int = 100 * GIB, **facts: Any) -> PointDisk:
    given: dict[str, Any] = {
        "sector_size": 512, "chunk_size": MIB, "root": "00" * 32, "device": "/dev/sda", "used": size // 4,
        "table": table(size=size),
    }  # fmt: skip
    return PointDisk(name=name, size=size, **{**given, **facts})


def point(
    *disks: PointDisk, system: SystemFacts | None = None, groups: tuple[VolumeGroup, ...] = (), **body: Any
) -> Point:
    facts: dict[str, Any] = {"consistency": "offline", "firmware": "uefi", **body}
    return Point(
        id="ab" * 32,
        header=PointHeader(version=1, repository="cd" * 16, host="pve1", created=1.79e9),
        body=PointBody(
            disks=disks or (disk(),),
            system=system or SystemFacts(root="disk1:2", esp="disk1:1"),
            volume_groups=groups,
            **facts,
        ),
    )


def choices(adapt: bool = True, grow: bool = True, **targets: str) -> Choices:
    return Choices(host="pve1", point="ab" * 32, targets=targets, adapt=adapt, grow=grow)


def build_4kn(host: Point) -> RestorePlan:
    """The plan for a machine whose disks have sectors of 4096 bytes."""
    return build_plan(host, recorded("fourkn"), choices(disk1="/dev/sda"))


def codes(plan: RestorePlan, severity: str = "") -> set[str]:
    return {problem.code for problem in plan.problems if severity in ("", problem.severity)}
