"""Makes the sources of ``layouts`` in the medium's shell, from one packed root filesystem."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from rekindle_image.scratch import scratch_folder

from recovery.commands import run
from recovery.units import MIB
from tests.e2e.lab.hardware import DiskSpec, make_blank_disk
from tests.e2e.lab.host_image import recipe, rootfs
from tests.e2e.lab.host_image.rootfs import Say
from tests.e2e.lab.medium_shell import GUEST_SHARE, MediumFiles, medium_shell
from tests.e2e.stacks.layouts import PACKAGES, Layout, source_script

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "rekindle/e2e"
#: What no virtual machine has, or nobody reads here: under emulation every file costs time.
_UNWANTED = (
    "usr/lib/modules/*/kernel/sound", "usr/lib/modules/*/kernel/drivers/gpu", "usr/lib/modules/*/kernel/drivers/media",
    "usr/lib/modules/*/kernel/drivers/net", "usr/lib/modules/*/kernel/drivers/infiniband",
    "usr/lib/modules/*/kernel/drivers/staging", "usr/lib/modules/*/kernel/drivers/iio",
    "usr/lib/modules/*/kernel/drivers/usb/serial", "usr/lib/modules/*/kernel/drivers/hwmon",
    "usr/share/locale", "usr/share/doc", "usr/share/man", "var/cache/apt", "var/lib/apt/lists", "boot/initrd.img-*",
)  # fmt: skip
#: They would wake up in the middle of a test.
_IDLE = ("apt-daily.timer", "apt-daily-upgrade.timer", "e2scrub_all.timer", "fstrim.timer", "mdcheck_start.timer")


def root_tar(say: Say, cache: Path = CACHE) -> Path:
    """The packed root filesystem, from the cache or made now (minutes; root). Raises CommandError."""
    decides = (recipe.SUITE, *PACKAGES, *_UNWANTED, *_IDLE)
    digest = hashlib.sha256("\0".join(decides).encode()).hexdigest()
    packed = cache / f"stacks-{digest[:16]}.tar"
    if not packed.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with scratch_folder(cache) as work:
            say("installing Debian for the sources")
            pack(rootfs.bootstrap(work / "root", PACKAGES, "minbase", say), work / "root.tar")
            for old in cache.glob("stacks-*.tar"):
                old.unlink()
            (work / "root.tar").rename(packed)
    return packed


def pack(root: Path, packed: Path) -> None:
    """Leave out what is not needed, and pack."""
    for pattern in _UNWANTED:
        for path in root.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    run(["chroot", root, "depmod", rootfs.kernel_version(root)])
    run(["chroot", root, "systemctl", "-q", "mask", *_IDLE])
    run(["tar", "-C", root, "--numeric-owner", "-cf", packed, "."])


def disk_path(folder: Path, layout: str, number: int) -> Path:
    """The image of a source's disk (from 1 on)."""
    return folder / "sources" / f"{layout}-{number}.img"


def serial(layout: str, number: int) -> str:
    """The serial number of a source's disk."""
    return f"SRC-{layout}-{number}"


def make_sources(
    layouts: Sequence[Layout], folder: Path, packed: Path, say: Say, files: MediumFiles | None = None
) -> None:
    """Make the disks of these sources below ``folder`` in one guest. Raises LabError, CommandError."""
    disks = [
        DiskSpec(make_blank_disk(disk_path(folder, one.name, n), size * MIB), "scsi", serial(one.name, n))
        for one in layouts
        for n, size in enumerate(one.disks, 1)
    ]
    with medium_shell(folder / "make", disks=tuple(disks), memory=2048, files=files, say=say) as shell:
        shutil.copyfile(packed, shell.share / "root.tar")
        for one in layouts:
            say(f"making the source {one.name}: {one.title}")
            paths = tuple(shell.disk(serial(one.name, n)) for n in range(1, len(one.disks) + 1))
            shell.check(source_script(one, paths, f"{GUEST_SHARE}/root.tar"), 400)
        shell.power_off()
