"""Filesystems of captured disks mounted read-only for a moment, through loop devices with offset and limit.

Journals are not replayed (nothing here may write), so after a crash the newest changes may not be seen; the inventory
reads configuration files only, which are old. A loop device is detached as soon as it is mounted, so that the unmount
frees it, also when we are gone by then.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from recovery.capture.qemu_export import exported, write_flat_descriptor
from recovery.capture.ranges import Extent
from recovery.capture.volumes import Volume
from recovery.commands import run

#: Options that keep each driver from writing to the device, even to replay its journal.
_OPTIONS = {
    "ext2": "ro",
    "ext3": "ro,noload",
    "ext4": "ro,noload",
    "xfs": "ro,norecovery,nouuid",
    "btrfs": "ro,rescue=nologreplay",
    "ntfs": "ro",
}
#: Where the driver has another name than the filesystem. The kernel's own for NTFS is on few machines.
_DRIVERS = {"ntfs": "ntfs-3g"}


@contextlib.contextmanager
def mounted(volume: Volume) -> Iterator[Path]:
    """The volume's filesystem, read-only, at a private folder; unmounted with the block. Raises CommandError."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="rekindle-look-")))
        extent = _as_one_extent(volume, stack)
        target = folder / "fs"
        target.mkdir()
        options = f"{_OPTIONS[volume.content.kind]},nodev,nosuid,noexec"
        kind = _DRIVERS.get(volume.content.kind, volume.content.kind)
        # Not by 'mount -o loop', which refuses a file that another loop device is just letting go of.
        place = ("--offset", str(extent.offset), "--sizelimit", str(extent.length))
        device = run(["losetup", "--find", "--show", "--read-only", *place, extent.path]).stdout.strip()
        try:
            run(["mount", "-t", kind, "-o", options, device, target], timeout=300)
        finally:
            run(["losetup", "--detach", device], check=False)
        try:
            yield target
        finally:
            if not run(["umount", target], check=False, timeout=120):
                run(["umount", "-l", target], check=False, timeout=120)


def _as_one_extent(volume: Volume, stack: contextlib.ExitStack) -> Extent:
    if len(volume.extents) == 1:
        return volume.extents[0]
    # An LV of several segments is joined by QEMU, since this must work where there is no device-mapper.
    folder = Path(stack.enter_context(TemporaryDirectory(prefix="rekindle-join-")))
    pieces = [(extent.path, extent.offset, extent.length) for extent in volume.extents]
    path = stack.enter_context(exported(write_flat_descriptor(folder, pieces), "vmdk"))
    return Extent(path, 0, volume.size)


def used_bytes(folder: Path) -> int:
    """Bytes in use by the filesystem mounted there."""
    facts = os.statvfs(folder)
    return (facts.f_blocks - facts.f_bfree) * facts.f_frsize
