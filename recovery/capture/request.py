"""What a capture is asked to do, as plain data."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from recovery.format.chunk import DEFAULT_LEVEL
from recovery.format.point import Consistency, Retention
from recovery.layout import Firmware


def default_workers() -> int:
    """One worker a core; more than eight read faster than a disk gives, and each holds 32 MiB."""
    return max(2, min(8, os.cpu_count() or 2))


class CaptureRequest(msgspec.Struct, frozen=True, kw_only=True):
    """``disks`` are block devices or image files, in the order of their names ``disk1`` ....

    ``consistency`` and ``firmware`` None: decided from what is found. ``image_format`` is the QEMU driver of the image
    files; None: found out, and refused when the header names further files. ``level`` is zstd's. Memory is bounded by
    32 MiB for each worker and 68 MiB for each uploader and two more, whatever the size of the disks.
    """

    host: str
    disks: tuple[Path, ...]
    consistency: Consistency | None = None
    firmware: Firmware | None = None
    note: str = ""
    image_format: str | None = None
    level: int = DEFAULT_LEVEL
    workers: int = msgspec.field(default_factory=default_workers)
    uploaders: int = 2
    retention: Retention | None = None
    """What the host wishes to be kept of its points."""
