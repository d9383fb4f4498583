"""An MBR that becomes a GPT on a disk larger than 2 TiB: same partitions, other names; or why not."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec
import pytest

from recovery.format.point import JournalRef, Point
from recovery.layout import Content, Landing, Partition, PartitionTable, SystemFacts
from recovery.machine.model import Disk, Machine
from recovery.machine.partuuid import gpt_guid, was_called
from recovery.plan.build import build_plan
from recovery.plan.model import RestorePlan
from recovery.plan.names import BIOS_BOOT
from recovery.units import GIB, MIB, TIB
from tests.unit.plan.hosts import choices, codes, disk, point

EXT4 = Content(kind="ext4", uuid="u", block_size=4096)
SWAP = Content(kind="swap", uuid="s")
BIG = 3 * TIB
FACTS = SystemFacts(root="disk1:5", boot="disk1:1", os_id="debian", bootloader="grub", mounts={"/": "disk1:5"})


def host(first: int = MIB, *, content: Content = EXT4, **facts: Any) -> Point:
    at = first + GIB
    parts = (
        Partition(number=1, start=first, size=GIB, type="83", uuid="deadbeef-01", flags=("boot",), content=content),
        Partition(number=2, start=at, size=90 * GIB, type="0f", uuid="deadbeef-02"),
        Partition(number=5, start=at + MIB, size=60 * GIB, type="83", uuid="deadbeef-05", content=EXT4),
        Partition(number=6, start=at + 60 * GIB + 2 * MIB, size=8 * GIB, type="82", uuid="deadbeef-06", content=SWAP),
    )
    table = PartitionTable(kind="mbr", uuid="deadbeef", partitions=parts)
    given = {"system": FACTS, "firmware": "bios", **facts}
    return point(disk(table=table), **given)


def plan_for(
    source: Point, size: int = BIG, *grow_to: str, firmware: str = "bios", sector: int = 512, **given: Any
) -> RestorePlan:
    target = Disk(id="d", path="/dev/sda", size=size, sector_size=sector, bus="sata")
    machine = Machine(firmware=firmware, memory=8 * GIB, disks=(target,))  # type: ignore[arg-type]
    wanted = {"targets": {"disk1": "d"}, "to_gpt": True, "grow_to": grow_to, **given}
    return build_plan(source, machine, msgspec.structs.replace(choices(), **wanted))


def landing_in(plan: RestorePlan) -> Landing:
    assert plan.allowed, plan.problems
    landing = plan.assignments[0].landing
    assert landing is not None
    return landing


def test_the_same_partitions_with_their_numbers_and_no_container() -> None:
    plan = plan_for(host())
    assert codes(plan) == {"gpt-converted", "target-larger"}
    landing = landing_in(plan)
    assert landing.table.kind == "gpt"
    found = {part.number: part for part in landing.table.partitions}
    assert set(found) == {1, 2, 5, 6}  # the second is the new BIOS boot partition
    boot = found[2]
    assert (boot.type, boot.start, boot.flags) == (BIOS_BOOT, 34 * 512, ("bios_grub",))
    assert 1000 * 1024 < boot.size < MIB and boot.start + boot.size <= found[1].start
    old = {part.number: part for part in host().body.disks[0].table.partitions}
    for number in (1, 5, 6):
        assert (found[number].start, found[number].size) == (old[number].start, old[number].size)
        assert was_called(found[number].uuid, old[number].uuid)
    assert found[1].flags == ("legacy_boot",)
    assert found[5].type.startswith("0fc63daf") and found[6].type.startswith("0657fd6d")
    assert [p.number for p in landing.placements] == [1, 5, 6]
    guids = [landing.table.uuid, *(part.uuid for part in found.values())]
    assert len(set(guids)) == 5 and all(str(UUID(guid)) == guid for guid in guids)
    assert landing == landing_in(plan_for(host()))  # the same input gives the same plan
    said = next(p for p in plan.problems if p.code == "gpt-converted")
    assert "around 5, 6" in said.why and "in front, for GRUB" in said.why


def test_what_begins_too_far_in_front_moves_up_by_a_mib() -> None:
    landing = landing_in(plan_for(host(63 * 512)))
    found = {part.number: part for part in landing.table.partitions}
    assert found[1].start == 63 * 512 + MIB
    assert found[2].start + found[2].size <= found[1].start
    assert [(p.number, p.start - p.old_start) for p in landing.placements] == [(1, MIB), (5, MIB), (6, MIB)]


@pytest.mark.parametrize(("first", "sector"), [(63 * 512, 512), (MIB, 512), (MIB, 4096)])
def test_it_grows_beyond_2_tib(first: int, sector: int) -> None:
    size = BIG if sector == 512 else 20 * TIB
    plan = plan_for(host(first), size, "/", firmware="uefi" if sector == 4096 else "bios", sector=sector)
    landing = plan.assignments[0].landing
    assert landing is not None
    root = next(p for p in landing.placements if p.number == 5)
    assert root.size > size - 12 * GIB
    last = max(part.start + part.size for part in landing.table.partitions)
    assert size - 3 * MIB < last <= size - 33 * 512


def test_it_is_asked_for_and_an_mbr_reaches_2_tib() -> None:
    plan = plan_for(host(), to_gpt=False)
    assert codes(plan) == {"mbr-limit", "target-larger"} and plan.assignments[0].landing is None
    assert "1.00 TiB of /dev/sda stay unused" in next(p.what for p in plan.problems if p.code == "mbr-limit")
    grown = plan_for(host(), BIG, "/", to_gpt=False)
    assert grown.growth[0].after < 2 * TIB
    assert codes(plan_for(host(), 2 * TIB)) == {"target-larger"}
    assert plan_for(host(), 2 * TIB).assignments[0].landing is None


@pytest.mark.parametrize(
    ("source", "given", "why"),
    [
        (host(), {"adapt": False}, "boot loader has to be installed anew"),
        (host(content=Content(kind="ntfs")), {}, "Windows does not start"),
        (host(system=SystemFacts()), {}, "No Linux system was found"),
        (host(system=msgspec.structs.replace(FACTS, bootloader="extlinux")), {}, "starts by extlinux"),
    ],
)
def test_what_cannot_be_converted_is_refused_and_may_keep_its_mbr(
    source: Point, given: dict[str, Any], why: str
) -> None:
    plan = plan_for(source, **given)
    (problem,) = (p for p in plan.problems if p.code == "gpt-refused")
    assert why in problem.why and "stay unused" in problem.todo and not plan.allowed


def test_a_point_with_journals_keeps_its_mbr() -> None:
    source = host()
    journals = (JournalRef(disk="disk1", journal="ab" * 32, head=1000),)
    header = msgspec.structs.replace(source.header, journals=journals)
    assert "gpt-refused" in codes(plan_for(msgspec.structs.replace(source, header=header)), "error")


def test_another_firmware_mode_at_the_same_time_needs_its_partition() -> None:
    plan = plan_for(host(), firmware="uefi")
    assert "firmware-differs" in codes(plan, "error")
    assert "keep the partition table" in next(p.todo for p in plan.problems if p.code == "firmware-differs")


def test_names_from_before() -> None:
    guid = gpt_guid("DEADBEEF", 5, "disk1")
    assert guid.startswith("deadbeef-0005-8") and UUID(guid).version == 8
    assert guid != gpt_guid("deadbeef", 5, "disk2")
    assert was_called(guid, "deadbeef-05") and was_called(guid.upper(), "DEADBEEF-05")
    assert not was_called(guid, "deadbeef-06") and not was_called(guid, guid)
    assert was_called(gpt_guid("1", 1, ""), "00000001-01")
