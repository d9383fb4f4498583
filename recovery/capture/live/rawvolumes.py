"""Logical volumes that something writes to directly, as VMs do: no filesystem of the host could be frozen for them.

Device-mapper suspends them for the moment of the freeze. They are as a power cut leaves them, as a VM's file is.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from recovery.capture.busy import parse_mountinfo, stacked_devices
from recovery.capture.live.filesystems import Filesystem
from recovery.capture.live.freezer import CONTROL, SuspendedVolume
from recovery.capture.tracking.model import TrackedDisk
from recovery.errors import DeviceError

_SYS, _NUMBERS, _BTRFS = Path("/sys/block"), Path("/sys/dev/block"), Path("/sys/fs/btrfs")
_SWAPS, _MOUNTINFO = Path("/proc/swaps"), Path("/proc/self/mountinfo")
#: How LVM marks the device of a thin pool that its thin volumes lie on.
_POOL = "-tpool"


@dataclass(frozen=True)
class RawVolume:
    """``number`` is ``major:minor``, ``name`` device-mapper's (``vg0-db``), ``group`` LVM's volume group or empty."""

    number: str
    name: str
    group: str = ""


def find_raw_volumes(disks: Sequence[TrackedDisk], filesystems: Sequence[Filesystem]) -> list[RawVolume]:
    """Volumes on the disks that are open, while nothing lies on them that is known: no filesystem that the host
    has mounted, no swap, no other device. Then the thin pools of these, which write down what they gave out only when
    they are suspended, or a filesystem on them is frozen. Raises DeviceError."""
    if not Path(CONTROL).exists():
        return []
    taken = _taken(filesystems)
    stacked = {pair for disk in disks for pair in stacked_devices(f"{disk.major}:{disk.minor}")}
    volumes = sorted((name, number) for number, name in stacked if (_SYS / name / "dm").is_dir())
    leaves = [
        (name, number) for name, number in volumes
        if name not in taken and not _names(_SYS / name / "holders") and is_open(number)
    ]  # fmt: skip
    pools = sorted({
        pool for name, _ in leaves for pool in _names(_SYS / name / "slaves")
        if _fact(pool, "uuid").endswith(_POOL) and not taken.intersection(_above(pool))
    })  # fmt: skip
    chosen = [*leaves, *((pool, (_SYS / pool / "dev").read_text().strip()) for pool in pools)]
    return [
        RawVolume(number, _fact(name, "name") or name,
                  group_of(_fact(name, "name")) if _fact(name, "uuid").startswith("LVM-") else "")
        for name, number in chosen
    ]  # fmt: skip


def _taken(filesystems: Sequence[Filesystem]) -> set[str]:
    """Kernel names of what something of the host lies on that we see: mounts, also read-only ones, whose reading must
    not wait; all devices of a btrfs; swap."""
    names = {name for each in filesystems for _, name in stacked_devices(each.device)}
    names |= {Path(mount.source).resolve().name for mount in parse_mountinfo(_MOUNTINFO.read_text())
              if mount.source.startswith("/dev/")}  # fmt: skip
    names |= {Path(line.split()[0]).resolve().name for line in _SWAPS.read_text().splitlines()[1:]}
    return names | {path.name for path in _BTRFS.glob("*/devices/*")}


def group_of(name: str) -> str:
    """The volume group in device-mapper's name of an LV: ``vg--0-root`` is ``root`` in ``vg-0``. Pure."""
    found = re.match(r"((?:[^-]|--)+)-(?!-)", name)
    return found[1].replace("--", "-") if found else ""


def write_out(volumes: Iterable[RawVolume]) -> None:
    """Write to the volumes what the page cache holds for them, whoever wrote it: a suspension would wait for that.
    Raises nothing: the suspension tells of a volume that does not work."""
    for each in volumes:
        with contextlib.suppress(OSError):
            descriptor = os.open(f"/dev/mapper/{each.name}", os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


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


def _fact(name: str, fact: str) -> str:
    try:
        return (_SYS / name / "dm" / fact).read_text().strip()
    except OSError:
        return ""
