"""What bears larger sectors, what does not, and what nobody knows."""

from __future__ import annotations

import msgspec
import pytest

from recovery.layout import Content, LogicalVolume, VolumeGroup
from recovery.plan.landing import real_partitions
from recovery.plan.sectors import obstacles
from tests.unit.plan.hosts import PV_UUID, build_4kn, codes, disk, point, table

CASES = [
    (Content(kind="ext4", block_size=4096), ""),
    (Content(kind="ext4", block_size=1024), "is ext4 with blocks of 1024 bytes, smaller than a sector"),
    (Content(kind="ext4"), "is ext4 of an unknown block size"),
    (Content(kind="xfs", block_size=512), "is xfs made for sectors of 512 bytes, which no tool can change"),
    (Content(kind="xfs", block_size=4096), ""),
    (Content(kind="btrfs", block_size=4096), ""),
    (Content(kind="swap"), ""),
    (Content(kind="vfat", block_size=512), ""),
    (Content(kind="crypto_LUKS"), "is encrypted (LUKS)"),
    (Content(kind="linux_raid_member"), "is a member of an array"),
    (Content(kind="ntfs", block_size=512), "is NTFS"),
    (Content(kind="zfs_member"), "holds zfs_member, of which it is not known"),
    (Content(), ""),
]


@pytest.mark.parametrize(("content", "reason"), CASES)
def test_each_content(content: Content, reason: str) -> None:
    found = table()
    root = msgspec.structs.replace(found.partitions[1], content=content)
    source = disk(table=msgspec.structs.replace(found, partitions=(root,)))
    said = obstacles(source, real_partitions(source), 4096, ())
    assert said == [] if not reason else len(said) == 1 and said[0].startswith(f"Partition 2 {reason}")
    back = obstacles(msgspec.structs.replace(source, sector_size=4096), real_partitions(source), 512, ())
    assert bool(back) == (content.kind == "ntfs")  # which says how large its sectors are, either way


def group(*volumes: LogicalVolume) -> VolumeGroup:
    return VolumeGroup(name="pve", pv_uuids=(PV_UUID,), volumes=volumes)


def test_logical_volumes_are_looked_at_too() -> None:
    xfs = LogicalVolume(name="root", size=1, content=Content(kind="xfs", block_size=512))
    good = LogicalVolume(name="home", size=1, content=Content(kind="ext4", block_size=4096))
    source = disk(table=table(pv=True))
    said = obstacles(source, real_partitions(source), 4096, (group(xfs, good),))
    assert said == ["Volume pve/root is xfs made for sectors of 512 bytes, which no tool can change."]


def test_volumes_that_nobody_looked_into_are_a_warning() -> None:
    thin = LogicalVolume(name="vm-1", size=1, segment="thin")
    pool = LogicalVolume(name="data", size=1, segment="thin-pool")
    found = table(pv=True)
    vfat = msgspec.structs.replace(found.partitions[0], content=Content(kind="vfat", block_size=512))
    source = disk(table=msgspec.structs.replace(found, partitions=(vfat, *found.partitions[1:])))
    plan = build_4kn(point(source, groups=(group(thin, pool),)))
    assert plan.allowed
    (problem,) = [p for p in plan.problems if p.code == "sector-size-converted"]
    assert problem.severity == "warning" and "pve/vm-1." in problem.why and "data" not in problem.why
    assert "sector-size-converted" in codes(build_4kn(point(source, groups=(group(pool),))), "info")
