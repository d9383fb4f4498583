"""A Windows in the plan: what is made of it, and what is refused before the first write, with the remedy."""

from __future__ import annotations

import sys
from typing import Any

import msgspec
import pytest

from recovery.adapt.model import AdaptRequest
from recovery.adapt.steps import to_run
from recovery.engine.planning import adaptation
from recovery.engine.preflight import check_windows_tools
from recovery.format.point import Point, PointDisk
from recovery.layout import WINDOWS, Content, Firmware, Partition, PartitionTable, SystemFacts, WindowsSystem
from recovery.machine.model import Bus, Disk, Machine
from recovery.plan.build import build_plan
from recovery.plan.model import Choices, Problem, RestorePlan
from recovery.plan.repair import build_repair, point_of
from recovery.units import GIB, MIB
from tests.unit.plan.hosts import ESP, codes, disk, point

RESERVED = "e3c9e316-0b5c-4db8-817d-f92df00215ae"
RECOVERY = "de94bba4-06d1-4d40-a16a-bfd50179d6ac"
DATA = "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7"
NTFS = Content(kind="ntfs", uuid="447CB09B23C095F1", block_size=512)
SEEN = WindowsSystem(volume="disk1:3", name="Windows Server 2022", drivers=("storahci", "stornvme", "megasas"))


def gpt(content: Content = NTFS) -> PartitionTable:
    parts = (
        Partition(number=1, start=MIB, size=100 * MIB, type=ESP, content=Content(kind="vfat", block_size=512)),
        Partition(number=2, start=101 * MIB, size=16 * MIB, type=RESERVED),
        Partition(number=3, start=117 * MIB, size=80 * GIB, type=DATA, content=content),
        Partition(number=4, start=90 * GIB, size=GIB, type=RECOVERY, content=NTFS),
    )
    return PartitionTable(kind="gpt", uuid="t", partitions=parts)


def mbr() -> PartitionTable:
    parts = (
        Partition(number=1, start=MIB, size=500 * MIB, type="07", flags=("boot",), content=NTFS),
        Partition(number=2, start=501 * MIB, size=60 * GIB, type="07", content=NTFS),
        Partition(number=3, start=62 * GIB, size=20 * GIB, type="07", content=NTFS),
    )
    return PartitionTable(kind="mbr", uuid="1234abcd", partitions=parts)


def host(table: PartitionTable | None = None, firmware: Firmware = "uefi", **facts: Any) -> Point:
    source = disk(table=table or gpt())
    volume = "disk1:2" if source.table.kind == "mbr" else "disk1:3"
    windows = msgspec.structs.replace(SEEN, volume=volume, **facts)
    esp = "disk1:1" if source.table.kind == "gpt" else ""
    system = SystemFacts(os_name=SEEN.name, os_id=WINDOWS, root=volume, esp=esp, bootloader="bootmgr")
    return point(source, system=system, firmware=firmware, windows=(windows,))


def machine(bus: Bus = "sata", modules: tuple[str, ...] = (), *, firmware: Firmware = "uefi", **facts: Any) -> Machine:
    target = Disk(id="t", path="/dev/sda", bus=bus, modules=modules, **{"size": 100 * GIB, **facts})
    return Machine(firmware=firmware, memory=8 * GIB, disks=(target,))


def plan(found: Point, here: Machine, **given: Any) -> RestorePlan:
    choices = Choices(host="pve1", point=found.id, targets={"disk1": "t"}, **given)
    return build_plan(found, here, choices, adaptation=adaptation(found, here))


def problem(found: RestorePlan, code: str) -> Problem:
    return next(one for one in found.problems if one.code == code)


def test_windows_is_prepared_by_its_own_steps_and_nobody_promises_more() -> None:
    found = plan(host(), machine())
    assert found.allowed and codes(found) == {"windows-adapted"}
    told = problem(found, "windows-adapted")
    assert told.severity == "warning" and "storahci" in told.why and "No Windows was seen starting" in told.why
    steps = [step.id for step in found.steps if step.id.startswith("adapt")]
    assert steps == [
        "adapt.settle", "adapt.tables", "adapt.windows-hibernation", "adapt.windows-drivers", "adapt.windows-letters",
        "adapt.windows-loader", "adapt.grow",
    ]  # fmt: skip
    assert all(step.detail for step in found.steps if step.id.startswith("adapt.windows"))


def test_each_step_runs_alone_with_no_more_than_a_look_at_the_disks() -> None:
    request = AdaptRequest(point=host(), targets={}, machine=machine())
    for name in ("windows-hibernation", "windows-drivers", "windows-letters", "windows-loader"):
        assert [step.name for step in to_run(request, [name])] == ["settle", name]


def test_a_linux_host_with_no_windows_has_none_of_its_steps() -> None:
    steps = [id for id, _, _ in adaptation(point(), machine())]
    assert "adapt.initramfs" in steps and not [id for id in steps if "windows" in id]


@pytest.mark.parametrize(
    ("bus", "modules", "lacking"),
    [
        ("sata", ("sd_mod", "ahci"), ""),
        ("nvme", ("nvme",), ""),
        ("scsi", ("sd_mod", "megaraid_sas"), ""),
        ("virtio", ("virtio_blk", "virtio_pci"), "viostor"),
        ("scsi", ("sd_mod", "virtio_scsi"), "vioscsi"),
        ("scsi", ("sd_mod", "vmw_pvscsi"), "pvscsi"),
        ("scsi", ("sd_mod", "mptsas"), "LSI_SAS"),
        ("scsi", ("sd_mod", "never_heard_of"), ""),
    ],
)
def test_a_controller_without_a_driver_is_refused_with_what_would_help(
    bus: Bus, modules: tuple[str, ...], lacking: str
) -> None:
    found = plan(host(), machine(bus, modules))
    assert found.allowed == (not lacking)
    if lacking:
        told = problem(found, "windows-driver-missing")
        assert lacking in told.why and "NVMe" in told.todo
        assert "windows-adapted" not in codes(found)
        as_it_is = plan(host(), machine(bus, modules), adapt=False)
        assert as_it_is.allowed and problem(as_it_is, "windows-driver-missing").severity == "warning"


def test_windows_does_not_start_from_usb() -> None:
    assert "windows-usb" in codes(plan(host(), machine("usb")), "error")


@pytest.mark.parametrize(
    ("facts", "code", "remedy"),
    [
        ({"hibernated": True}, "windows-hibernated", "--drop-hibernation"),
        ({"hibernated": True, "unclean": "it was not shut down"}, "windows-hibernated", "shutdown /s"),
        ({"unclean": "it was not shut down"}, "windows-unclean", "--no-adapt"),
        (
            {"drivers": None, "problem": "The hive is damaged.", "damaged": True},
            "windows-registry",
            "capture it again",
        ),
    ],
)
def test_what_may_not_be_written_to_is_refused_and_restored_as_it_is(
    facts: dict[str, Any], code: str, remedy: str
) -> None:
    found = plan(host(**facts), machine())
    assert not found.allowed and problem(found, code).severity == "error" and remedy in problem(found, code).todo
    as_it_is = plan(host(**facts), machine(), adapt=False)
    assert as_it_is.allowed
    beside = host(**facts)
    linux = msgspec.structs.replace(beside.body.system, os_id="debian", bootloader="grub")
    beside = msgspec.structs.replace(beside, body=msgspec.structs.replace(beside.body, system=linux))
    assert problem(plan(beside, machine()), code).severity == "warning"


def test_a_session_is_given_up_only_when_that_was_asked_for() -> None:
    found = plan(host(hibernated=True), machine(), drop_hibernation=True)
    assert found.allowed and "is given up" in problem(found, "windows-hibernated").what
    unclean = host(hibernated=True, unclean="changes wait in its log")
    refused = plan(unclean, machine(), drop_hibernation=True)
    assert not refused.allowed and "--drop-hibernation" not in problem(refused, "windows-hibernated").todo


def test_unknown_drivers_are_a_doubt_no_refusal() -> None:
    found = plan(host(drivers=None, problem="hivex is not installed."), machine("virtio", ("virtio_blk",)))
    assert found.allowed and problem(found, "windows-registry").severity == "warning"


@pytest.mark.parametrize(("was", "now"), [("bios", "uefi"), ("uefi", "bios")])
def test_another_firmware_mode_is_refused_with_the_remedy(was: Firmware, now: Firmware) -> None:
    found = plan(host(mbr() if was == "bios" else None, firmware=was), machine(firmware=now))
    told = problem(found, "firmware-differs")
    assert told.severity == "error" and "BCD" in told.why and "firmware setup" in told.todo
    assert ("mbr2gpt" in told.todo) == (now == "uefi")


def test_a_host_that_nobody_looked_into_is_not_converted_where_it_may_be_windows() -> None:
    unseen = host(mbr(), firmware="bios")
    unseen = msgspec.structs.replace(
        unseen, body=msgspec.structs.replace(unseen.body, system=SystemFacts(), windows=())
    )
    assert "BCD" in problem(plan(unseen, machine()), "firmware-differs").why


def test_windows_beside_a_linux_that_is_converted_is_told() -> None:
    beside = host()
    linux = msgspec.structs.replace(beside.body.system, os_id="debian", bootloader="grub")
    beside = msgspec.structs.replace(beside, body=msgspec.structs.replace(beside.body, system=linux))
    assert "windows-firmware" in codes(plan(beside, machine(firmware="bios")), "warning")


def test_its_recovery_partition_keeps_it_from_growing_until_that_is_moved() -> None:
    found = plan(host(), machine(size=200 * GIB))
    assert [one.name for one in found.growth if one.usual] == []
    assert "/dev/sda3" in [one.name for one in found.growth] and "/dev/sda4" not in [one.name for one in found.growth]
    chosen = plan(host(), machine(size=200 * GIB), grow_to=("/dev/sda3",))
    landing = chosen.assignments[0].landing
    assert chosen.allowed and landing is not None
    assert {placed.number: placed.moved for placed in landing.placements} == {1: False, 2: False, 3: False, 4: True}
    assert "windows-moved" not in codes(chosen)  # a GPT names partitions by GUIDs


def test_a_last_ntfs_volume_grows_by_itself_and_one_that_was_not_shut_down_never() -> None:
    found = plan(host(mbr(), firmware="bios"), machine(firmware="bios", size=200 * GIB))
    assert [one.name for one in found.growth if one.usual] == ["/dev/sda3"]
    waiting = msgspec.structs.replace(NTFS, unclean="changes wait in its log")
    table = gpt(waiting)
    table = msgspec.structs.replace(table, partitions=table.partitions[:3])
    found = plan(host(table), machine(size=200 * GIB), grow_to=("/dev/sda3",))
    assert "changes wait" in problem(found, "grow-to-refused").why


@pytest.mark.parametrize(("grown", "severity"), [("/dev/sda1", "error"), ("/dev/sda2", "warning")])
def test_of_an_mbr_what_windows_starts_from_does_not_move(grown: str, severity: str) -> None:
    found = plan(host(mbr(), firmware="bios"), machine(firmware="bios", size=200 * GIB), grow_to=(grown,))
    assert problem(found, "windows-moved").severity == severity


def test_bitlocker_is_told() -> None:
    locked = host(gpt(Content(kind="BitLocker")))
    assert "recovery key" in problem(plan(locked, machine()), "windows-bitlocker").todo


def test_ntfs_does_not_go_onto_sectors_of_another_size() -> None:
    found = plan(host(), machine("nvme", sector_size=4096))
    assert "sector-size-differs" in codes(found, "error")
    larger = host()
    source = msgspec.structs.replace(larger.body.disks[0], sector_size=4096)
    larger = msgspec.structs.replace(larger, body=msgspec.structs.replace(larger.body, disks=(source,)))
    assert "sector-size-differs" in codes(plan(larger, machine(size=200 * GIB)), "error")


def repaired(table: PartitionTable, firmware: Firmware) -> RestorePlan:
    here = machine(firmware=firmware, table=table)
    found = point_of(here.disks, here)
    return build_repair(["t"], here, grow=True, adaptation=adaptation(found, here))[1]


def test_a_repair_makes_no_boot_partition_on_a_disk_of_windows() -> None:
    assert repaired(gpt(), "uefi").allowed and repaired(mbr(), "bios").allowed
    for table, firmware in ((mbr(), "uefi"), (gpt(), "bios")):
        found = repaired(table, firmware)  # type: ignore[arg-type]
        assert "firmware-differs" in codes(found, "error")
        ids = [step.id for step in found.steps]
        assert "adapt.room" not in ids and "adapt.windows-drivers" in ids and "adapt.initramfs" not in ids


def test_an_image_file_is_no_machine_to_start_on() -> None:
    found = host(hibernated=True)
    source: PointDisk = found.body.disks[0]
    here = Machine(disks=(Disk(id="t", path="/x.img", size=source.size, bus="file"),), memory=8 * GIB)
    assert not [code for code in codes(plan(found, here, adapt=False)) if code.startswith("windows")]


def test_what_windows_is_adapted_with_has_to_be_here(monkeypatch: pytest.MonkeyPatch) -> None:
    found = plan(host(), machine())
    assert list(check_windows_tools(plan(point(), machine()))) == []
    monkeypatch.setitem(sys.modules, "hivex", None)
    (told,) = check_windows_tools(found)
    assert (told.code, told.severity) == ("tool-missing", "error") and "python3-hivex" in told.what
