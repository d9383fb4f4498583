"""How one disk of a point is laid out anew on its target, for whatever reason: too small, other sectors, a partition
in the middle that grows, a GPT instead of an MBR. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

from recovery.format.point import PointDisk
from recovery.layout import Landing, Partition, VolumeGroup
from recovery.machine.model import Disk
from recovery.plan.landing import NoRoom, needs_landing, real_partitions
from recovery.plan.lvm import land_groups
from recovery.plan.model import Choices
from recovery.plan.togpt import applies, land_as_gpt


def landing_of(
    source: PointDisk, target: Disk, choices: Choices, grow: int | None = None, groups: Sequence[VolumeGroup] = ()
) -> Landing | None:
    """How one disk is laid out anew, where partition ``grow`` is to grow; None when it is byte for byte, or when
    nothing can be done."""
    stretch = grow if grow is not None and followers(source, grow) else None
    needed = needs_landing(source, target.size, target.sector_size) or applies(source, target, choices)
    if target.bus == "file" or (stretch is None and not needed):
        return None
    found = lay_out(source, target, choices, stretch, groups)
    return found if isinstance(found, Landing) else None


def lay_out(
    source: PointDisk, target: Disk, choices: Choices, grow: int | None, groups: Sequence[VolumeGroup] = ()
) -> Landing | NoRoom | str:
    """The layout, also where the disk could take it byte for byte; or why there can be none."""
    if applies(source, target, choices):
        return land_as_gpt(source, target, grow)
    return land_groups(source, target.size, target.sector_size, grow, groups)


def followers(source: PointDisk, number: int) -> list[Partition]:
    """The partitions behind one."""
    parts = real_partitions(source)
    start = next((part.start for part in parts if part.number == number), source.size)
    return [part for part in parts if part.start > start]
