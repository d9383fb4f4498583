"""Where the room of a larger disk goes: what is offered, what it is called, what it becomes, what is refused."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recovery.errors import UsageError
from recovery.format.point import JournalRef, Point, PointDisk
from recovery.layout import (
    Content,
    GrowPlace,
    LogicalVolume,
    MdArray,
    Partition,
    PartitionTable,
    SystemFacts,
    VolumeGroup,
)
from recovery.machine.model import Disk, Machine
from recovery.plan.build import build_plan
from recovery.plan.growth import candidates, landings, named, places_of, wishes
from recovery.plan.growth_checks import growing
from recovery.plan.model import Choices, RestorePlan
from recovery.plan.render import render_plan
from recovery.units import GIB, MIB
from tests.unit.plan.hosts import ESP, LINUX, LVM, PV_UUID, choices, codes, disk, point

EXT4 = Content(kind="ext4", uuid="u", block_size=4096)
SWAP = Content(kind="swap", uuid="s")
PV = Content(kind="LVM2_member", uuid=PV_UUID)


def gpt(*parts: tuple[int, str, Content]) -> PartitionTable:
    at, found = MIB, []
    for number, (size, type, content) in enumerate(parts, 1):
        found.append(Partition(number=number, start=at, size=size, type=type, uuid=f"p{number}", content=content))
        at += size
    return PartitionTable(kind="gpt", uuid="t", partitions=tuple(found))


ROOT_AND_SWAP = gpt((GIB, ESP, Content(kind="vfat")), (40 * GIB, LINUX, EXT4), (58 * GIB, LINUX, SWAP))
MOUNTED = SystemFacts(root="disk1:2", esp="disk1:1", mounts={"/": "disk1:2", "/boot/efi": "disk1:1"})


def machine(*sizes: int, sector: int = 512, firmware: str = "uefi") -> Machine:
    disks = tuple(
        Disk(id=f"d{n}", path=f"/dev/sd{'abc'[n]}", size=size, sector_size=sector, bus="sata")
        for n, size in enumerate(sizes)
    )
    return Machine(firmware=firmware, memory=8 * GIB, disks=disks)  # type: ignore[arg-type]


def plan_for(host: Point, here: Machine, *grow_to: str, **given: Any) -> RestorePlan:
    targets = {source.name: target.id for source, target in zip(host.body.disks, here.disks, strict=False)}
    chosen = msgspec.structs.replace(choices(), targets=targets, grow_to=grow_to, **given)
    return build_plan(host, here, chosen)


def root_and_swap() -> Point:
    return point(disk(table=ROOT_AND_SWAP, device="/dev/nvme0n1"), system=MOUNTED)


@pytest.mark.parametrize("name", ["/", "/dev/nvme0n1p2", "disk1:2"])
def test_a_partition_in_the_middle_grows_and_what_follows_moves(name: str) -> None:
    plan = plan_for(root_and_swap(), machine(200 * GIB), name)
    assert plan.allowed and codes(plan) == {"target-larger"}
    (one,) = plan.growth
    assert (one.name, one.chosen, one.moved) == ("/", True, ("disk1:3",))
    landing = plan.assignments[0].landing
    assert landing is not None
    _, root, swap = landing.placements
    assert (root.start, root.way, root.size) == (MIB + GIB, "copy", one.after)
    assert root.size > 139 * GIB
    assert (swap.size, swap.start, swap.way) == (58 * GIB, root.start + root.size, "copy")
    assert 200 * GIB - 2 * MIB < swap.start + swap.size <= 200 * GIB - 33 * 512
    assert places_of(plan.growth) == (GrowPlace(disk="disk1", number=2),)
    assert "* / (ext4, partition 2 of disk1) from 40.0 GiB" in "\n".join(render_plan(plan))


def test_nobody_chose_and_the_last_partition_cannot_grow() -> None:
    plan = plan_for(root_and_swap(), machine(200 * GIB))
    assert plan.assignments[0].landing is None and not growing(plan)
    assert [one.name for one in plan.growth] == ["/"]
    assert "The rest stays unused." in next(p.why for p in plan.problems)


def test_the_last_partition_is_not_laid_out_anew() -> None:
    plan = plan_for(point(system=MOUNTED), machine(200 * GIB), "/")
    assert plan.assignments[0].landing is None
    assert growing(plan) == {"/"} and plan.growth[0].after > 199 * GIB


def test_a_wrong_name_is_one_error_that_lists_what_can_grow() -> None:
    plan = plan_for(root_and_swap(), machine(200 * GIB), "/srv")
    assert codes(plan, "error") == {"grow-to-unknown"}
    (problem,) = (p for p in plan.problems if p.severity == "error")
    assert "/srv" in problem.what and "/ (ext4, partition 2 of disk1) from 40.0 GiB" in problem.todo
    assert plan.assignments[0].landing is None


@pytest.mark.parametrize(
    ("name", "why"), [("disk1:3", "Swap is not grown"), ("/boot/efi", ""), ("/dev/nvme0n1p3", "Swap is not grown")]
)
def test_what_cannot_grow_says_why(name: str, why: str) -> None:
    plan = plan_for(root_and_swap(), machine(200 * GIB), name)
    (problem,) = (p for p in plan.problems if p.severity == "error")
    assert why in problem.why
    assert problem.code == ("grow-to-refused" if why else "grow-to-unknown")


def test_no_room_no_adaptation_and_a_point_with_journals_are_refused() -> None:
    host = root_and_swap()
    assert codes(plan_for(host, machine(100 * GIB), "/"), "error") == {"grow-to-refused"}
    assert codes(plan_for(host, machine(200 * GIB), "/", adapt=False), "error") == {"grow-to-refused"}
    journals = (JournalRef(disk="disk1", journal="ab" * 32, head=1000),)
    header = msgspec.structs.replace(host.header, journals=journals)
    plan = plan_for(msgspec.structs.replace(host, header=header), machine(200 * GIB), "/")
    assert codes(plan, "error") == {"grow-to-refused"}
    assert "journals" in next(p.why for p in plan.problems if p.severity == "error")


def volumes(*lvs: LogicalVolume, table: PartitionTable | None = None) -> Point:
    group = VolumeGroup(name="vg0", uuid="g", size=90 * GIB, free=GIB, pv_uuids=(PV_UUID,), volumes=lvs)
    layout = table or gpt((GIB, ESP, Content(kind="vfat")), (98 * GIB, LVM, PV))
    facts = SystemFacts(root="vg0/root", mounts={"/": "vg0/root", "/var": "vg0/var-x"})
    return point(disk(table=layout), groups=(group,), system=facts)


ROOT_LV = LogicalVolume(name="root", size=20 * GIB, content=EXT4)
VAR_LV = LogicalVolume(name="var-x", size=40 * GIB, content=Content(kind="xfs"))


@pytest.mark.parametrize("name", ["/var", "vg0/var-x", "/dev/vg0/var-x", "/dev/mapper/vg0-var--x"])
def test_a_volume_is_chosen_by_each_of_its_names(name: str) -> None:
    plan = plan_for(volumes(ROOT_LV, VAR_LV), machine(200 * GIB), name)
    assert plan.allowed
    assert places_of(plan.growth) == (GrowPlace(disk="disk1", number=2, volume="vg0/var-x"),)
    assert growing(plan) == {"/var"}
    chosen = next(one for one in plan.growth if one.chosen)
    assert 139 * GIB < chosen.after < 141 * GIB


def test_of_several_volumes_none_grows_unless_it_is_chosen() -> None:
    plan = plan_for(volumes(ROOT_LV, VAR_LV), machine(200 * GIB))
    assert growing(plan) == {"vg0"}
    assert [one.name for one in plan.growth] == ["/", "/var", "vg0"]
    assert growing(plan_for(volumes(ROOT_LV), machine(200 * GIB))) == {"/"}
    chosen = plan_for(volumes(ROOT_LV), machine(200 * GIB), "vg0")
    assert growing(chosen) == {"vg0"} and places_of(chosen.growth)[0].volume == "vg0"


def test_a_thin_pool_grows_its_volumes_and_swap_do_not() -> None:
    pool = LogicalVolume(name="data", size=40 * GIB, segment="thin-pool")
    thin = LogicalVolume(name="vm-1", size=90 * GIB, segment="thin")
    swap = LogicalVolume(name="swap", size=GIB, content=SWAP)
    host = volumes(pool, thin, swap)
    assert [one.name for one in plan_for(host, machine(200 * GIB)).growth] == ["vg0/data", "vg0"]
    for name, why in (("vg0/vm-1", "its pool can grow"), ("vg0/swap", "Swap is not grown")):
        (problem,) = (p for p in plan_for(host, machine(200 * GIB), name).problems if p.severity == "error")
        assert why in problem.why


def test_a_physical_volume_in_the_middle_grows_for_a_volume_on_it() -> None:
    host = volumes(ROOT_LV, VAR_LV, table=gpt((60 * GIB, LVM, PV), (30 * GIB, LINUX, EXT4)))
    plan = plan_for(host, machine(200 * GIB), "/var")
    landing = plan.assignments[0].landing
    assert landing is not None and landing.placements[0].size > 160 * GIB and landing.placements[1].moved
    # Two names on one disk cannot both get its room.
    both = plan_for(host, machine(200 * GIB), "/var", "disk1:2")
    assert codes(both, "error") == {"grow-to-refused"}


def mirrored(level: str = "raid1") -> Point:
    member = Content(kind="linux_raid_member", uuid="m")
    parts = gpt((GIB, ESP, Content(kind="vfat")), (98 * GIB, LINUX, member))
    array = MdArray(
        uuid="m", level=level, devices=2, members=("disk1:2", "disk2:2"), volume="md/0", content=EXT4, name="0"
    )
    return point(
        disk(table=parts), disk("disk2", table=parts, device="/dev/sdb"), md_arrays=(array,),
        system=SystemFacts(root="md/0", mounts={"/": "md/0"}),
    )  # fmt: skip


def test_a_mirror_grows_with_both_its_legs_or_not() -> None:
    plan = plan_for(mirrored(), machine(200 * GIB, 150 * GIB), "/")
    assert plan.allowed
    assert {(place.disk, place.number) for place in places_of(plan.growth)} == {("disk1", 2), ("disk2", 2)}
    assert 147 * GIB < plan.growth[0].after < 149 * GIB  # as large as its smallest leg
    short = plan_for(mirrored(), machine(200 * GIB, 100 * GIB), "/dev/md/0")
    assert codes(short, "error") == {"grow-to-refused"}
    assert codes(plan_for(mirrored("raid5"), machine(200 * GIB, 200 * GIB), "/"), "error") >= {"grow-to-refused"}


def test_an_encrypted_partition_grows_when_it_can_be_opened() -> None:
    host = point(disk(table=gpt((98 * GIB, LINUX, Content(kind="crypto_LUKS", uuid="l")))), system=SystemFacts())
    assert "grow-to-refused" in codes(plan_for(host, machine(200 * GIB), "disk1:1"), "error")
    assert "grow-to-refused" not in codes(plan_for(host, machine(200 * GIB), "disk1:1", luks_secret=True), "error")


def test_a_logical_partition_takes_its_container_along() -> None:
    parts = (
        Partition(number=1, start=MIB, size=10 * GIB, type="83", content=EXT4),
        Partition(number=2, start=11 * GIB - MIB, size=60 * GIB + MIB, type="05"),
        Partition(number=5, start=11 * GIB, size=20 * GIB, type="83", content=EXT4),
        Partition(number=6, start=31 * GIB + MIB, size=20 * GIB, type="82", content=SWAP),
    )
    table = PartitionTable(kind="mbr", uuid="1", partitions=parts)
    host = point(disk(table=table), system=SystemFacts(root="disk1:1"), firmware="bios")
    plan = plan_for(host, machine(200 * GIB, firmware="bios"), "/dev/sda5")
    landing = plan.assignments[0].landing
    assert plan.allowed and landing is not None
    found = {part.number: part for part in landing.table.partitions}
    assert found[5].start == 11 * GIB and found[5].size > 160 * GIB
    assert found[6].start > found[5].start + found[5].size
    assert found[2].start <= found[5].start and found[2].start + found[2].size == found[6].start + found[6].size


@given(st.lists(st.integers(1, 400), min_size=1, max_size=6), st.integers(0, 5), st.integers(0, 5000))
def test_whatever_grows_all_lies_in_order_on_the_disk_and_nothing_is_cut(
    sizes: list[int], which: int, more: int
) -> None:
    table = gpt(*((size * MIB, LINUX, EXT4) for size in sizes))
    size = (sum(sizes) + 3) * MIB
    source: PointDisk = disk(table=table, size=size)
    number = which % len(sizes) + 1
    host, target = point(source), Disk(id="d", path="/dev/sda", size=size + more * MIB, bus="sata")
    wanted = Choices(host="h", point="p", targets={"disk1": "d"}, grow_to=(f"disk1:{number}",))
    found = landings(host, [(source, target)], wanted)
    one = named(f"disk1:{number}", candidates(host, [(source, target)], wanted))
    assert one is not None and (one.why_not == "") == (more >= 1)
    if not found:
        assert more == 0 or number == len(sizes)
        return
    cursor = 0
    for placed in found["disk1"].placements:
        assert placed.start >= cursor and (placed.start - placed.old_start) % MIB == 0
        assert placed.size >= placed.old_size and (placed.size > placed.old_size) == (placed.number == number)
        cursor = placed.start + placed.size
    assert cursor <= target.size - 33 * 512
    assert one.after == next(p.size for p in found["disk1"].placements if p.number == number)


def test_none_is_the_same_as_not_to_grow() -> None:
    assert wishes(("none",)) == (False, ())
    assert wishes(()) == (True, ()) and wishes((), False) == (False, ())
    assert wishes(("/", "/")) == (True, ("/",))
    for words, grow in ((("none", "/"), True), (("/",), False)):
        with pytest.raises(UsageError, match="somewhere and nowhere"):
            wishes(words, grow)
