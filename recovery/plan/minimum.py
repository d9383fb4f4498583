"""How small a captured partition may become, and why some may not. Pure.

What the filesystem's own tool said at capture counts, with a margin: such tools estimate. Points without it (captured
as a user, or by an older release) get a cautious estimate from the bytes in use.
"""

from __future__ import annotations

from recovery.layout import Content, Partition
from recovery.plan.names import BIOS_BOOT
from recovery.units import GIB, MIB

_EXT = ("ext2", "ext3", "ext4")
#: Contents that can be shrunk here.
SHRINKABLE = (*_EXT, "btrfs", "swap")
#: A swap of a quarter still takes what a busy host puts there; hibernation needs all of it, and is gone after a move.
_LEAST_SWAP = 256 * MIB

_WHY_NOT = {
    "xfs": "xfs cannot be shrunk at all: nobody has written that",
    "LVM2_member": "an LVM physical volume is shrunk only where its group lies on it alone, in linear volumes, and "
    "the point says where (points of older releases do not)",
    "crypto_LUKS": "it is encrypted, so what lies in it is not known",
    "linux_raid_member": "it is a member of an array, whose size the other members share",
    "vfat": "FAT is not shrunk",
    "ntfs": "NTFS is not shrunk yet",
    "zfs_member": "ZFS cannot be shrunk",
}


def minimum(partition: Partition) -> int | None:
    """The fewest bytes that the partition may have; None when it cannot be shrunk."""
    content = partition.content
    if content.kind == "swap":
        return min(partition.size, max(_LEAST_SWAP, partition.size // 4))
    # Of a physical volume (recovery.plan.lvm) it is exact.
    least = content.minimum if content.kind == "LVM2_member" else _filesystem_minimum(content, partition.size)
    return None if least is None else min(partition.size, least)


def _filesystem_minimum(content: Content, size: int) -> int | None:
    if content.kind in _EXT:
        if content.minimum is not None:
            return content.minimum + content.minimum // 50 + 16 * MIB
        if content.used is not None:
            # Inode tables (1/64 by default), journal and bitmaps are not in the bytes in use.
            return content.used + content.used // 10 + size // 32 + 256 * MIB
    if content.kind == "btrfs":
        # What moves needs whole free block groups of up to 1 GiB to move to.
        if content.minimum is not None:
            return content.minimum + content.minimum // 50 + 256 * MIB
        if content.used is not None:
            return content.used + content.used // 4 + 2 * GIB
    return None


def why_not(partition: Partition) -> str:
    """Why it cannot be shrunk, as a clause for a sentence."""
    kind = partition.content.kind
    if partition.type == BIOS_BOOT:
        return "it is GRUB's"
    if kind in SHRINKABLE:
        return "how much of it is in use is not known: the host was captured without looking into it"
    return _WHY_NOT.get(kind, f"{kind or 'what lies on it'} is not something that can be shrunk here")
