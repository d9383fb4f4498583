"""Folders in which other systems are built, and how to get rid of them safely.

``mmdebstrap`` mounts /proc, /sys and parts of /dev inside the system that it builds. When it is killed they stay, and
removing the folder would then remove what is mounted there: shared memory, devices, whatever the host shows in it.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from recovery.commands import run
from recovery.errors import BusyError

#: Before a command that mounts: its mounts are its own and go with it, also when it is killed.
OWN_MOUNTS = ("unshare", "--mount", "--propagation=private")
_MOUNTS = Path("/proc/self/mountinfo")


def mounts_below(folder: Path, table: str) -> list[Path]:
    """The mount points at or below ``folder`` in a mountinfo table, the last one mounted first."""
    folder = folder.resolve()
    points = [Path(line.split()[4].encode().decode("unicode_escape")) for line in table.splitlines() if line]
    return [point for point in reversed(points) if point == folder or folder in point.parents]


def discard(folder: Path) -> None:
    """Unmount what is mounted below ``folder``, then remove it without leaving its filesystem.

    Raises BusyError, and removes nothing, when something stays mounted.
    """
    for point in mounts_below(folder, _MOUNTS.read_text()):
        run(["umount", point], check=False)
    if left := mounts_below(folder, _MOUNTS.read_text()):
        raise BusyError(
            f"'{folder}' was not removed: something is still mounted on '{left[0]}'.",
            hint=f"End what uses it, then: umount '{left[0]}'",
        )
    run(["rm", "-rf", "--one-file-system", folder])


@contextlib.contextmanager
def scratch_folder(parent: Path, prefix: str = "making-") -> Iterator[Path]:
    """A folder for a build; goes away with the block, however the block ends."""
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    try:
        yield folder
    finally:
        discard(folder)
