"""What can live on a disk with sectors of another size, and what cannot. Pure.

A smaller sector takes all that a larger one took, but for NTFS, which names the size. The other way a filesystem
must not count in blocks that are smaller than a sector, because a disk neither reads nor writes part of one.
"""

from __future__ import annotations

from collections.abc import Sequence

from recovery.format.point import PointDisk
from recovery.layout import Content, Partition, VolumeGroup

#: Contents that do not care: swap counts in pages of 4096 bytes, LVM reads whole sectors.
_INDIFFERENT = ("", "swap", "LVM2_member")
_COUNTS_IN_BLOCKS = ("ext2", "ext3", "ext4", "btrfs", "xfs", "f2fs")


def obstacles(source: PointDisk, parts: Sequence[Partition], sector: int, groups: Sequence[VolumeGroup]) -> list[str]:
    """Why the disk's contents cannot be used on sectors of ``sector`` bytes, in sentences; empty when they can."""
    if sector == source.sector_size:
        return []
    found = [
        f"Partition {part.number} {reason}." if part.number else f"The disk {reason}."
        for part in parts
        if (sector > source.sector_size or part.content.kind == "ntfs") and (reason := _obstacle(part.content, sector))
    ]
    if sector < source.sector_size:
        return found
    pvs = {part.content.uuid for part in parts if part.content.kind == "LVM2_member"}
    for group in groups:
        if pvs.intersection(group.pv_uuids):
            found += [
                f"Volume {group.name}/{volume.name} {reason}."
                for volume in group.volumes
                if (reason := _obstacle(volume.content, sector))
            ]
    return found


def unseen(source: PointDisk, parts: Sequence[Partition], sector: int, groups: Sequence[VolumeGroup]) -> list[str]:
    """Logical volumes that may hold a filesystem which does not bear larger sectors: nobody looked into them."""
    if sector <= source.sector_size:
        return []
    pvs = {part.content.uuid for part in parts if part.content.kind == "LVM2_member"}
    return [
        f"{group.name}/{volume.name}"
        for group in groups
        if pvs.intersection(group.pv_uuids)
        for volume in group.volumes
        if volume.segment not in ("linear", "thin-pool") and not volume.content.kind
    ]


def _obstacle(content: Content, sector: int) -> str:
    kind, block = content.kind, content.block_size
    if kind in _INDIFFERENT or kind == "vfat":  # FAT is made anew with the same files
        return ""
    if kind in _COUNTS_IN_BLOCKS:
        if block >= sector:
            return ""
        if kind == "xfs":
            return f"is xfs made for sectors of {block or 512} bytes, which no tool can change"
        blocks = f"with blocks of {block} bytes, smaller than a sector" if block else "of an unknown block size"
        return f"is {kind} {blocks}"
    if kind == "crypto_LUKS":
        return "is encrypted (LUKS), so whether what lies in it bears larger sectors is not known"
    if kind == "linux_raid_member":
        return "is a member of an array, and whether what lies in that bears larger sectors is not known"
    if kind == "ntfs":
        return "is NTFS, whose boot sector says how large its sectors are"
    return f"holds {kind}, of which it is not known whether it bears larger sectors"
