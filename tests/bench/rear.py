"""The ISO that Relax-and-Recover makes of the demo's host: what our medium's start is measured beside.

    python -m tests.bench.rear ISO [--suite bookworm] [--kernel-parameter WORD]...

Root. The host is the demo's (``tests.e2e.lab.host_image.recipe``), with Debian's ``rear`` package beside; ``rear
mkrescue`` runs in it with the settings a person would begin with: OUTPUT=ISO, and a backup that is somebody else's
matter; and with what it needs here: no serial console (it takes the building machine's, and waits for that), and
systemd's own libraries and executor, which it misses in Debian 13 (where its udev still fails then, and no login was
seen: take Debian 12). What it notes of the disks is wrong (it sees those of the machine that builds), which a start up
to its shell does not mind.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from rekindle_image.scratch import scratch_folder

from recovery.commands import run
from tests.e2e.lab.host_image import recipe, rootfs
from tests.e2e.lab.host_image.build import CACHE

#: What rear's own documentation asks for beside the package, for an ISO that starts by BIOS and UEFI.
PACKAGES = ("rear", "xorriso", "isolinux", "syslinux-common", "mtools", "cpio", "file", "attr")
SETTINGS = """\
OUTPUT=ISO
BACKUP=REQUESTRESTORE
BOOTLOADER=GRUB
ISO_DEFAULT=manual
USE_SERIAL_CONSOLE="no"
COPY_AS_IS+=( /usr/lib/x86_64-linux-gnu/systemd /usr/lib/systemd/systemd-executor )
KERNEL_VERSION={version}
KERNEL_FILE=/boot/vmlinuz-{version}
KERNEL_CMDLINE="{parameters}"
"""


@contextlib.contextmanager
def devices(root: Path) -> Iterator[None]:
    """/dev in ``root``: rear reads it, and makes nodes of its own elsewhere."""
    run(["mount", "--bind", "/dev", root / "dev"])
    try:
        yield
    finally:
        run(["umount", "-l", root / "dev"], check=False)


def build(iso: Path, suite: str, parameters: str = "") -> None:
    """Make ``iso``, whose kernel gets these ``parameters`` as well. Raises CommandError; what rear said stands beside
    it then, as ``ISO.log``."""
    with scratch_folder(CACHE) as work:
        root = rootfs.bootstrap(
            work / "root", (*recipe.PACKAGES, *PACKAGES), "minbase", lambda line: None, suite=suite
        )
        rootfs.configure(root)
        version = rootfs.kernel_version(root)
        (root / "etc/rear/local.conf").write_text(SETTINGS.format(version=version, parameters=parameters))
        with rootfs.mounted_system(root), devices(root):
            done = subprocess.run(
                ["chroot", str(root), "rear", "-v", "mkrescue"], stdin=subprocess.DEVNULL, check=False,
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", "HOME": "/root", "TERM": "dumb"},
            )  # fmt: skip
        logs = sorted((root / "var/log/rear").glob("*.log"), key=os.path.getmtime)
        if logs:
            shutil.copy(logs[-1], iso.with_suffix(".log"))
        made = sorted((root / "var/lib/rear/output").glob("*.iso"))
        if done.returncode or not made:
            sys.exit(f"rear ended with {done.returncode}; its log is {iso.with_suffix('.log')}")
        shutil.copy(made[0], iso)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("iso", type=Path)
    parser.add_argument("--suite", default=recipe.SUITE, help="Debian's name (default: %(default)s)")
    parser.add_argument("--kernel-parameter", action="append", default=[], metavar="WORD", help="repeatable")
    chosen = parser.parse_args()
    build(chosen.iso, chosen.suite, " ".join(chosen.kernel_parameter))


if __name__ == "__main__":
    main()
