"""Partition types of Windows that never grow: what is behind them is not theirs to take. Pure."""

from __future__ import annotations

RESERVED = "e3c9e316-0b5c-4db8-817d-f92df00215ae"
RECOVERY = "de94bba4-06d1-4d40-a16a-bfd50179d6ac"
#: As GPT type GUIDs (lower case) and MBR types: Microsoft reserved, Windows' recovery environment.
KEPT = (RESERVED, RECOVERY, "27")
#: What speaks against Linux having been on a disk with NTFS: none of these is on it.
LINUX_CONTENTS = (
    "ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "swap", "LVM2_member", "linux_raid_member", "crypto_LUKS",
    "zfs_member",
)  # fmt: skip
