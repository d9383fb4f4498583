"""What the kernel itself says about a tracked disk: its counters, its size, whether it is still the same device."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from recovery.capture.tracking.model import Doubt, TrackedDisk
from recovery.errors import DeviceError, UsageError

_SYS_BLOCK = Path("/sys/block")


@dataclass(frozen=True)
class Totals:
    """From ``/sys/block/X/stat`` (Documentation/block/stat.rst): requests that wrote or discarded, and sectors of 512
    bytes; all since the device appeared."""

    requests: int
    written: int
    discarded: int


def parse_stat(text: str) -> Totals:
    """The line in ``/sys/block/X/stat``. Raises ValueError."""
    fields = [int(word) for word in text.split()]
    if len(fields) < 15:
        raise ValueError("fewer than 15 counters")
    return Totals(fields[4] + fields[11], fields[6], fields[13])


def totals(disk: TrackedDisk) -> Totals:
    """The counters now. Raises DeviceError when the disk is gone."""
    try:
        return parse_stat((_SYS_BLOCK / disk.kernel_name / "stat").read_text())
    except (OSError, ValueError) as error:
        raise DeviceError(
            f"The kernel's counters of '{disk.path}' cannot be read: {error}.", hint="Is the disk still there?"
        ) from error


def _number(path: Path, default: int) -> int:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return default


def tracked_disk(name: str, path: Path) -> TrackedDisk:
    """The whole disk at ``path`` as trackers know it. Raises DeviceError, UsageError (not a whole disk)."""
    try:
        facts = path.stat()
    except OSError as error:
        raise DeviceError(f"'{path}' cannot be opened: {error.strerror}.", hint="Is the disk still there?") from error
    if not stat.S_ISBLK(facts.st_mode):
        raise UsageError(f"'{path}' is not a block device.", hint="Name a whole disk, as /dev/sda.")
    major, minor = os.major(facts.st_rdev), os.minor(facts.st_rdev)
    folder = Path(f"/sys/dev/block/{major}:{minor}").resolve()
    if (folder / "partition").exists():
        raise UsageError(
            f"'{path}' is a partition.", hint=f"Name the whole disk: /dev/{folder.parent.name}. It is captured as one."
        )
    return TrackedDisk(
        name=name,
        path=path,
        major=major,
        minor=minor,
        size=_number(folder / "size", 0) * 512,
        kernel_name=folder.name,
        sequence=_number(folder / "diskseq", 0),
    )


def untrackable(disk: TrackedDisk) -> Doubt | None:
    """Why this disk's writes can't be seen at the completion of requests, or None."""
    folder = _SYS_BLOCK / disk.kernel_name
    if not (folder / "mq").is_dir():
        return Doubt(cause="untracked", text=f"'{disk.path}' is a stacked device, whose writes cannot be tracked")
    if _number(folder / "queue/iostats", 1) != 1:
        return Doubt(cause="untracked", text=f"the kernel does not count the writes of '{disk.path}' (queue/iostats)")
    try:
        zoned = (folder / "queue/zoned").read_text().strip()
    except OSError:
        zoned = "none"
    if zoned != "none":
        return Doubt(cause="untracked", text=f"'{disk.path}' is a zoned disk")
    return None


def changed_device(disk: TrackedDisk) -> Doubt | None:
    """Whether this is not the device any more that ``disk`` was, or it has another size."""
    folder = _SYS_BLOCK / disk.kernel_name
    size = _number(folder / "size", -1) * 512
    try:
        number = (folder / "dev").read_text().strip()
    except OSError:
        number = ""
    if size < 0 or number != f"{disk.major}:{disk.minor}" or _number(folder / "diskseq", 0) != disk.sequence:
        return Doubt(cause="replaced", text=f"'{disk.path}' went away or is another device now")
    if size != disk.size:
        return Doubt(cause="resized", text=f"'{disk.path}' had {disk.size} bytes and has {size} now")
    return None
