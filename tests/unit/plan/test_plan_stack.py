"""What a plan says of arrays and encrypted volumes."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from recovery.format.point import Point, PointDisk
from recovery.layout import (
    Content,
    LogicalVolume,
    LuksVolume,
    MdArray,
    Partition,
    PartitionTable,
    SystemFacts,
    VolumeGroup,
)
from recovery.machine.model import Machine
from recovery.plan.build import build_plan
from recovery.plan.check_stack import (
    array_members,
    check_arrays,
    check_encryption,
    check_hibernation,
    check_key_memory,
    fewest,
    luks_volumes,
    root_is_encrypted,
)
from recovery.plan.model import Choices, Problem
from recovery.units import GIB, MIB
from tests.unit.plan.hosts import choices, codes, disk, point, recorded

LUKS = Content(kind="crypto_LUKS", uuid="luks-uuid")
LEG = Content(kind="linux_raid_member", uuid="aabbccdd-0011-2233-4455-66778899aabb")
ARRAY = MdArray(uuid="aabbccdd:00112233:44556677:8899aabb", level="raid1", name="host:root", devices=2)
NOWHERE = SystemFacts(root="")


def with_content(name: str, content: Content, **facts: Any) -> PointDisk:
    boot = Partition(number=1, start=MIB, size=256 * MIB, content=Content(kind="ext4", uuid=f"boot-{name}"))
    part = Partition(number=2, start=300 * MIB, size=90 * GIB, content=content)
    return disk(name, table=PartitionTable(kind="gpt", partitions=(boot, part)), **facts)


def found(problems: Any) -> list[tuple[str, str]]:
    return [(problem.severity, problem.code) for problem in problems]


def encrypted(**body: Any) -> Point:
    return point(with_content("disk1", LUKS), system=NOWHERE, **body)


def test_a_host_that_sleeps_is_told_that_its_session_goes() -> None:
    asleep = point(with_content("disk1", Content(kind="swsuspend", uuid="s")))
    assert found(check_hibernation(asleep, choices(disk1="x"))) == [("warning", "hibernated")]
    assert found(check_hibernation(asleep, choices(adapt=False, disk1="x"))) == []
    assert found(check_hibernation(point(), choices(disk1="x"))) == []


def test_a_luks_root_needs_its_passphrase_or_a_decision() -> None:
    here = encrypted()
    assert found(check_encryption(here, choices(disk1="x"))) == [("error", "luks-secret-missing")]
    given = msgspec.structs.replace(choices(disk1="x"), luks_secret=True)
    assert found(check_encryption(here, given)) == []
    assert found(check_encryption(here, choices(adapt=False, disk1="x"))) == [("warning", "luks-not-adapted")]
    (problem,) = check_encryption(here, choices(disk1="x"))
    assert "disk1:2" in problem.what
    assert "byte for byte" in problem.todo
    # The disk with the encrypted volume is not among those that are restored.
    assert found(check_encryption(here, choices(disk2="x"))) == []


def test_encrypted_data_beside_a_plain_root_is_nobodys_business() -> None:
    plain = point(disk(), with_content("disk2", LUKS))
    assert root_is_encrypted(plain) is False
    assert found(check_encryption(plain, choices(disk1="x", disk2="y"))) == []


@pytest.mark.parametrize(
    ("pvs", "answer"), [(("inside",), True), (("boot-disk1",), False), ((), False)], ids=["inside", "seen", "unknown"]
)
def test_a_root_that_a_running_host_told_of_may_lie_inside(pvs: tuple[str, ...], answer: bool) -> None:
    groups = (VolumeGroup(name="vg0", pv_uuids=pvs),)
    told = point(with_content("disk1", LUKS), system=SystemFacts(root="vg0/root"), groups=groups)
    assert root_is_encrypted(told) is answer


def test_where_the_capture_could_not_look_it_only_warns() -> None:
    groups = (
        VolumeGroup(
            name="vg0", pv_uuids=("x",),
            volumes=(
                LogicalVolume(name="p", size=1, segment="thin-pool"), LogicalVolume(name="r", size=1, segment="thin"),
            ),
        ),
    )  # fmt: skip
    unsure = encrypted(groups=groups)
    assert root_is_encrypted(unsure) is None
    assert found(check_encryption(unsure, choices(disk1="x"))) == [("warning", "luks-secret-missing")]


def test_a_repair_only_warns_for_nothing_says_where_the_root_is() -> None:
    repair = Choices(host="", point="", targets={"disk1": "x"}, restore=False)
    (problem,) = check_encryption(encrypted(), repair)
    assert (problem.severity, problem.code) == ("warning", "luks-secret-missing")
    assert "byte for byte" not in problem.todo


def test_keys_that_stay_in_the_old_machine_and_keys_that_want_memory() -> None:
    volume = LuksVolume(on="disk1:2", uuid="u", version=2, disk="disk1", offset=300 * MIB, memory=GIB,
                        tokens=("clevis", "my-own"))  # fmt: skip
    here = encrypted(luks_volumes=(volume,))
    assert luks_volumes(here) == [volume]
    given = msgspec.structs.replace(choices(disk1="x"), luks_secret=True)
    (note,) = check_encryption(here, given)
    assert (note.severity, note.code) == ("info", "luks-key-stays")
    assert "(clevis)" in note.what
    assert found(check_key_memory(here, Machine(memory=GIB), given)) == [("warning", "luks-memory")]
    assert found(check_key_memory(here, Machine(memory=2 * GIB), given)) == []
    assert found(check_key_memory(point(), Machine(memory=GIB), given)) == []


def test_points_of_before_tell_where_the_header_starts() -> None:
    (volume,) = luks_volumes(encrypted())
    assert (volume.on, volume.disk, volume.offset, volume.uuid) == ("disk1:2", "disk1", 300 * MIB, "luks-uuid")
    whole = point(disk(table=PartitionTable(), content=LUKS), system=NOWHERE)
    assert [(v.on, v.disk, v.offset) for v in luks_volumes(whole)] == [("disk1", "disk1", 0)]


def mirror(array: MdArray = ARRAY, **facts: Any) -> Point:
    return point(with_content("disk1", LEG), with_content("disk2", LEG), md_arrays=(array,), **facts)


def test_one_leg_of_a_mirror_starts_degraded_and_that_is_said() -> None:
    both = mirror()
    assert array_members(both, ARRAY) == ["disk1:2", "disk2:2"]
    assert found(check_arrays(both, choices(disk1="x", disk2="y"))) == []
    (problem,) = check_arrays(both, choices(disk1="x"))
    assert (problem.severity, problem.code) == ("warning", "md-degraded")
    assert "1 of its 2" in problem.what
    assert "disk2 is not restored" in problem.why
    assert found(check_arrays(both, choices(other="x"))) == []
    captured = point(with_content("disk1", LEG), md_arrays=(msgspec.structs.replace(ARRAY, members=("disk1:2",)),))
    (problem,) = check_arrays(captured, choices(disk1="x"))
    assert "Only those were captured" in problem.why


@pytest.mark.parametrize(
    ("level", "devices", "least"),
    [("raid1", 3, 1), ("raid5", 3, 2), ("raid6", 4, 2), ("raid10", 4, 3), ("raid0", 2, 2), ("linear", 2, 2)],
)
def test_how_many_disks_an_array_needs(level: str, devices: int, least: int) -> None:
    assert fewest(MdArray(uuid="u", level=level, devices=devices)) == least


def test_an_array_that_cannot_start_is_refused() -> None:
    stripes = mirror(msgspec.structs.replace(ARRAY, level="raid0"))
    assert found(check_arrays(stripes, choices(disk1="x"))) == [("error", "md-incomplete")]
    assert found(check_arrays(stripes, choices(adapt=False, disk1="x"))) == [("warning", "md-incomplete")]


def test_the_plan_has_them() -> None:
    machine = recorded("small_server")
    target = machine.disks[0].id
    here = encrypted()
    here = msgspec.structs.replace(
        here, body=msgspec.structs.replace(here.body, md_arrays=(ARRAY,), disks=(*here.body.disks,))
    )
    refused = build_plan(here, machine, choices(disk1=target))
    assert "luks-secret-missing" in codes(refused, "error")
    given = msgspec.structs.replace(choices(disk1=target), luks_secret=True)
    assert "luks-secret-missing" not in codes(build_plan(here, machine, given))
    assert build_plan(here, machine, given).id != refused.id
    assert isinstance(refused.problems[0], Problem)
