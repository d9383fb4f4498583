"""Who a block device is (model, serial, WWN, sector size), from sysfs and udev's database through ``lsblk``."""

from __future__ import annotations

import fcntl
import json
import os
import struct
from dataclasses import dataclass
from pathlib import Path

from recovery.commands import run
from recovery.errors import DeviceError

_BLKSSZGET = 0x1268
_BLKGETSIZE64 = 0x80081272


@dataclass(frozen=True)
class Identity:
    """What tells this disk from others; empty strings where the device has none (image files, loop devices)."""

    model: str = ""
    serial: str = ""
    wwn: str = ""


def identify(device: Path) -> Identity:
    """The identity of a block device; empty when ``lsblk`` knows none."""
    done = run(["lsblk", "-J", "-d", "-o", "MODEL,SERIAL,WWN", device], check=False, timeout=60)
    if not done:
        return Identity()
    try:
        facts = json.loads(done.stdout)["blockdevices"][0]
    except (ValueError, LookupError):
        return Identity()
    return Identity(*((facts.get(key) or "").strip() for key in ("model", "serial", "wwn")))


def geometry(device: Path) -> tuple[int, int]:
    """Size and logical sector size of a block device, in bytes. Raises DeviceError."""
    try:
        with device.open("rb", buffering=0) as file:
            size = fcntl.ioctl(file.fileno(), _BLKGETSIZE64, b"\0" * 8)
            sector = fcntl.ioctl(file.fileno(), _BLKSSZGET, b"\0" * 4)
    except OSError as error:
        raise DeviceError(
            f"'{device}' cannot be opened: {error.strerror}.", hint="Run as root; look at the kernel's log (dmesg)."
        ) from error
    return struct.unpack("<Q", size)[0], struct.unpack("<I", sector)[0]


def is_device_mapper(device: Path) -> bool:
    """Whether it is an LV or another device-mapper device (which may be a snapshot of something running)."""
    number = device.stat().st_rdev
    return Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}/dm").exists()
