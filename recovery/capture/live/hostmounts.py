"""The files of a running host's volumes, through its own mounts: mounting a device a second time beside the host could
show what is not committed, and btrfs would take it for the same filesystem moved."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from recovery.capture.busy import Mount, parse_mountinfo
from recovery.capture.inventory import Mounter
from recovery.capture.mounts import mounted
from recovery.capture.tracking.model import TrackedDisk
from recovery.capture.volumes import Volume, device_mapper_name
from recovery.commands import run
from recovery.errors import CommandError

_SYS_BLOCK = Path("/sys/block")


def host_mounter(disks: Sequence[TrackedDisk]) -> Mounter:
    """A Mounter for volumes of these disks; what the host has not mounted is mounted as in an offline capture."""
    by_name = {disk.name: disk for disk in disks}

    @contextlib.contextmanager
    def mount(volume: Volume) -> Iterator[Path]:
        device = kernel_name(volume, by_name)
        found = _mount_of(device, parse_mountinfo(Path("/proc/self/mountinfo").read_text())) if device else None
        if found is None and volume.content.kind == "btrfs":
            raise CommandError(f"The btrfs on {volume.name} is not mounted here, and mounting it might disturb it.")
        if found is None:
            with mounted(volume) as folder:
                yield folder
            return
        with TemporaryDirectory(prefix="rekindle-look-") as folder_name:
            target = Path(folder_name)
            if found.kind == "btrfs":
                # The top of the filesystem, above the subvolumes that the host mounts. It is the same superblock.
                options = "ro,subvolid=5,nodev,nosuid,noexec"
                run(["mount", "-t", "btrfs", "-o", options, found.source, target], timeout=120)
            else:
                run(["mount", "--bind", found.point, target], timeout=120)
            try:
                yield target
            finally:
                if not run(["umount", target], check=False, timeout=120):
                    run(["umount", "-l", target], check=False, timeout=120)

    return mount


def kernel_name(volume: Volume, disks: dict[str, TrackedDisk]) -> str:
    """The kernel's name of the device that a volume is, empty when there is none."""
    if "/" in volume.name:
        wanted = device_mapper_name(volume.name)
        for name in _SYS_BLOCK.glob("dm-*/dm/name"):
            if name.read_text().strip() == wanted:
                return name.parent.parent.name
        return ""
    disk = disks.get(volume.name.partition(":")[0])
    if disk is None or ":" not in volume.name:
        return disk.kernel_name if disk else ""
    for start in (_SYS_BLOCK / disk.kernel_name).glob("*/start"):
        if int(start.read_text()) * 512 == volume.extents[0].offset:
            return start.parent.name
    return ""


def _mount_of(device: str, mounts: Sequence[Mount]) -> Mount | None:
    """The mount that shows most of a device's filesystem."""
    found = [mount for mount in mounts if Path(mount.source).resolve().name == device]
    whole = [mount for mount in found if mount.root == "/" or mount.kind == "btrfs"]
    return whole[0] if whole else None
