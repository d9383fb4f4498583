"""Real disks captured and restored onto larger ones, where a partition in the middle gets the room; checked by the
filesystems' own tools."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from recovery.adapt.grow import grow_filesystem
from recovery.capture.rawtable import parse_table
from recovery.format.point import Point
from recovery.layout import Partition
from recovery.machine.model import Disk, Machine
from recovery.plan.build import build_plan
from recovery.plan.model import Choices, RestorePlan
from recovery.units import MIB
from tests.integration.test_landing import GPT, MBR, Host, _reader, blank, content, loop, restore, sh

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0 or not Path("/dev/fuse").exists(), reason="needs root and FUSE"),
]


def plan_for(point: Point, device: str, size: int, firmware: str, *grow_to: str) -> RestorePlan:
    disk = Disk(id=f"path:{device}", path=device, size=size, bus="sata")
    machine = Machine(firmware=firmware, memory=2**32, disks=(disk,))  # type: ignore[arg-type]
    return build_plan(point, machine, Choices(host="h", point=point.id, targets={"disk1": disk.id}, grow_to=grow_to))


def grown(target: Path, part: Partition, kind: str) -> None:
    """As the adaptation does it, on the partition's own device."""
    with loop(target, part.start, part.size) as device:
        assert grow_filesystem(device, kind)


def test_a_filesystem_in_the_middle_grows_and_swap_moves_to_the_end(tmp_path: Path) -> None:
    host = Host(tmp_path, 700 * MIB, GPT)
    host.make(1, "mkfs.vfat", "-i", "ABCD1234", "-n", "EFI")
    host.make(2, "mkfs.ext4", "-q", "-b", "4096", count=150)
    host.make(3, "mkswap", "-q", "-U", "55555555-5555-5555-5555-555555555555", "-L", "sw")
    repository, point = host.capture(tmp_path / "repo")
    size = 1000 * MIB
    target = blank(tmp_path / "target", size)
    with loop(target) as device:
        plan = plan_for(point, device, size, "uefi", "disk1:2")
        restore(repository, point, plan)
    assert "No problems found" in sh("sgdisk", "--verify", target)
    old = {part.number: part for part in host.table.partitions}
    new = {part.number: part for part in parse_table(_reader(target), size, 512).table.partitions}
    assert {n: (p.uuid, p.type, p.name) for n, p in new.items()} == {
        n: (p.uuid, p.type, p.name) for n, p in old.items()
    }
    assert (new[2].start, new[2].size) == (old[2].start, plan.growth[0].after) and new[2].size > 590 * MIB
    assert (new[1].start, new[1].size, new[3].size) == (old[1].start, old[1].size, old[3].size)
    with loop(target, new[3].start, new[3].size) as device:
        assert "UUID=55555555-5555-5555-5555-555555555555" in sh("blkid", "-p", "-o", "export", device)
    assert content(target, new[2].start, new[2].size, tmp_path / "m", "ext4") == host.digests[2]
    grown(target, new[2], "ext4")
    assert content(target, new[2].start, new[2].size, tmp_path / "m", "ext4") == host.digests[2]
    # Again: a restore is repeated after a power cut, and by then the filesystem may have grown.
    with loop(target) as device:
        restore(repository, point, plan_for(point, device, size, "uefi", "disk1:2"))
    assert content(target, new[2].start, new[2].size, tmp_path / "m", "ext4") == host.digests[2]


@pytest.mark.slow
def test_a_logical_partition_grows_and_its_container_with_it(tmp_path: Path) -> None:
    host = Host(tmp_path, 760 * MIB, MBR)
    host.make(1, "mkfs.ext4", "-q", "-b", "4096", count=30)
    host.make(5, "mkfs.btrfs", "-q", count=60, size=50_000)
    host.make(6, "mkswap", "-q")
    repository, point = host.capture(tmp_path / "repo")
    size = 1000 * MIB
    target = blank(tmp_path / "target", size)
    with loop(target) as device:
        restore(repository, point, plan_for(point, device, size, "bios", "disk1:5"))
    listed = sh("sfdisk", "--verify", target)
    assert "overlap" not in listed
    new = {part.number: part for part in parse_table(_reader(target), size, 512).table.partitions}
    assert new[5].size > 350 * MIB and new[6].start >= new[5].start + new[5].size
    assert new[2].start + new[2].size == new[6].start + new[6].size
    assert content(target, new[1].start, new[1].size, tmp_path / "m", "ext4") == host.digests[1]
    grown(target, new[5], "btrfs")
    assert content(target, new[5].start, new[5].size, tmp_path / "m", "btrfs") == host.digests[5]


def test_a_mount_point_finds_its_partition(tmp_path: Path) -> None:
    host = Host(tmp_path, 500 * MIB, "label: gpt\nsize=100MiB, type=linux\nsize=300MiB, type=linux\n")
    host.make(1, "mkfs.ext4", "-q", "-b", "4096")
    host.make(2, "mkswap", "-q")
    _, point = host.capture(tmp_path / "repo")
    facts = msgspec.structs.replace(point.body.system, mounts={"/srv/data": "disk1:1"})
    point = msgspec.structs.replace(point, body=msgspec.structs.replace(point.body, system=facts))
    plan = plan_for(point, "/dev/loop9", 800 * MIB, "uefi", "/srv/data")
    landing = plan.assignments[0].landing
    assert landing is not None and landing.placements[0].size > 390 * MIB
