"""The Windows on the restored disks, for the steps that adapt it: found, its registry changed, what was there kept.

A hive is changed in place, because a new file would lose its access rights: first it says that it is not whole, last
of all that it is, as Windows itself does; meanwhile the new one lies beside it in full, so that a run that was cut off
there is completed by the next. The original stays beside it as ``SYSTEM.rekindle-orig``, with its rights.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import struct
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from recovery.adapt.devices import Node
from recovery.adapt.host import KEPT
from recovery.adapt.model import AdaptRequest, Job
from recovery.adapt.ntfs import ntfs_mounted, why_not_writable
from recovery.errors import CommandError, IntegrityError, RekindleError, SpaceError
from recovery.layout import WINDOWS
from recovery.windows.hives import Hive, is_whole
from recovery.windows.system import Installed, find_installed

#: A file's access rights, as ntfs-3g shows them.
_RIGHTS = "system.ntfs_acl"
_BASE_BLOCK = 4096


@dataclass(frozen=True)
class Found:
    """A Windows: the node of its volume, and what it is called."""

    node: Node
    name: str


def is_windows(request: AdaptRequest) -> bool:
    """Whether the host itself is Windows."""
    return request.point.body.system.os_id == WINDOWS


def is_linux(request: AdaptRequest) -> bool:
    """Whether the host may be Linux: a point that knows none may still hold one."""
    return not is_windows(request)


def may_have_windows(request: AdaptRequest) -> bool:
    """Whether there is a Windows on the disks; without a point any NTFS may hold one."""
    body = request.point.body
    tables = (disk.table for disk in body.disks)
    any_ntfs = any(part.content.kind == "ntfs" for table in tables for part in table.partitions)
    return bool(body.windows) or (not request.point.id and any_ntfs)


def find(job: Job) -> list[Found]:
    """Every Windows on the restored disks: those of the point, without one those that are found."""
    volumes = {n.path: n for n in job.nodes if n.content == "ntfs" and n.kind in ("part", "disk", "loop")}
    if job.request.point.id:
        names = {windows.volume: windows.name for windows in job.request.point.body.windows}
        named = ((names.get(f"{n.disk}:{n.number}" if n.number else n.disk), n) for n in volumes.values())
        return [Found(node, name) for name, node in named if name]
    found = []
    for node in volumes.values():
        try:
            with ntfs_mounted(node.path) as root:
                if find_installed(root) is not None:
                    found.append(Found(node, "Windows"))
        except CommandError as error:
            job.warn(f"Whether there is a Windows on {node.path} is not known: {error.message}")
    return found


def change_registry(job: Job, found: Found, change: Callable[[Hive, Installed], list[str]]) -> list[str]:
    """Let ``change`` alter the SYSTEM hive in memory and say what it altered, in sentences; written when that is
    anything. It is looked at first: what is right already is not written to, whatever state the volume is in.

    Raises IntegrityError where the volume or the hive may not be written to, CommandError, SpaceError, and what
    ``change`` raises.
    """
    with ntfs_mounted(found.node.path) as root:
        if not _altered(root, change) and not _cut_off(root):
            return []
    if why := why_not_writable(found.node.path):
        raise IntegrityError(
            f"{found.name} on {found.node.path} is left as it is, because {why}.",
            hint="Start the host where it was, shut it down in full, and capture it again.",
        )
    with ntfs_mounted(found.node.path, write=True) as root, _writable(root) as (hive, installed):
        said = change(hive, installed)
        _save(hive, installed.system)
    with ntfs_mounted(found.node.path) as root:
        if left := _altered(root, change):
            raise IntegrityError(f"The registry of {found.name} was written, and does not say so: {left[0]}")
    return said


def in_each(job: Job, run: Callable[[Found], None]) -> int:
    """Do it for every Windows; how many there are. Where it cannot be done for one that is not the host itself, that
    is a warning: Linux beside it starts all the same. Raises what ``run`` raises."""
    every = find(job)
    for found in every:
        try:
            run(found)
        except RekindleError as error:
            if is_windows(job.request):
                raise
            job.warn(error.message)
    return len(every)


def _cut_off(root: Path) -> bool:
    installed = find_installed(root)
    return installed is not None and _new(installed.system).is_file()


def _altered(root: Path, change: Callable[[Hive, Installed], list[str]]) -> list[str]:
    """What would be altered. On a copy in memory: nothing is written."""
    with _writable(root) as (hive, installed):
        return change(hive, installed)


@contextlib.contextmanager
def _writable(root: Path) -> Iterator[tuple[Hive, Installed]]:
    """The hive, opened to be changed, on a copy; what an earlier run was cut off in writing is taken as written."""
    installed = find_installed(root)
    if installed is None:
        raise IntegrityError("There is no Windows on its volume any more.", hint="Restore the disk again.")
    new = _new(installed.system)
    cut_off = not is_whole(installed.system) and new.is_file() and same_write(installed.system, new)
    with tempfile.TemporaryDirectory(prefix="rekindle-hive-") as folder:  # secrets are in it: only root may read there
        copy = Path(folder) / installed.system.name
        shutil.copyfile(new if cut_off else installed.system, copy)
        yield Hive(copy, write=True), installed


def _save(hive: Hive, path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="rekindle-hive-") as folder:
        new = Path(folder) / "new"
        hive.save(new)
        data = new.read_bytes()
    try:
        _beside(path, _kept(path), path.read_bytes(), once=True)
        _beside(path, _new(path), data)
        _write_in_place(path, data)
        _new(path).unlink()
    except OSError as error:
        raise SpaceError(
            f"The registry of Windows cannot be written: {error.strerror}.",
            hint="Make room on its volume, then run 'rekindle adapt' again.",
        ) from error


def _write_in_place(path: Path, data: bytes) -> None:
    with path.open("r+b") as file:
        first = struct.unpack_from("<I", data, 4)[0]
        file.seek(4)
        file.write(struct.pack("<II", first, (first - 1) % 2**32))  # from now on it is not whole
        _flush(file)
        file.seek(_BASE_BLOCK)
        file.write(data[_BASE_BLOCK:])
        file.truncate()
        _flush(file)
        file.seek(0)
        file.write(data[:_BASE_BLOCK])
        _flush(file)


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _kept(path: Path) -> Path:
    return path.with_name(path.name + KEPT)


def _new(path: Path) -> Path:
    return path.with_name(path.name + ".rekindle-new")


def same_write(path: Path, new: Path) -> bool:
    """Whether writing ``new`` into a hive is what was cut off: an older one must not come back."""
    with path.open("rb") as one, new.open("rb") as other:
        return is_whole(new) and one.read(8) == other.read(8)


def _beside(path: Path, other: Path, data: bytes, *, once: bool = False) -> None:
    """A file beside the hive, for the eyes of those only who may see the hive. Of ``once`` the first one counts."""
    if once and other.exists():
        return
    part = path.with_name(path.name + ".rekindle-part")
    with part.open("wb") as target:
        with contextlib.suppress(OSError):  # where it has no rights of its own, there is nothing to copy
            os.setxattr(part, _RIGHTS, os.getxattr(path, _RIGHTS))
        target.write(data)
        _flush(target)
    part.replace(other)
