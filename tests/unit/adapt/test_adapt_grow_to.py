"""What was chosen grows, and nothing else: partitions, and volumes of a group."""

from __future__ import annotations

import json

import pytest

from recovery.adapt import grow
from recovery.adapt.devices import Node
from recovery.adapt.model import AdaptRequest, Job
from recovery.commands import Completed, FakeRunner, use_runner
from recovery.format.point import Point, PointBody, PointDisk, PointHeader
from recovery.layout import GrowPlace, Partition, PartitionTable, VolumeGroup
from recovery.machine.model import Disk, Machine
from recovery.units import GIB, MIB

DISK = Node("/dev/sda", "disk", 200 * GIB, "disk1")
PV = Node("/dev/sda2", "part", 0, "disk1", 2, "LVM2_member", "pv")
TABLE = {
    "partitiontable": {
        "label": "gpt", "sectorsize": 512, "lastlba": 200 * GIB // 512 - 34,
        "partitions": [
            {"node": "/dev/sda1", "start": 2048, "size": 40 * GIB // 512, "type": "x"},
            {"node": "/dev/sda2", "start": 2048 + 40 * GIB // 512, "size": 40 * GIB // 512, "type": "x"},
        ],
    }
}  # fmt: skip
VOLUMES = {"report": [{"lv": [
    {"vg_name": "vg0", "lv_name": name, "lv_size": "1", "segtype": "linear"} for name in ("root", "var")
]}]}  # fmt: skip
FREE = {"report": [{"vg": [{"vg_name": "vg0", "vg_free": str(120 * GIB)}]}]}


def job_for(place: GrowPlace) -> Job:
    table = PartitionTable(kind="gpt", partitions=(Partition(number=1, start=MIB, size=GIB),))
    disk = PointDisk(name="disk1", size=100 * GIB, sector_size=512, chunk_size=1, root="", table=table)
    group = VolumeGroup(name="vg0", free=5 * GIB)
    point = Point(
        id="p",
        header=PointHeader(version=1, repository="r", host="h", created=0),
        body=PointBody(disks=(disk,), consistency="offline", firmware="bios", volume_groups=(group,)),
    )
    targets = {"disk1": Disk(id="x", path="/dev/sda", size=200 * GIB)}
    request = AdaptRequest(point=point, targets=targets, machine=Machine(), grow_to=(place,))
    return Job(request, lambda event: None, nodes=(DISK, PV))


def answers(content: str = "ext4") -> FakeRunner:
    return FakeRunner({
        ("sfdisk", "--json"): Completed((), 0, json.dumps(TABLE)),
        ("blkid", "-p", "-o", "export", "/dev/sda1"): Completed((), 0, f"TYPE={content}\n"),
        ("blkid", "-p", "-o", "export", "/dev/sda2"): Completed((), 0, "TYPE=LVM2_member\n"),
        ("lvm", "lvs"): Completed((), 0, json.dumps(VOLUMES)),
        ("lvm", "vgs"): Completed((), 0, json.dumps(FREE)),
        ("lvm", "pvs"): Completed((), 0, "  vg0\n"),
    })  # fmt: skip


def test_a_partition_in_the_middle_has_its_size_and_the_last_one_is_left_alone() -> None:
    fake = answers()
    with use_runner(fake):
        (node,) = grow._grow_disk(job_for(GrowPlace(disk="disk1", number=1)), "disk1")
    assert (node.path, node.number, node.content) == ("/dev/sda1", 1, "ext4")
    assert not any("-N" in call for call in fake.calls)


def test_the_last_partition_grows_when_it_is_the_one() -> None:
    fake = answers()
    with use_runner(fake):
        (node,) = grow._grow_disk(job_for(GrowPlace(disk="disk1", number=2)), "disk1")
    assert node.path == "/dev/sda2"
    assert [call[-2:] for call in fake.calls if "-N" in call] == [("2", "/dev/sda")]


def test_a_chosen_partition_whose_content_does_not_grow_is_told() -> None:
    job = job_for(GrowPlace(disk="disk1", number=1))
    with use_runner(answers("zfs_member")):
        assert grow._grow_disk(job, "disk1") == []
    assert job.warnings == ["/dev/sda1 stays: zfs_member is not grown."]


@pytest.mark.parametrize(("volume", "extended"), [("vg0/var", [f"+{115 * GIB}b", "vg0/var"]), ("vg0", [])])
def test_the_chosen_volume_gets_what_is_new_and_a_chosen_group_keeps_it_free(volume: str, extended: list[str]) -> None:
    fake = answers()
    job = job_for(GrowPlace(disk="disk1", number=2, volume=volume))
    with use_runner(fake):
        grow._grow_group(job, PV)
    found = [call for call in fake.calls if "lvextend" in call]
    assert [list(call[-2:]) for call in found] == ([extended] if extended else [])
    assert any(("grew by 115" in text) == bool(extended) for text in job.changes)


def test_a_volume_that_is_gone_is_told_and_nothing_else_grows_instead() -> None:
    fake = answers()
    job = job_for(GrowPlace(disk="disk1", number=2, volume="vg0/srv"))
    with use_runner(fake):
        grow._grow_group(job, PV)
    assert not any("lvextend" in call for call in fake.calls)
    assert "vg0/srv is not in volume group vg0" in job.warnings[0]
