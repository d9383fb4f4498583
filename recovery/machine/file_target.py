"""A regular file as the target of a restore: a raw image that is made or overwritten."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from recovery.errors import UnsafeTargetError, UsageError
from recovery.layout import Content, PartitionTable
from recovery.machine.model import Disk
from recovery.machine.probe_disks import probe_table
from recovery.machine.probe_volumes import blkid


def is_file_target(target: str) -> bool:
    """The words name a file rather than a disk: an absolute path that is not a device."""
    path = Path(target.removeprefix("path:"))
    return path.is_absolute() and not target.startswith("path:/dev/") and not str(path).startswith("/dev/")


def file_target(target: str, *, size: int, sector_size: int) -> Disk:
    """The Disk that stands for a file which is to hold ``size`` bytes; it is made by the restore.

    A file has no sector size of its own, so it takes the source's. Raises UsageError when its folder is missing
    or it is not a regular file, UnsafeTargetError when it may not be written.
    """
    path = Path(target.removeprefix("path:"))
    if not path.parent.is_dir():
        raise UsageError(f"The folder '{path.parent}' of the target file does not exist.", hint="Create it first.")
    exists = path.exists()
    if exists and not stat.S_ISREG(path.stat().st_mode):
        raise UsageError(f"'{path}' is neither a regular file nor a disk of this machine.", hint="Choose another.")
    if not os.access(path if exists else path.parent, os.W_OK):
        raise UnsafeTargetError(f"'{path}' may not be written by this user.", hint="Choose another place.")
    holds_bytes = exists and path.stat().st_size > 0
    table = probe_table(str(path)) if holds_bytes else PartitionTable()
    content = blkid([str(path)]) if holds_bytes else Content()
    if holds_bytes and table.kind == "none" and not content.kind and path.stat().st_blocks:
        content = Content(kind="data")  # not a disk at all, perhaps, but somebody's file: what is lost must be said
    return Disk(
        id=f"path:{path}",
        path=str(path),
        size=max(size, path.stat().st_size) if exists else size,
        sector_size=sector_size,
        physical_sector_size=sector_size,
        bus="file",
        model="raw image file" if not exists else f"raw image file, {path.stat().st_size} bytes now",
        table=table,
        content=content,
    )
