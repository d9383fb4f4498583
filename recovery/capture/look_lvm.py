"""The part of the inventory that is LVM: groups, volumes, and what these hold as far as their first bytes tell."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from recovery.capture.content import probe_content
from recovery.capture.lvm import MappedVolume, PhysicalVolume, read_groups, read_pv
from recovery.capture.ranges import Extent, cut, read_extents
from recovery.capture.thin import thin_start
from recovery.capture.volumes import FILESYSTEMS, Volume
from recovery.errors import RekindleError
from recovery.layout import Content, VolumeGroup

Warn = Callable[[str], None]


def look_at_lvm(volumes: list[Volume], warn: Warn) -> list[VolumeGroup]:
    """The volume groups whose physical volumes are among ``volumes``; their logical volumes are added to these."""
    pvs: list[PhysicalVolume] = []
    for volume in volumes:
        if volume.content.kind == "LVM2_member":
            try:
                pv = read_pv(volume.extents)
                pvs += [pv] if pv else []
            except RekindleError as error:
                warn(f"{volume.name}: {error.message}")
    try:
        groups, mapped = read_groups(pvs)
    except RekindleError as error:
        warn(error.message)
        return []
    known = {pv.uuid for pv in pvs}
    for group in groups:
        missing = [uuid for uuid in group.pv_uuids if uuid not in known]
        if missing:
            warn(f"VG '{group.name}' also needs PV {', '.join(missing)}, which is on none of the disks captured.")
    contents = {lv.name: _add_lv(lv, volumes) for lv in mapped}
    # A thin volume that begins with no filesystem is a VM's disk, and a pool holds what its volumes do.
    hidden = [
        f"{lv.name} ({lv.volume.segment})" for lv in mapped
        if not lv.extents and lv.volume.segment not in ("linear", "thin-pool")
        and (lv.thin is None or contents[lv.name].kind in FILESYSTEMS)
    ]  # fmt: skip
    if hidden:
        warn(f"What these LVs hold was not looked into, because they are not linear: {', '.join(hidden)}.")
    return [
        msgspec.structs.replace(
            group,
            volumes=tuple(
                msgspec.structs.replace(lv, content=contents.get(f"{group.name}/{lv.name}", Content()))
                for lv in group.volumes
            ),
        )
        for group in groups
    ]


def _add_lv(lv: MappedVolume, volumes: list[Volume]) -> Content:
    content = Content()
    # What tells a filesystem stands at its start, so the first segment is enough.
    first = next(iter(lv.extents), None) or _start_of_thin(lv)
    if first:
        content = probe_content(first.path, first.offset, first.length)
    volumes.append(Volume(lv.name, lv.volume.size, lv.extents, content, thin=lv.thin))
    return content


def _start_of_thin(lv: MappedVolume) -> Extent | None:
    """Of a btrfs only the beginning would be there: its superblock is at 64 KiB, and chunks may be no larger."""
    if lv.thin is None:
        return None
    metadata = lv.thin.metadata
    try:
        found = thin_start(lambda at, length: read_extents(metadata, at, length), lv.thin)
    except RekindleError:
        return None  # a pool at work, or a damaged one: what its volumes hold is not known then
    return next(iter(cut(lv.thin.data, *found)), None) if found else None
