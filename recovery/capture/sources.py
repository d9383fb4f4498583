"""The disks to capture: block devices and image files, each as something raw that can be read at any offset."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from recovery.capture.busy import refuse_if_written
from recovery.capture.identity import Identity, geometry, identify, is_device_mapper
from recovery.capture.qemu_export import exported, probe_image
from recovery.errors import BusyError, DeviceError, NotFoundError, UsageError


@dataclass(frozen=True)
class Source:
    """One disk. ``name`` is its name in the point (``disk1`` ...), ``given`` what the person typed, ``path`` the raw
    file or device that is read; ``size`` and ``sector_size`` are bytes (512 for images, which do not say)."""

    name: str
    given: Path
    path: Path
    size: int
    sector_size: int
    is_device: bool
    format: str = "raw"
    identity: Identity = Identity()
    may_be_snapshot: bool = False
    stamp: tuple[int, int] = (0, 0)
    """Size and modification time (ns) of the image file when it was opened; see ``check_unchanged``."""


def _stamp(path: Path) -> tuple[int, int]:
    facts = path.stat()
    return facts.st_size, facts.st_mtime_ns


@contextlib.contextmanager
def open_sources(paths: Sequence[Path], driver: str | None = None, *, running: bool = False) -> Iterator[list[Source]]:
    """The disks in the order given, named ``disk1`` ...; exports end with the block.

    ``driver`` is the format of the image files (QEMU's name); None: found out, and never one that opens other files.
    ``running``: whole disks that a running host writes to are allowed, and nothing else is.

    Raises NotFoundError, UsageError (not a disk, named twice), BusyError (in use), DeviceError.
    """
    if not paths:
        raise UsageError("No disk was named.", hint="Name at least one block device or image file.")
    with contextlib.ExitStack() as stack:
        sources: list[Source] = []
        seen: set[Path] = set()
        for number, path in enumerate(paths, 1):
            # realpath, because resolve() raises for a loop of links; opening it says that in our words.
            real = Path(os.path.realpath(path))
            if real in seen:
                raise UsageError(f"'{path}' is named twice.", hint="Name each disk once.")
            seen.add(real)
            sources.append(_open(f"disk{number}", path, driver, stack, running))
        yield sources


def _open(name: str, given: Path, driver: str | None, stack: contextlib.ExitStack, running: bool) -> Source:
    try:
        mode = given.stat().st_mode
    except FileNotFoundError as error:
        raise NotFoundError(
            f"There is no disk or file '{given}'.", hint="List the disks with 'lsblk -o NAME,SIZE,MODEL,SERIAL'."
        ) from error
    except OSError as error:
        raise DeviceError(f"'{given}' cannot be opened: {error.strerror}.", hint="Run as root.") from error
    if running and not stat.S_ISBLK(mode):
        raise UsageError(
            f"'{given}' is not a disk; of a running host whole disks are captured.",
            hint="Name a disk (/dev/sda), or leave --live out for an image that nothing writes to.",
        )
    if stat.S_ISBLK(mode):
        if not running:
            refuse_if_written(given)
        size, sector = geometry(given)
        if not size:
            raise UsageError(f"'{given}' has no medium in it (its size is 0).", hint="Choose another disk.")
        return Source(
            name, given, given, size, sector, True, identity=identify(given), may_be_snapshot=is_device_mapper(given)
        )
    if not stat.S_ISREG(mode):
        raise UsageError(
            f"'{given}' is neither a block device nor a file.", hint="Name a disk (/dev/sda) or an image file."
        )
    refuse_if_written(given)
    image = probe_image(given, driver)
    if not image.size:
        raise UsageError(f"'{given}' is empty.", hint="Name a disk image that holds a host's disk.")
    stamp = _stamp(given)
    path = given
    if image.format != "raw":
        path = stack.enter_context(exported(given, image.format, alone=driver is None))
    # Of a raw file QEMU rounds the size up to whole sectors; what is captured is what is there.
    size = min(stamp[0], image.size) if image.format == "raw" else image.size
    return Source(name, given, path, size, 512, False, format=image.format, stamp=stamp)


def check_unchanged(source: Source) -> None:
    """After reading: raises DeviceError when the size changed, BusyError when an image was written meanwhile."""
    if source.is_device:
        size = geometry(source.path)[0]
        if size != source.size:
            raise DeviceError(
                f"'{source.given}' changed its size from {source.size} to {size} bytes while it was read.",
                hint="Capture it again when nothing resizes it.",
            )
        return
    try:
        now = _stamp(source.given)
    except OSError as error:
        raise DeviceError(
            f"'{source.given}' went away while it was read: {error.strerror}.",
            hint="Put it back and capture it again.",
        ) from error
    if now[0] != source.stamp[0] and source.format == "raw":
        raise DeviceError(
            f"'{source.given}' changed its size from {source.stamp[0]} to {now[0]} bytes while it was read.",
            hint="Capture it again when nothing resizes it.",
        )
    if now != source.stamp:
        raise BusyError(
            f"'{source.given}' was written while it was read, so what was read is not one point in time.",
            hint="Stop what writes to it (a VM?), or capture a snapshot. What was stored is found again next time.",
        )


def open_raw(source: Source) -> tuple[int, bool]:
    """A new read-only descriptor and whether it is O_DIRECT (devices, where the kernel allows it).

    A capture reads every byte once: through the page cache it would push out what the host's VMs need.
    """
    if source.is_device:
        with contextlib.suppress(OSError):
            return os.open(source.path, os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC), True
    descriptor = open_plain(source)
    with contextlib.suppress(OSError):
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)
    return descriptor, False


def open_plain(source: Source) -> int:
    """A new read-only descriptor through the page cache. Raises DeviceError."""
    try:
        return os.open(source.path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise DeviceError(
            f"'{source.given}' cannot be opened: {error.strerror}.", hint="Look at the kernel's log (dmesg)."
        ) from error
