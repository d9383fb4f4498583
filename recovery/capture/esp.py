"""The EFI system partition, read with mtools, because a rescue kernel may lack vfat."""

from __future__ import annotations

from recovery.capture.ranges import Extent
from recovery.commands import run
from recovery.errors import CommandError

_ENV = {"MTOOLS_SKIP_CHECK": "1"}


def list_esp(extent: Extent) -> list[str]:
    """The files of a FAT filesystem as upper-case paths (``/EFI/BOOT/BOOTX64.EFI``). Raises CommandError."""
    argv = ["mdir", "-i", f"{extent.path}@@{extent.offset}", "-/", "-b", "-a", "::"]
    try:
        done = run(argv, timeout=60, env=_ENV)
    except CommandError as error:
        if 'File "::" not found' in error.message:
            return []  # mdir's word for an empty volume
        raise
    paths = [line.strip().removeprefix("::") for line in done.stdout.splitlines()]
    return sorted(path.upper() for path in paths if path.startswith("/") and not path.endswith("/"))
