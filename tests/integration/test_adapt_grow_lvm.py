"""A chosen volume of a real group grows on a larger disk, by LVM's own tools. Metadata only: they are told that there
is no device-mapper, which not every kernel that runs tests has."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from recovery.adapt.devices import Node
from recovery.adapt.grow import _grow_group
from recovery.adapt.model import AdaptRequest, Job
from recovery.commands import Completed, run_real, use_runner
from recovery.format.point import Point, PointBody, PointDisk, PointHeader
from recovery.layout import GrowPlace, VolumeGroup
from recovery.machine.model import Disk, Machine
from recovery.units import MIB
from tests.integration.capture_images import make_vg
from tests.integration.test_landing import loop, sh

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


def sizes(device: str) -> dict[str, int]:
    said = sh("lvm", "lvs", "--devices", device, "--reportformat", "json", "--units", "b", "--nosuffix",
              "-o", "lv_name,lv_size")  # fmt: skip
    return {row["lv_name"]: int(row["lv_size"]) for row in json.loads(said)["report"][0]["lv"]}


def without_driver(argv: list[str], **options: object) -> Completed:
    words = [*argv, "--driverloaded", "n"] if argv[:2] == ["lvm", "lvextend"] else argv
    return run_real(words, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(("volume", "grown"), [("vgrow/var", "var"), ("vgrow/root", "root"), ("vgrow", "")])
def test_the_chosen_volume_gets_what_is_new_and_no_more(tmp_path: Path, volume: str, grown: str) -> None:
    image = tmp_path / "disk"
    image.touch()
    os.truncate(image, 200 * MIB)
    # 100 MiB: 99 extents of 1 MiB, of which 49 are free and stay so.
    make_vg(image, 0, 100 * MIB, "vgrow", {"root": [(0, 20, 0)], "var": [(0, 30, 20)]}, tmp_path)
    group = VolumeGroup(name="vgrow", size=99 * MIB, free=49 * MIB)
    disk = PointDisk(name="disk1", size=100 * MIB, sector_size=512, chunk_size=1, root="")
    point = Point(
        id="p",
        header=PointHeader(version=1, repository="r", host="h", created=0),
        body=PointBody(disks=(disk,), consistency="offline", firmware="bios", volume_groups=(group,)),
    )
    with loop(image) as device:
        node = Node(device, "disk", 200 * MIB, "disk1", content="LVM2_member")
        place = GrowPlace(disk="disk1", number=0, volume=volume)
        targets = {"disk1": Disk(id="x", path=device, size=200 * MIB)}
        request = AdaptRequest(point=point, targets=targets, machine=Machine(), grow_to=(place,))
        job = Job(request, lambda event: None, nodes=(node,))
        for _ in range(2):  # a second run finds nothing to do
            with use_runner(without_driver):  # type: ignore[arg-type]
                _grow_group(job, node)
            found = sizes(device)
            assert found == {
                "root": (120 if grown == "root" else 20) * MIB, "var": (130 if grown == "var" else 30) * MIB,
            }  # fmt: skip
        assert job.warnings == []
