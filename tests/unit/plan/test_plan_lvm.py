"""Volume groups on smaller disks: what gives way, where everything lies, what is refused."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recovery.format.point import PointDisk
from recovery.layout import Content, Landing, LogicalVolume, LvmSegment, Partition, VolumeGroup
from recovery.plan.landing import NoRoom
from recovery.plan.lvm import group_of, land_groups, places, with_minimum
from recovery.plan.minimum import minimum, why_not
from recovery.units import GIB, MIB
from tests.unit.plan.hosts import LVM, PV_UUID, disk
from tests.unit.plan.test_plan_growth import gpt

EXTENT = 4 * MIB
PV = Content(kind="LVM2_member", uuid=PV_UUID)
EXT4 = Content(kind="ext4", block_size=4096, minimum=2 * GIB)
XFS = Content(kind="xfs", block_size=4096)


def group(*sizes: tuple[str, int, Content], free: int = 0) -> VolumeGroup:
    at, volumes = MIB, []
    for name, size, content in sizes:
        piece = LvmSegment(offset=at, size=size)
        volumes.append(LogicalVolume(name=name, size=size, content=content, segments=(piece,)))
        at += size
    return VolumeGroup(
        name="vg0", size=at - MIB + free, free=free, extent_size=EXTENT, extents_start=MIB, pv_uuids=(PV_UUID,),
        volumes=tuple(volumes),
    )  # fmt: skip


VG = group(("root", 40 * GIB, EXT4), ("vm", 20 * GIB, XFS), ("swap", 8 * GIB, Content(kind="swap")), free=20 * GIB)
SNAPSHOT = LogicalVolume(name="s", size=GIB, segment="snapshot")


def host() -> PointDisk:
    return disk(table=gpt((MIB * 512, "x", Content(kind="vfat")), (90 * GIB, LVM, PV)))


def test_free_room_goes_first_and_then_those_that_can() -> None:
    found = land_groups(host(), 75 * GIB, 512, groups=(VG,))
    assert isinstance(found, Landing)
    assert [volume.size for volume in found.placements[1].volumes] == [40 * GIB, 20 * GIB, 8 * GIB]
    found = land_groups(host(), 50 * GIB, 512, groups=(VG,))
    assert isinstance(found, Landing) and found.placements[1].way == "shrink"
    root, vm, swap = found.placements[1].volumes
    assert (vm.size, root.size % EXTENT, swap.size % EXTENT) == (20 * GIB, 0, 0)
    assert 22 * GIB < root.size < 25 * GIB and 4 * GIB < swap.size < 6 * GIB
    assert (root.start, vm.start, swap.start) == (MIB, MIB + root.size, MIB + root.size + vm.size)


def test_what_it_needs_at_least_is_enough_and_less_is_not() -> None:
    found = land_groups(host(), 2 * GIB, 512, groups=(VG,))
    assert isinstance(found, NoRoom) and 24 * GIB < found.needed < 27 * GIB
    assert isinstance(land_groups(host(), found.needed, 512, groups=(VG,)), Landing)
    assert isinstance(land_groups(host(), found.needed - MIB, 512, groups=(VG,)), NoRoom)


@pytest.mark.parametrize(
    "wrong",
    [
        msgspec.structs.replace(VG, extent_size=0),  # of an older release
        msgspec.structs.replace(VG, pv_uuids=(PV_UUID, "other")),
        msgspec.structs.replace(VG, free=10 * GIB),  # something hidden takes room
        msgspec.structs.replace(VG, volumes=(*VG.volumes, SNAPSHOT), free=19 * GIB),
        msgspec.structs.replace(VG, volumes=(), free=VG.size),
    ],
)  # fmt: skip
def test_what_is_not_understood_is_moved_whole_and_never_shrunk(wrong: VolumeGroup) -> None:
    part = host().table.partitions[1]
    assert group_of(part, (wrong,)) is None and group_of(part, (VG,)) is VG
    found = land_groups(host(), 60 * GIB, 512, groups=(wrong,))
    assert isinstance(found, NoRoom) and found.needed > 90 * GIB
    assert "in linear volumes" in why_not(part)


def test_a_volume_in_several_pieces_is_moved_not_shrunk() -> None:
    pieces = (LvmSegment(offset=MIB, size=10 * GIB), LvmSegment(offset=MIB + 30 * GIB, size=10 * GIB))
    lv = LogicalVolume(name="a", size=20 * GIB, content=EXT4, segments=pieces)
    one = msgspec.structs.replace(VG, size=40 * GIB, free=20 * GIB, volumes=(lv,))
    (least,) = (p.content.minimum for p in with_minimum(host(), (one,)).table.partitions if p.number == 2)
    assert least == 20 * GIB + MIB
    (placed,) = places(one, 21 * GIB)
    assert (placed.start, placed.size, placed.old) == (MIB, 20 * GIB, pieces)


@given(
    st.lists(st.tuples(st.integers(1, 5000), st.integers(0, 2)), min_size=1, max_size=6),
    st.integers(0, 3000),
    st.floats(0.0, 1.2),
)
def test_volumes_lie_apart_and_none_is_smaller_than_it_may_be(
    sizes: list[tuple[int, int]], free: int, factor: float
) -> None:
    kinds = (XFS, Content(kind="swap"), Content(kind="ext4", block_size=4096, minimum=300 * MIB))
    given_sizes = [(f"v{n}", count * EXTENT, kinds[kind]) for n, (count, kind) in enumerate(sizes)]
    one = group(*given_sizes, free=free * EXTENT)
    part = Partition(number=1, start=MIB, size=one.size + MIB, type=LVM, content=PV)
    source = disk(table=msgspec.structs.replace(host().table, partitions=(part,)))
    prepared = with_minimum(source, (one,)).table.partitions[0]
    least = minimum(prepared)
    assert least is not None
    size = max(least, min(part.size, int(part.size * factor))) // MIB * MIB + MIB
    cursor = MIB
    for volume, old in zip(places(one, size), one.volumes, strict=True):
        assert volume.start == cursor and volume.size % EXTENT == 0 < volume.size <= old.size
        small = minimum(Partition(number=0, start=0, size=old.size, content=old.content))
        assert volume.size >= (old.size if small is None else small)
        cursor += volume.size
    assert cursor <= size
    if size >= part.size - free * EXTENT:
        assert all(v.size == v.old_size for v in places(one, size))
