"""A volume group whose only physical volume becomes smaller: which of its volumes give way, and where each comes to
lie. Pure; ``recovery.adapt.lvmhead`` writes the group's metadata accordingly.

Only groups that lie on one physical volume, in linear volumes, of which the point says where they lie: whatever else
there is (thin pools, snapshots, RAID) would have to be moved without being understood.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from recovery.format.point import PointDisk
from recovery.layout import Landing, LogicalVolume, Partition, Placement, VolumeGroup, VolumePlacement
from recovery.plan.landing import NoRoom, land
from recovery.plan.minimum import minimum

_PV = "LVM2_member"


def land_groups(
    source: PointDisk, size: int, sector: int, grow: int | None = None, groups: Sequence[VolumeGroup] = ()
) -> Landing | NoRoom | str:
    """As ``landing.land``, with physical volumes that may be shrunk."""
    found = land(with_minimum(source, groups), size, sector, grow)
    return with_volumes(found, groups) if isinstance(found, Landing) else found


def with_minimum(source: PointDisk, groups: Sequence[VolumeGroup]) -> PointDisk:
    """The disk, whose physical volumes say how small they may become."""
    if not any(group_of(part, groups) for part in source.table.partitions):
        return source
    parts = (_with_least(part, groups) for part in source.table.partitions)
    return msgspec.structs.replace(source, table=msgspec.structs.replace(source.table, partitions=tuple(parts)))


def with_volumes(landing: Landing, groups: Sequence[VolumeGroup]) -> Landing:
    """The landing, whose shrunk physical volumes say where each volume comes to lie."""
    return msgspec.structs.replace(
        landing, placements=tuple(_with_places(placed, groups) for placed in landing.placements)
    )


def group_of(part: Partition, groups: Sequence[VolumeGroup]) -> VolumeGroup | None:
    """The group that lies on this partition alone, and can be moved about."""
    if part.content.kind != _PV:
        return None
    group = next((one for one in groups if one.pv_uuids == (part.content.uuid,)), None)
    if group is None or not group.extent_size or not group.volumes or not all(lv.segments for lv in group.volumes):
        return None
    told = sum(segment.size for lv in group.volumes for segment in lv.segments)
    # What is not linear, or hidden (a pool's data, a snapshot's store), takes room that no volume here tells of.
    return group if told == group.size - group.free else None


def _with_least(part: Partition, groups: Sequence[VolumeGroup]) -> Partition:
    group = group_of(part, groups)
    if group is None:
        return part
    least = group.extents_start + sum(_least(lv, group.extent_size) for lv in group.volumes)
    return msgspec.structs.replace(part, content=msgspec.structs.replace(part.content, minimum=least))


def _least(lv: LogicalVolume, extent: int) -> int:
    """The smallest size of a volume, in whole extents. One in several pieces is moved, not shrunk: its filesystem has
    to be shown as one range of the captured disk."""
    small = minimum(Partition(number=0, start=0, size=lv.size, content=lv.content)) if len(lv.segments) == 1 else None
    return lv.size if small is None else min(lv.size, -(-small // extent) * extent)


def _with_places(placed: Placement, groups: Sequence[VolumeGroup]) -> Placement:
    part = Partition(number=placed.number, start=0, size=placed.old_size, content=placed.content)
    group = group_of(part, groups) if placed.way == "shrink" else None
    if group is None:
        return placed
    return msgspec.structs.replace(placed, volumes=places(group, placed.size))


def places(group: VolumeGroup, size: int) -> tuple[VolumePlacement, ...]:
    """Where the volumes lie on a physical volume of ``size`` bytes: one behind the other, in the order of the disk.
    Room that was free goes first; then each gives way in proportion to what it has to spare."""
    extent = group.extent_size
    volumes = sorted(group.volumes, key=lambda lv: lv.segments[0].offset)
    room = (size - group.extents_start) // extent
    counts = [lv.size // extent for lv in volumes]
    spare = [count - _least(lv, extent) // extent for lv, count in zip(volumes, counts, strict=True)]
    over, total = max(0, sum(counts) - room), sum(spare)
    if over > total:
        raise ValueError(f"{group.name} does not fit on {size} bytes")
    cuts = [over * one // total if total else 0 for one in spare]
    for at in sorted(range(len(cuts)), key=lambda at: cuts[at] - spare[at]):
        more = min(over - sum(cuts), spare[at] - cuts[at])
        cuts[at] += more
    found, cursor = [], group.extents_start
    for lv, count, cut in zip(volumes, counts, cuts, strict=True):
        new = (count - cut) * extent
        found.append(
            VolumePlacement(
                name=lv.name, group=group.name, old=lv.segments, old_size=lv.size, start=cursor, size=new,
                content=lv.content,
            )
        )  # fmt: skip
        cursor += new
    return tuple(found)
