"""The list of points: an hour full of minutes is one row; what a point says of its VMs."""

from __future__ import annotations

import msgspec

from recovery.cli.points import fold_hours, guest_words, occupied_words, point_json
from recovery.format.extents import Run, encode_runs
from recovery.format.point import Point, PointBody, PointDisk, PointHeader, PointSummary
from recovery.layout import DiskExtents, Occupancy, VirtualMachine, VmDisk


def test_the_newest_of_an_hour_stands_for_its_minutes() -> None:
    begin = 1_700_000_000 // 3600 * 3600.0
    minutes = [PointSummary(id=f"m{n}", host="h", created=begin + 60 * n) for n in range(60)]
    before = [PointSummary(id=f"b{n}", host="h", created=begin - 600 * n - 1) for n in range(3)]
    rows = fold_hours([*reversed(before), *minutes])
    assert [(point.id, folded) for point, folded in rows] == [("m59", 59), ("b0", 0), ("b1", 0), ("b2", 0)]


def test_how_consistent_a_vm_is_and_where_its_disk_lies() -> None:
    disks = (
        VmDisk(target="vda", source="/a", occupies=Occupancy(size=1 << 20, disks=(
            DiskExtents(disk="disk1", runs=encode_runs([Run(0, 1 << 20, 8192), Run(16384, 1 << 21, 4096)])),))),
        VmDisk(target="vdb", source="/b", unmapped="it is compressed by its filesystem"),
        VmDisk(target="vdc", source="/c"),
    )  # fmt: skip
    vm = VirtualMachine(name="web", disks=disks, consistency="crash", unquiesced="it has no guest agent")
    disk = PointDisk(name="disk1", size=1 << 30, sector_size=512, chunk_size=1 << 20, root="00")
    body = PointBody(disks=(disk,), consistency="filesystem", firmware="uefi", vms=(vm,))
    point = Point(id="ab" * 32, header=PointHeader(version=1, repository="r", host="h", created=0.0), body=body)
    assert guest_words(vm) == ", crash consistent (it has no guest agent)"
    assert guest_words(VirtualMachine(name="old")) == ""
    assert guest_words(VirtualMachine(name="off", consistency="offline")) == ", offline"
    words = [occupied_words(each.occupies, each.unmapped, point) for each in disks]
    assert words == [
        "; 12.0 KiB in 2 extents of disk1",
        "; where it lies is not stored: it is compressed by its filesystem",
        "",
    ]
    whole = msgspec.json.decode(point_json(point))
    assert msgspec.convert({key: value for key, value in whole.items() if key != "type"}, Point) == point
    told = whole["body"]["vms"][0]["disks"]
    (part,) = told[0]["occupies"]["disks"]
    assert (part["disk"], part["extents"]) == ("disk1", [[0, 1 << 20, 8192], [16384, 1 << 21, 4096]])
    assert told[2]["occupies"] is None
