"""A real disk with an MBR, captured and restored onto one of 3 TiB with a GPT, where a partition grows beyond what an
MBR reaches; checked by the partitioners and filesystems' own tools."""

from __future__ import annotations

import json
import os
from pathlib import Path

import msgspec
import pytest

from recovery.adapt.gpt import read_table
from recovery.adapt.grow import resize_partition
from recovery.adapt.tables import differences, growth
from recovery.capture.rawtable import parse_table
from recovery.format.point import Point
from recovery.machine.model import Disk, Machine
from recovery.machine.partuuid import was_called
from recovery.machine.probe_disks import probe_table
from recovery.plan.build import build_plan
from recovery.plan.model import Choices, RestorePlan
from recovery.units import MIB, TIB
from tests.integration.test_landing import MBR, Host, _reader, content, loop, restore, sh

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0 or not Path("/dev/fuse").exists(), reason="needs root and FUSE"),
]
SIZE = 3 * TIB


def plan_for(point: Point, device: str, *grow_to: str) -> RestorePlan:
    disk = Disk(id=f"path:{device}", path=device, size=SIZE, bus="sata")
    machine = Machine(firmware="bios", memory=2**32, disks=(disk,))
    facts = msgspec.structs.replace(point.body.system, root="disk1:1", os_id="debian", bootloader="grub")
    known = msgspec.structs.replace(point, body=msgspec.structs.replace(point.body, system=facts))
    choices = Choices(host="h", point=point.id, targets={"disk1": disk.id}, to_gpt=True, grow_to=grow_to)
    return build_plan(known, machine, choices)


@pytest.mark.parametrize("first", [2048, 63])
def test_an_mbr_becomes_a_gpt_on_a_disk_of_3_tib(tmp_path: Path, first: int) -> None:
    host = Host(tmp_path, 760 * MIB, MBR.replace("size=300MiB, type=83", f"start={first}, size=614400, type=83"))
    with host.image.open("r+b") as file:
        file.write(b"\xeb\x63GRUB")
        file.seek(512)
        file.write(b"core image" * 100)
    host.make(1, "mkfs.ext4", "-q", "-b", "4096", count=60)
    host.make(5, "mkfs.btrfs", "-q", count=60, size=50_000)
    host.make(6, "mkswap", "-q", "-U", "55555555-5555-5555-5555-555555555555")
    repository, point = host.capture(tmp_path / "repo")
    target = tmp_path / "target"
    with target.open("wb") as file:
        file.write(b"\xa5" * (4 * MIB))  # what was there before
    os.truncate(target, SIZE)
    with loop(target) as device:
        plan = plan_for(point, device, "disk1:5")
        assert {"gpt-converted", "target-larger"} <= {p.code for p in plan.problems}
        landing = restore(repository, point, plan)
    assert "No problems found" in sh("sgdisk", "--verify", target)
    assert json.loads(sh("sfdisk", "--json", target))["partitiontable"]["label"] == "gpt"
    assert "bios_grub" in sh("parted", "--script", target, "print") and "legacy_boot" in sh(
        "parted", "--script", target, "print"
    )
    new = {part.number: part for part in parse_table(_reader(target), SIZE, 512).table.partitions}
    assert set(new) == {1, 2, 5, 6}
    for part in host.table.partitions:
        if part.number != 2:
            assert was_called(new[part.number].uuid, part.uuid)
    assert probe_table(str(target)).uuid == landing.table.uuid
    assert differences(read_table(str(target)), landing.table) == []
    assert new[1].start == (first * 512 if first == 2048 else first * 512 + MIB)
    assert new[5].size > SIZE - 1024 * MIB
    with target.open("rb") as file:
        head = file.read(MIB)
    assert not any(head[:440]) and head[440:444] == b"\xef\xbe\xad\xde"  # no boot code that looks for its core there
    assert content(target, new[1].start, new[1].size, tmp_path / "m", "ext4") == host.digests[1]
    assert content(target, new[5].start, new[5].size, tmp_path / "m", "btrfs") == host.digests[5]
    with loop(target, new[6].start, new[6].size) as device:
        assert "UUID=55555555-5555-5555-5555-555555555555" in sh("blkid", "-p", "-o", "export", device)


def test_where_nothing_was_chosen_the_last_partition_takes_the_room_afterwards(tmp_path: Path) -> None:
    host = Host(tmp_path, 300 * MIB, "label: dos\nlabel-id: 0x00c0ffee\nsize=200MiB, type=83, bootable\n")
    host.make(1, "mkfs.ext4", "-q", "-b", "4096", count=30)
    repository, point = host.capture(tmp_path / "repo")
    target = tmp_path / "target"
    target.touch()
    os.truncate(target, SIZE)
    with loop(target) as device:
        restore(repository, point, plan_for(point, device))
    (step,) = growth(read_table(str(target)), SIZE)
    assert step.size > 2 * TIB
    resize_partition(str(target), step, 512)
    assert "No problems found" in sh("sgdisk", "--verify", target)
    (_, grown) = sorted(parse_table(_reader(target), SIZE, 512).table.partitions, key=lambda part: part.start)
    assert grown.start + grown.size > SIZE - 2 * MIB and was_called(grown.uuid, "00c0ffee-01")
    assert content(target, grown.start, grown.size, tmp_path / "m", "ext4") == host.digests[1]
