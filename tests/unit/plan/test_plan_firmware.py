"""A machine of the other firmware mode: what the plan makes where, and what it refuses, before the first write."""

from __future__ import annotations

import msgspec
import pytest

from recovery.layout import Content, Partition, PartitionTable, SystemFacts
from recovery.machine.model import Disk, Machine
from recovery.plan.build import build_plan
from recovery.plan.firmware import conversion
from recovery.plan.model import RestorePlan
from recovery.plan.render import render_plan
from recovery.plan.repair import build_repair
from recovery.units import GIB, MIB
from tests.unit.plan.hosts import BIOS_BOOT, LINUX, choices, disk, point, recorded

STEPS = [("adapt.room", "Make room", "A partition"), ("adapt.bootloader", "Install", "The menu")]
ROOT = Partition(number=1, start=MIB, size=94 * GIB - MIB, type=LINUX, content=Content(kind="ext4"))
SWAP = Partition(number=2, start=94 * GIB, size=6 * GIB - MIB, type="swap", content=Content(kind="swap"))
PLAIN = PartitionTable(kind="gpt", partitions=(ROOT, SWAP))


def machine(firmware: str, size: int = 100 * GIB, **facts: object) -> Machine:
    target = Disk(id="wwn:1", path="/dev/sda", size=size, serial="S1", bus="sata")
    return msgspec.convert(
        {"firmware": firmware, "memory": 4 * GIB, "disks": [msgspec.to_builtins(target)], **facts}, Machine
    )


def planned(
    firmware: str, captured: str, size: int = 100 * GIB, *, swap: bool = False, facts: dict[str, str] | None = None
) -> RestorePlan:
    system = msgspec.convert(
        {"root": "disk1:1", "bootloader": "grub", "os_id": "debian", **(facts or {})}, SystemFacts
    )
    host = point(disk(table=PLAIN), firmware=captured, system=system)
    given = msgspec.structs.replace(choices(disk1="/dev/sda"), use_swap=swap)
    return build_plan(host, machine(firmware, size), given, adaptation=STEPS)


def problem(plan: RestorePlan, code: str) -> str:
    found = next(p for p in plan.problems if p.code == code)
    return f"{found.what} {found.why} {found.todo}"


def test_the_partition_is_shown_before_the_first_write() -> None:
    plan = planned("uefi", "bios", 200 * GIB)
    assert plan.allowed
    room = "On /dev/sda, an EFI system partition of 512 MiB at the end of the disk (partition 3) is made."
    assert room in problem(plan, "firmware-converted")
    assert plan.steps[2].detail == room and plan.steps[3].detail == "The menu"
    assert room in "\n".join(render_plan(plan))


def test_without_room_it_is_refused_with_what_would_help() -> None:
    plan = planned("uefi", "bios")
    assert not plan.allowed
    text = problem(plan, "firmware-differs")
    assert "34.0 MiB" in text and "--use-swap" in text and "swap partition 2" in text and "legacy BIOS" in text
    allowed = planned("uefi", "bios", swap=True)
    assert allowed.allowed and "partition 2 is shortened to 5.50 GiB" in problem(allowed, "firmware-converted")


def test_a_bios_gets_its_partition_in_front_of_the_first() -> None:
    plan = planned("bios", "uefi")
    assert plan.allowed
    assert "a BIOS boot partition of 1007 KiB in front of the first partition" in problem(plan, "firmware-converted")


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"bootloader": "systemd-boot"}, "no edition for BIOS"),
        ({"bootloader": "extlinux"}, "no edition for UEFI"),
        ({"os_id": "rocky", "os_name": "Rocky Linux 9"}, "Rocky Linux 9 works with its distribution's own GRUB"),
    ],
)
def test_a_host_whose_loader_has_no_other_edition_is_refused(facts: dict[str, str], words: str) -> None:
    to = "uefi" if facts.get("bootloader") == "extlinux" else "bios"
    plan = planned(to, "bios" if to == "uefi" else "uefi", 200 * GIB, facts=facts)
    assert not plan.allowed and words in problem(plan, "firmware-differs")


def test_what_is_there_already_is_used() -> None:
    both = point(disk(), firmware="bios", system=SystemFacts(root="disk1:2"))
    plan = build_plan(both, machine("uefi"), choices(disk1="/dev/sda"), adaptation=STEPS)
    assert "The EFI system partition (number 1) of /dev/sda is used." in problem(plan, "firmware-converted")
    core = Partition(number=3, start=100 * MIB, size=MIB, type=BIOS_BOOT)
    table = PartitionTable(kind="gpt", partitions=(core, ROOT))
    host = point(disk(table=table), firmware="uefi", system=SystemFacts(root="disk1:1"))
    plan = build_plan(host, machine("bios"), choices(disk1="/dev/sda"), adaptation=STEPS)
    assert "The BIOS boot partition of /dev/sda is used." in problem(plan, "firmware-converted")


def test_the_same_mode_is_no_conversion() -> None:
    host = point(disk(table=PLAIN), firmware="bios")
    pairs = ((host.body.disks[0], machine("bios").disks[0]),)
    assert conversion(host, pairs, machine("bios"), choices(disk1="/dev/sda")) is None
    assert conversion(host, (), machine("uefi"), choices()) is None
    assert not any(p.code.startswith("firmware") for p in planned("bios", "bios").problems)


def test_secure_boot_of_a_converted_host_is_warned_of() -> None:
    host = point(disk(table=PLAIN), firmware="bios", system=SystemFacts(root="disk1:1"))
    plan = build_plan(host, machine("uefi", 200 * GIB, secure_boot=True), choices(disk1="/dev/sda"))
    assert {"firmware-converted", "secure-boot-on"} <= {p.code for p in plan.problems}


def test_a_repair_shows_what_it_makes() -> None:
    here = machine("uefi", 200 * GIB)
    target = msgspec.structs.replace(here.disks[0], table=PLAIN)
    here = msgspec.structs.replace(here, disks=(target,))
    _, plan = build_repair(["/dev/sda"], here, grow=False, adaptation=STEPS)
    assert plan.allowed and "at the end of the disk" in problem(plan, "firmware-converted")
    assert "at the end of the disk" in plan.steps[1].detail
    full = msgspec.structs.replace(here, disks=(msgspec.structs.replace(target, size=100 * GIB),))
    _, plan = build_repair(["/dev/sda"], full, grow=False, adaptation=STEPS)
    assert not plan.allowed and "firmware-differs" in {p.code for p in plan.problems}
    bios = msgspec.structs.replace(here, firmware="bios")
    _, plan = build_repair(["/dev/sda"], bios, grow=False, adaptation=STEPS)
    assert "in front of the first partition" in problem(plan, "firmware-converted")


def test_a_recorded_machine_with_uefi_takes_a_legacy_host() -> None:
    host = point(disk(size=GIB, table=PartitionTable(kind="mbr", partitions=(
        Partition(number=1, start=MIB, size=GIB - MIB, type="83", content=Content(kind="ext4")),
    ))), firmware="bios", system=SystemFacts(root="disk1:1"))  # fmt: skip
    plan = build_plan(host, recorded("nvme_only"), choices(disk1="/dev/nvme2n1"))
    assert "an EFI system partition of 512 MiB" in problem(plan, "firmware-converted")
