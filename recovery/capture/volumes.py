"""A volume: anything that may hold a filesystem (whole disk, partition, LV), and how ``fstab`` names it. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from recovery.capture.ranges import Extent
from recovery.capture.thin import ThinPlace
from recovery.layout import Content

FILESYSTEMS = {"ext2", "ext3", "ext4", "xfs", "btrfs"}


@dataclass(frozen=True)
class Volume:
    """``name`` is ``disk1`` (whole disk), ``disk1:2`` (partition), ``md/0`` (md array) or ``vg0/root`` (LV).

    ``extents`` hold its bytes in order, empty where they cannot be told (a missing PV) or lie in a thin pool's chunks:
    ``thin`` says where then.
    """

    name: str
    size: int
    extents: tuple[Extent, ...]
    content: Content = Content()
    part_uuid: str = ""
    part_label: str = ""
    is_esp: bool = False
    thin: ThinPlace | None = None


def device_mapper_name(volume: str) -> str:
    """``vg-0/root`` -> ``vg--0-root``, the name below ``/dev/mapper``."""
    group, _, name = volume.partition("/")
    return f"{group.replace('-', '--')}-{name.replace('-', '--')}"


def find_volume(spec: str, volumes: Sequence[Volume]) -> Volume | None:
    """The volume that an fstab or XML source names: UUID=, LABEL=, PARTUUID=, /dev/disk/by-..., /dev/VG/LV,
    /dev/mapper/VG-LV, or a kernel name such as /dev/sda2 when only one disk can be meant; None when none."""
    spec = spec.strip().strip('"')
    by = re.fullmatch(r"/dev/disk/by-(uuid|label|partuuid|partlabel)/(.+)", spec)
    if by:
        spec = f"{by[1].upper()}={by[2]}"
    if "=" in spec:
        key, _, value = spec.partition("=")
        value = value.strip('"')
        matches = {
            "UUID": lambda volume: volume.content.uuid.lower() == value.lower(),
            "LABEL": lambda volume: volume.content.label == value,
            "PARTUUID": lambda volume: volume.part_uuid.lower() == value.lower(),
            "PARTLABEL": lambda volume: volume.part_label == value,
        }.get(key.upper())
        # A LUKS or LVM container has a UUID too, but only the thing itself is mounted; first match it is.
        return next((volume for volume in volumes if value and matches and matches(volume)), None)
    if array := re.fullmatch(r"/dev/md/?(?:[^/:]+:)?([^/]+)", spec):
        return next((volume for volume in volumes if volume.name == f"md/{array[1]}"), None)
    for volume in volumes:
        if "/" in volume.name and spec in (f"/dev/{volume.name}", f"/dev/mapper/{device_mapper_name(volume.name)}"):
            return volume
    return _by_kernel_name(spec, volumes)


def _by_kernel_name(spec: str, volumes: Sequence[Volume]) -> Volume | None:
    match = re.fullmatch(r"/dev/(?:(?:nvme\d+n\d+|mmcblk\d+)p|[shv]d[a-z]+|xvd[a-z]+)(\d+)", spec)
    if not match:
        return None
    # Kernel names move between boots; with one candidate there is no doubt.
    found = [volume for volume in volumes if re.fullmatch(rf"disk\d+:{match[1]}", volume.name)]
    return found[0] if len(found) == 1 else None
