"""Filesystems of the machine in front of us that files can be written to: where the disks of a single VM go."""

from __future__ import annotations

import msgspec

from recovery.layout import Content
from recovery.units import GIB

#: Filesystems that Linux writes to well. NTFS is left to Windows: what it left open there must not be changed here.
WRITABLE = ("ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "vfat", "exfat")
#: They keep no holes: a file takes its whole size, and what is not content is written as zeros.
WITHOUT_HOLES = ("vfat", "exfat")
#: The largest file that a filesystem holds, bytes: a FAT entry has 32 bits for the size.
LARGEST_FILE = {"vfat": 4 * GIB - 1}
#: Not filesystems, and nothing that a person would look for in a list of places.
_NO_PLACE = ("", "swap", "LVM2_member", "linux_raid_member", "zfs_member", "iso9660", "squashfs", "udf")


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """A filesystem that files can be written to, on ``device``; or a directory (``device`` empty, ``path`` its name).

    ``path`` is where it is mounted already, empty when it is not. ``size`` and ``free`` are bytes; ``free`` is None
    where nobody could look. ``unavailable`` says in sentences why it cannot be chosen; empty when it can.
    """

    device: str = ""
    path: str = ""
    kind: str = ""
    label: str = ""
    size: int = 0
    free: int | None = None
    disk: str = ""
    model: str = ""
    bus: str = ""
    system: str = ""
    """The system that was found on it, where one was."""
    unavailable: str = ""

    @property
    def holes(self) -> bool:
        """What is not content takes no room in its files."""
        return self.kind not in WITHOUT_HOLES

    @property
    def name(self) -> str:
        """``sdb1 'BACKUP'``, or the directory."""
        label = f" '{self.label}'" if self.label else ""
        return f"{self.device.rpartition('/')[2]}{label}" if self.device else self.path


def why_not(content: Content, *, medium: bool, repository: bool, read_only: bool) -> str:
    """Why a filesystem cannot be chosen, whatever its mounting says; empty when it can. Pure."""
    if content.kind == "crypto_LUKS":
        return "It is encrypted. Open it in a shell (F2: cryptsetup open DEVICE NAME), then look again."
    if content.kind not in WRITABLE:
        return f"{content.kind} is not written to from here."
    if medium:
        return "It is the medium that this system was started from."
    if repository:
        return "It holds a repository, which is only ever read."
    return "It is read-only." if read_only else ""


def is_place(content: Content) -> bool:
    """Whether it is listed at all, be it with the reason why it cannot be chosen."""
    return content.kind not in _NO_PLACE
