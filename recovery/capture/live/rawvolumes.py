"""Logical volumes that something writes to directly, as VMs do: no filesystem of the host could be frozen for them.

Device-mapper suspends them for the moment of the freeze. They are as a power cut leaves them, as a VM's file is.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from recovery.capture.busy import stacked_devices
from recovery.capture.live.filesystems import Filesystem
from recovery.capture.live.freezer import CONTROL, SuspendedVolume
from recovery.capture.tracking.model import TrackedDisk
from recovery.errors import DeviceError

_SYS, _NUMBERS, _SWAPS = Path("/sys/block"), Path("/sys/dev/block"), Path("/proc/swaps")
#: How LVM marks the device of a thin pool that its thin volumes lie on.
_POOL = "-tpool"


@dataclass(frozen=True)
class RawVolume:
    """``number`` is ``major:minor``, ``name`` device-mapper's (``vg0-db``)."""

    number: str
    name: str


def find_raw_volumes(disks: Sequence[TrackedDisk], filesystems: Sequence[Filesystem]) -> list[RawVolume]:
    """Volumes on the disks that are open, while nothing lies on them that is known: no filesystem that we freeze, no
    swap, no other device. Then the thin pools of these, which write down what they gave out only when they are
    suspended, or a filesystem on them is frozen. Raises DeviceError."""
    if not Path(CONTROL).exists():
        return []
    frozen = {name for each in filesystems for number, name in stacked_devices(each.device)}
    frozen |= {Path(each.source).resolve().name for each in filesystems}
    frozen |= {Path(line.split()[0]).resolve().name for line in _SWAPS.read_text().splitlines()[1:]}
    stacked = {pair for disk in disks for pair in stacked_devices(f"{disk.major}:{disk.minor}")}
    volumes = sorted((name, number) for number, name in stacked if (_SYS / name / "dm").is_dir())
    leaves = [
        (name, number) for name, number in volumes
        if name not in frozen and not _names(_SYS / name / "holders") and is_open(number)
    ]  # fmt: skip
    pools = sorted({
        pool for name, _ in leaves for pool in _names(_SYS / name / "slaves")
        if _is_pool(pool) and not frozen.intersection(_above(pool))
    })  # fmt: skip
    chosen = [*leaves, *((pool, (_SYS / pool / "dev").read_text().strip()) for pool in pools)]
    return [RawVolume(number, volume_name(number) or name) for name, number in chosen]


def is_open(number: str) -> bool:
    """Whether somebody has the volume open. Raises DeviceError."""
    try:
        control = os.open(CONTROL, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise DeviceError(f"'{CONTROL}' cannot be opened: {error.strerror}.", hint="Run as root.") from error
    try:
        return suspendable(control, number).status()[1] > 0
    except OSError:
        return False  # it was removed meanwhile
    finally:
        os.close(control)


def volume_name(number: str) -> str:
    """Device-mapper's name of the volume with that number (``major:minor``), or empty."""
    try:
        return (_NUMBERS / number / "dm/name").read_text().strip()
    except OSError:
        return ""


def suspendable(control: int, number: str) -> SuspendedVolume:
    """The volume with that number, by a descriptor of device-mapper's control."""
    major, _, minor = number.partition(":")
    return SuspendedVolume(control, int(major), int(minor))


def resume_all(volumes: Iterable[RawVolume]) -> None:
    """Resume what is suspended. Raises nothing."""
    with contextlib.suppress(OSError):
        control = os.open(CONTROL, os.O_RDWR | os.O_CLOEXEC)
        try:
            for each in volumes:
                with contextlib.suppress(OSError):
                    suspendable(control, each.number).release()
        finally:
            os.close(control)


def _above(name: str) -> set[str]:
    return {above for _, above in stacked_devices((_SYS / name / "dev").read_text().strip())}


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*"))


def _is_pool(name: str) -> bool:
    try:
        return (_SYS / name / "dm/uuid").read_text().strip().endswith(_POOL)
    except OSError:
        return False
