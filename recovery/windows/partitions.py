"""What partitions tell of Windows: the types that never grow, and whether a disk looks like one of it. Pure."""

from __future__ import annotations

from collections.abc import Iterable

RESERVED = "e3c9e316-0b5c-4db8-817d-f92df00215ae"
RECOVERY = "de94bba4-06d1-4d40-a16a-bfd50179d6ac"
#: As GPT type GUIDs (lower case) and MBR types: Microsoft reserved, Windows' recovery environment.
KEPT = (RESERVED, RECOVERY, "27")
#: Where one of these is, NTFS beside it may be anything.
_LINUX = (
    "ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "swap", "LVM2_member", "linux_raid_member", "crypto_LUKS",
    "zfs_member",
)  # fmt: skip


def looks_like_windows(contents: Iterable[str]) -> bool:
    """Whether a host with these contents (blkid's TYPE), into which nobody looked, is taken for Windows: NTFS, and
    nothing of Linux."""
    kinds = set(contents)
    return "ntfs" in kinds and not kinds.intersection(_LINUX)
