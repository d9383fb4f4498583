"""How small a captured filesystem could be made, as its own tool says: decides whether it fits on a smaller disk."""

from __future__ import annotations

import re
from pathlib import Path

from recovery.capture.volumes import Volume
from recovery.commands import run
from recovery.errors import CommandError

#: Seconds: a filesystem with millions of files is looked through, and a capture must not wait for ever.
_TIMEOUT = 600


def minimum_bytes(volume: Volume, folder: Path) -> int | None:
    """The bytes that the filesystem, mounted read-only at ``folder``, needs at least; None where nobody says."""
    try:
        if volume.content.kind in ("ext2", "ext3", "ext4") and len(volume.extents) == 1:
            return _ext_minimum(volume)
        if volume.content.kind == "btrfs":
            return _btrfs_minimum(folder)
    except CommandError:
        pass  # A tool that is not there: the bytes in use have to do.
    return None


def _ext_minimum(volume: Volume) -> int | None:
    extent = volume.extents[0]
    done = run(["resize2fs", "-P", f"{extent.path}?offset={extent.offset}"], check=False, timeout=_TIMEOUT)
    found = re.search(r"^Estimated minimum size of the filesystem: (\d+)$", done.stdout, re.MULTILINE)
    if not done or not found or not volume.content.block_size:
        return None
    return int(found[1]) * volume.content.block_size


def _btrfs_minimum(folder: Path) -> int | None:
    done = run(["btrfs", "inspect-internal", "min-dev-size", folder], check=False, timeout=_TIMEOUT)
    found = re.match(r"(\d+) bytes", done.stdout)
    return int(found[1]) if done and found else None
