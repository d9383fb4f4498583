"""Step: UEFI finds the boot manager of Windows without a boot entry, which this machine has not. Windows itself puts a
copy at the fallback path; where that is gone it is put there again. What the manager reads (BCD) stays as it is."""

from __future__ import annotations

import tempfile
from pathlib import Path

from recovery.adapt.model import Job
from recovery.capture.esp import list_esp
from recovery.capture.ranges import Extent
from recovery.commands import run
from recovery.errors import CommandError

TITLE = "See that UEFI finds Windows' boot manager"

_MANAGER, _FALLBACK = "/EFI/MICROSOFT/BOOT/BOOTMGFW.EFI", "/EFI/BOOT/BOOTX64.EFI"
#: mtools looks at a volume's size by the rules of floppies otherwise.
_ENV = {"MTOOLS_SKIP_CHECK": "1"}


def keep_loader(job: Job) -> str:
    """By mtools: the ESP is not mounted. Raises CommandError where neither is there: it would not start."""
    found = False
    for node in job.nodes:
        if node.content != "vfat" or node.kind not in ("part", "loop"):
            continue
        files = list_esp(Extent(Path(node.path), 0, node.size))
        if _MANAGER in files and _FALLBACK not in files:
            _copy(node.path, with_folder=not any(name.startswith("/EFI/BOOT/") for name in files))
            job.changed(f"\\EFI\\BOOT\\BOOTX64.EFI on {node.path} starts the boot manager of Windows.")
        found = found or _MANAGER in files or _FALLBACK in files
    if found:
        return "The fallback path starts the boot manager of Windows."
    raise CommandError(
        "The restored disks have no EFI system partition with the boot manager of Windows.",
        hint="Were all disks of the host restored? Windows' own repair ('bcdboot') makes one.",
    )


def _copy(device: str, *, with_folder: bool) -> None:
    with tempfile.TemporaryDirectory(prefix="rekindle-esp-") as folder:
        loader = Path(folder) / "loader"
        run(["mcopy", "-i", device, f"::{_MANAGER}", loader], env=_ENV)
        if with_folder:
            run(["mmd", "-i", device, "::/EFI/BOOT"], env=_ENV)
        run(["mcopy", "-i", device, loader, f"::{_FALLBACK}"], env=_ENV)
