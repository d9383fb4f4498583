from __future__ import annotations

from typing import Any

import msgspec
import pytest

from recovery.format.point import Point
from recovery.layout import Content, PartitionTable, SystemFacts, VolumeGroup
from recovery.machine.model import Disk, Machine
from recovery.plan.build import build_plan, with_problems
from recovery.plan.checks import needed_to_start
from recovery.plan.model import Problem
from recovery.plan.render import render_plan
from recovery.plan.suggest import suggest
from recovery.units import GIB, MIB
from tests.unit.plan.hosts import PV_UUID, all_machines, choices, codes, disk, point, recorded, shrinkable, table

SMALL, NVME, FOURKN, FULL, TINY = (
    recorded(name) for name in ("small_server", "nvme_secure_boot", "fourkn", "full_of_data", "tiny_vm")
)
SHRINKABLE = point(disk(size=500 * GIB, table=shrinkable(500 * GIB)))
VG_HOST = (VolumeGroup(name="pve", pv_uuids=(PV_UUID,)),)


def lvm_point(group: str = "pve", **facts: Any) -> Point:
    groups = (VolumeGroup(name=group, pv_uuids=(PV_UUID,)),)
    return point(disk(table=table(pv=True)), groups=groups, system=SystemFacts(root=f"{group}/root"), **facts)


def two_disks(**facts: Any) -> Point:
    return point(disk(), disk("disk2", table=table(esp=False), **facts))


ARM = point(system=SystemFacts(root="disk1:2", architecture="aarch64"))
UEFI_BOTH = point(disk(table=table(bios_boot=True)))

CASES: list[tuple[str, str, Point, Machine, dict[str, Any]]] = [
    ("nothing-to-restore", "error", point(), SMALL, {}),
    ("unknown-disk", "error", point(), SMALL, {"disk9": "/dev/sdb"}),
    ("target-missing", "error", point(), SMALL, {"disk1": "wwn:ffffffffffffffff"}),
    ("same-target-twice", "error", two_disks(), SMALL, {"disk1": "/dev/sdb", "disk2": "wwn:5002538f4130a1c7"}),
    ("target-is-boot-medium", "error", point(disk(size=GIB)), SMALL, {"disk1": "/dev/sdc"}),
    ("target-holds-repository", "error", point(firmware="bios"), FULL, {"disk1": "/dev/sde"}),
    ("target-busy", "error", point(firmware="bios"), FULL, {"disk1": "/dev/sdd"}),
    ("target-read-only", "error", point(disk(size=GIB), firmware="bios"), FULL, {"disk1": "/dev/sdf"}),
    ("target-too-small", "error", point(disk(size=500 * GIB)), SMALL, {"disk1": "/dev/sdb"}),
    ("sector-size-differs", "error", point(), FOURKN, {"disk1": "/dev/sda"}),
    ("sector-size-converted", "info", point(disk(sector_size=4096)), SMALL, {"disk1": "/dev/sdb"}),
    ("target-smaller", "warning", SHRINKABLE, SMALL, {"disk1": "/dev/sdb"}),
    ("target-has-data", "warning", point(), SMALL, {"disk1": "/dev/sda"}),
    ("memory-low", "error", point(disk(size=GIB), firmware="bios"), TINY, {"disk1": "/dev/vda"}),
    ("architecture-differs", "error", ARM, SMALL, {"disk1": "/dev/sdb"}),
    ("firmware-differs", "error", point(firmware="bios"), SMALL, {"disk1": "/dev/sdb", "adapt": False}),
    ("firmware-converted", "warning", point(firmware="bios"), SMALL, {"disk1": "/dev/sdb"}),
    ("firmware-converted", "warning", point(), FULL, {"disk1": "/dev/sda"}),
    ("firmware-converted", "warning", UEFI_BOTH, FULL, {"disk1": "/dev/sda"}),
    ("firmware-unknown", "warning", point(firmware="unknown"), SMALL, {"disk1": "/dev/sdb"}),
    ("secure-boot-on", "warning", point(), NVME, {"disk1": "/dev/nvme0n1"}),
    ("secure-boot-off", "info", point(secure_boot=True), SMALL, {"disk1": "/dev/sdb"}),
    ("lvm-name-clash", "error", lvm_point(), SMALL, {"disk1": "/dev/sdb"}),
    ("lvm-name-clash", "error", lvm_point("vg0", firmware="bios"), FULL, {"disk1": "/dev/sda"}),
    ("disk-not-restored", "warning", two_disks(), SMALL, {"disk1": "/dev/sdb"}),
    ("disk-not-restored", "error", two_disks(), SMALL, {"disk2": "/dev/sdb"}),
    ("disk-not-restored", "warning", two_disks(), SMALL, {"disk2": "/dev/sdb", "adapt": False}),
    ("target-larger", "info", point(), SMALL, {"disk1": "/dev/sdb"}),
]


@pytest.mark.parametrize(("code", "severity", "host", "machine", "given"), CASES)
def test_each_problem_is_found(code: str, severity: str, host: Point, machine: Machine, given: dict[str, Any]) -> None:
    plan = build_plan(host, machine, choices(**given))
    assert code in codes(plan, severity)
    assert plan.allowed == ("error" not in {problem.severity for problem in plan.problems})
    problem = next(p for p in plan.problems if p.code == code)
    assert problem.what.endswith(".")
    assert problem.severity == "info" or (problem.why.endswith(".") and problem.todo.endswith("."))


def test_a_plan_onto_a_blank_disk_has_no_more_than_a_note() -> None:
    plan = build_plan(point(), SMALL, choices(disk1="/dev/sdb"))
    assert codes(plan) == {"target-larger"}
    assert plan.allowed
    assert [step.id for step in plan.steps] == ["open", "stream:disk1", "adapt", "prove"]
    bare = build_plan(point(), SMALL, choices(disk1="/dev/sdb", adapt=False))
    assert [step.id for step in bare.steps] == ["open", "stream:disk1", "settle", "prove"]
    assert (plan.logical, plan.used) == (100 * GIB, 25 * GIB)
    assert plan.assignments[0].losses == ()


def test_a_group_that_is_overwritten_does_not_clash() -> None:
    plan = build_plan(lvm_point(), SMALL, choices(disk1="/dev/sda"))
    assert "lvm-name-clash" not in codes(plan)


def test_a_filesystem_of_the_host_on_a_disk_that_stays() -> None:
    twin = msgspec.structs.replace(SMALL.disks[1], table=table())
    machine = msgspec.structs.replace(SMALL, disks=(SMALL.disks[0], twin))
    assert "duplicate-uuid" in codes(build_plan(point(), machine, choices(disk1="/dev/sda")), "warning")
    assert "duplicate-uuid" not in codes(build_plan(point(), machine, choices(disk1="/dev/sdb")))


def test_the_disk_with_a_part_of_the_root_group_is_needed() -> None:
    host = point(
        disk(),
        disk("disk2", table=table(pv=True)),
        groups=VG_HOST,
        system=SystemFacts(root="pve/root", boot="disk1:2"),
    )
    machine = msgspec.structs.replace(SMALL, volume_groups=(), disks=(SMALL.disks[1],))
    assert "disk-not-restored" in codes(build_plan(host, machine, choices(disk1="/dev/sdb")), "error")


def test_the_disk_that_is_a_physical_volume_as_a_whole_is_needed() -> None:
    whole = disk("disk2", table=PartitionTable(), content=Content(kind="LVM2_member", uuid="second"))
    groups = (VolumeGroup(name="pve", pv_uuids=(PV_UUID, "second")),)
    host = point(disk(table=table(pv=True)), whole, groups=groups, system=SystemFacts(root="pve/root"))
    found = [p for p in build_plan(host, SMALL, choices(disk1="/dev/sdb")).problems if p.code == "disk-not-restored"]
    assert [p.severity for p in found] == ["error"]
    bare = point(disk(table=PartitionTable(), content=Content(kind="ext4")), system=SystemFacts(root="disk1"))
    assert needed_to_start(bare) == {"disk1": "the root file system"}


def two_paths(**second: Any) -> Machine:
    """A SAN volume with two paths to it, so that its WWN names neither."""
    one = Disk(id="path:/dev/sdx", path="/dev/sdx", size=200 * GIB, wwn="5000c500a1b2c3d4")
    other = msgspec.structs.replace(one, id="path:/dev/sdy", path="/dev/sdy", **second)
    return msgspec.structs.replace(SMALL, disks=(one, other))


def test_two_paths_to_one_disk_are_one_disk() -> None:
    twice = choices(disk1="/dev/sdx", disk2="/dev/sdy")
    assert "same-target-twice" in codes(build_plan(two_disks(), two_paths(), twice), "error")
    for another in ({"wwn": "5000c500ffffffff"}, {"serial": "2"}):
        assert "same-target-twice" not in codes(build_plan(two_disks(), two_paths(**another), twice), "error")
    busy = build_plan(point(), two_paths(busy=("/dev/sdy1 is mounted at /srv.",)), choices(disk1="/dev/sdx"))
    assert "target-busy" in codes(busy, "error")
    assert "target-busy" not in codes(build_plan(point(), two_paths(), choices(disk1="/dev/sdx")), "error")
    assert [s.target for s in suggest(two_disks(), two_paths())] == ["path:/dev/sdx", ""]
    assert [s.target for s in suggest(point(), two_paths(busy=("Mounted.",)))] == [""]


def test_too_small_says_by_how_much() -> None:
    plan = build_plan(point(disk(size=481 * GIB)), SMALL, choices(disk1="/dev/sdb"))
    problem = next(p for p in plan.problems if p.code == "target-too-small")
    assert f"{481 * GIB - 480103981056} fewer than the {481 * GIB}" in problem.why
    assert "partition 2" in problem.why and "how much of it is in use is not known" in problem.why


def test_room_that_no_partition_has_may_be_missing() -> None:
    plan = build_plan(point(disk(size=480103981056 + 512)), SMALL, choices(disk1="/dev/sdb"))
    assert plan.allowed and codes(plan) == {"target-smaller"}
    landing = plan.assignments[0].landing
    assert landing is not None and landing.table == plan.assignments[0].source.table


def test_what_is_shrunk_moved_and_made_anew_is_said() -> None:
    plan = build_plan(SHRINKABLE, SMALL, choices(disk1="/dev/sdb"))
    problem = next(p for p in plan.problems if p.code == "target-smaller")
    assert "partition 2 (ext4) from 500 GiB to 447 GiB" in problem.why
    step = next(s for s in plan.steps if s.id == "stream:disk1")
    assert step.detail.endswith("laid out anew: partition 2 shrunk")
    source = disk(sector_size=512, table=shrinkable(100 * GIB))
    fourkn = build_plan(point(source), FOURKN, choices(disk1="/dev/sda"))
    assert fourkn.allowed, fourkn.problems
    problem = next(p for p in fourkn.problems if p.code == "sector-size-converted")
    assert "Made anew" in problem.why and "partition 1 (FAT)" in problem.why


def test_a_legacy_bios_does_not_start_from_sectors_of_4096_bytes() -> None:
    legacy = msgspec.structs.replace(FOURKN, firmware="bios")
    plan = build_plan(point(disk(table=shrinkable(100 * GIB)), firmware="bios"), legacy, choices(disk1="/dev/sda"))
    problem = next(p for p in plan.problems if p.code == "sector-size-differs")
    assert "legacy BIOS" in problem.why


def test_losses_name_what_a_person_would_miss() -> None:
    plan = build_plan(point(firmware="bios"), FULL, choices(disk1="/dev/sda"))
    text = " ".join(plan.assignments[0].losses)
    assert "'old' (Debian GNU/Linux 11) with the virtual machines mail, web" in text
    assert "MBR with 2 partitions: member of a RAID array 'old:0' 512 MiB, LVM physical volume" in text
    assert "LVM volume group vg0 with root 50.0 GiB (ext4), vm-mail 200 GiB" in text
    assert "1 other physical volume" in text


def test_a_file_needs_no_fitting_machine_but_cannot_be_adapted() -> None:
    file = Disk(id="path:/srv/a.raw", path="/srv/a.raw", size=100 * GIB, bus="file")
    machine = msgspec.structs.replace(FULL, disks=(*FULL.disks, file))
    plan = build_plan(point(), machine, choices(adapt=False, disk1="/srv/a.raw"))
    assert plan.allowed
    assert codes(plan) == set()
    assert [step.id for step in plan.steps] == ["open", "stream:disk1", "prove"]
    assert "adapt-needs-device" in codes(build_plan(point(), machine, choices(disk1="/srv/a.raw")), "error")


def test_a_host_that_comes_back_unadapted_is_told_and_one_that_stays_where_it_is_is_not() -> None:
    unadapted = build_plan(point(), SMALL, choices(adapt=False, disk1="/dev/sdb"))
    assert unadapted.allowed and "not-adapted" in codes(unadapted, "info")
    back = msgspec.structs.replace(choices(adapt=False, disk1="/dev/sdb"), compare=True)
    for other in (choices(disk1="/dev/sdb"), back):
        assert "not-adapted" not in codes(build_plan(point(), SMALL, other))


def test_the_id_is_a_digest_of_everything() -> None:
    plan = build_plan(point(), SMALL, choices(disk1="/dev/sdb"))
    assert plan.id == build_plan(point(), SMALL, choices(disk1="/dev/sdb")).id
    others = [
        build_plan(point(), SMALL, choices(disk1="/dev/sda")),
        build_plan(point(), SMALL, choices(disk1="/dev/sdb", grow=False)),
        build_plan(point(disk(used=1)), SMALL, choices(disk1="/dev/sdb")),
        with_problems(plan, [Problem(severity="error", code="x", what="X.")]),
    ]
    assert len({plan.id, *(other.id for other in others)}) == 5
    assert not others[-1].allowed


def test_a_plan_survives_json() -> None:
    for machine in all_machines().values():
        for target in machine.disks:
            plan = build_plan(two_disks(), machine, choices(disk1=target.id))
            assert msgspec.json.decode(msgspec.json.encode(plan), type=type(plan)) == plan


def test_rendered_it_says_all_that_matters() -> None:
    text = "\n".join(render_plan(build_plan(point(firmware="bios"), SMALL, choices(adapt=False, disk1="/dev/sda"))))
    for words in (
        "disk1 (100 GiB) -> /dev/sda (SAMSUNG MZ7LH480HAHQ-00005, 447 GiB, serial S45PNA0M501234)",
        "will be lost: LVM volume group pve",
        "REFUSED firmware-differs",
        "WARNING target-has-data",
        "The plan is refused: nothing will be written.",
    ):
        assert words in text
    assert "The plan may be run." in render_plan(build_plan(point(), SMALL, choices(disk1="/dev/sdb")))[-1]


def test_memory_scarce_is_only_a_note() -> None:
    machine = msgspec.structs.replace(SMALL, memory=700 * MIB)
    plan = build_plan(point(), machine, choices(disk1="/dev/sdb"))
    assert plan.allowed
    assert "memory-scarce" in codes(plan, "info")


def test_what_the_machine_starts_from_is_restored_last() -> None:
    """A host that lost its power after its first disk must not come up without the others."""
    host = point(disk(), disk("disk2", table=table(esp=False)), disk("disk3", table=table(esp=False, bios_boot=True)))
    given = choices(disk1="/dev/sda", disk2="/dev/sdb", disk3="/dev/sdc")
    plan = build_plan(host, SMALL, given)
    written = [step.id for step in plan.steps if step.destructive]
    assert written == ["stream:disk2", "stream:disk1", "stream:disk3"]
    assert [assignment.source.name for assignment in plan.assignments] == ["disk2", "disk1", "disk3"]
