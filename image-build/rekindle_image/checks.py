"""Whether a medium can be built here, asked before anything is started."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from recovery.errors import CommandError, NotFoundError, SpaceError, UsageError
from recovery.units import MIB, format_size
from rekindle_image.apt import DEBIAN_KEYRING

#: program -> the Debian package that has it.
TOOLS = {
    "mmdebstrap": "mmdebstrap", "mksquashfs": "squashfs-tools", "unsquashfs": "squashfs-tools", "xorriso": "xorriso",
    "mkfs.vfat": "dosfstools", "mcopy": "mtools", "mmd": "mtools", "apt-config": "apt", "dpkg-deb": "dpkg",
    "tar": "tar", "xz": "xz-utils",
}  # fmt: skip

#: Bytes, measured: an unpacked Debian with its packages (all firmware: 2 GiB more) and the parts made of it.
COLD_SPACE = {"none": 1800 * MIB, "server": 2200 * MIB, "all": 4600 * MIB}
OUTPUT_SPACE = {"none": 300 * MIB, "server": 400 * MIB, "all": 900 * MIB}


def check_root() -> None:
    """Raises UsageError: chroot and device nodes need root."""
    if os.geteuid() != 0:
        raise UsageError("Building a medium needs root (it installs Debian into a directory).", hint="Use sudo.")


def check_tools() -> None:
    """Raises CommandError naming every missing program's package, NotFoundError for the keyring."""
    missing = sorted({package for tool, package in TOOLS.items() if not shutil.which(tool)})
    if missing:
        raise CommandError(
            f"The medium cannot be built: {', '.join(missing)} missing.",
            hint=f"apt-get install {' '.join(missing)}",
        )
    if not Path(DEBIAN_KEYRING).is_file():
        raise NotFoundError(
            f"The keys that Debian's packages are signed with are missing ({DEBIAN_KEYRING}).",
            hint="apt-get install debian-archive-keyring",
        )


def check_space(places: dict[Path, int]) -> None:
    """``places`` are directories and the bytes needed there; those on one file system add up. Raises SpaceError."""
    needed: dict[int, tuple[Path, int]] = {}
    for place, size in places.items():
        device = place.stat().st_dev
        first, sum_so_far = needed.get(device, (place, 0))
        needed[device] = (first, sum_so_far + size)
    for place, size in needed.values():
        free = shutil.disk_usage(place).free
        if free < size:
            raise SpaceError(
                f"Building the medium needs {format_size(size)} below '{place}'; {format_size(free)} are free.",
                hint="Make room, or put the cache elsewhere with --cache DIR.",
            )
