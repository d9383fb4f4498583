"""Kernel modules of hardware that no machine of the lab has are left out of its systems.

A restored host's initramfs is packed anew with MODULES=most, in a machine that is emulated: each of its thousands of
files costs that tens of milliseconds, and all of them were eleven minutes of the demo. Storage, network, filesystems
and whatever libvirt uses stay as Debian has them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from recovery.commands import run

ABSENT = (
    "sound", "drivers/media", "drivers/gpu", "drivers/net/wireless", "drivers/staging", "drivers/iio", "drivers/hwmon",
    "drivers/infiniband", "drivers/bluetooth", "net/bluetooth", "drivers/isdn", "drivers/usb/gadget", "drivers/comedi",
    "drivers/accel", "drivers/mtd", "drivers/firewire", "drivers/net/wan", "drivers/net/hamradio", "drivers/net/fddi",
    "drivers/net/usb", "drivers/net/arcnet", "drivers/net/can", "drivers/net/wwan", "drivers/mmc", "drivers/pcmcia",
    "net/mac80211", "net/wireless", "net/sctp", "net/ceph", "drivers/block/drbd", "drivers/target",
    "drivers/platform", "drivers/video", "drivers/i2c/busses", "drivers/leds", "drivers/watchdog", "drivers/misc",
    "drivers/mfd", "drivers/w1", "drivers/edac", "drivers/hwtracing", "drivers/power", "drivers/gpio",
    "drivers/thermal", "drivers/pinctrl", "drivers/nfc", "net/nfc", "drivers/uio", "drivers/spi", "drivers/memstick",
    "drivers/gnss", "drivers/soundwire", "drivers/usb/serial", "drivers/usb/misc", "drivers/usb/typec",
    "drivers/usb/image", "drivers/usb/atm", "drivers/net/phy", "drivers/net/ieee802154", "drivers/input/touchscreen",
    "drivers/input/joystick", "drivers/input/tablet", "drivers/input/misc", "drivers/atm", "net/atm",
)  # fmt: skip


def prune(root: Path, version: str, absent: Iterable[str], kept: Mapping[str, Iterable[str]] | None = None) -> None:
    """Remove folders of modules of the kernel ``version`` of the system in ``root``; of the folders in ``kept`` all
    but those modules and folders. Raises CommandError."""
    kernel = root / f"usr/lib/modules/{version}/kernel"
    gone = [kernel / name for name in absent]
    for folder, names in (kept or {}).items():
        gone += [path for path in (kernel / folder).glob("*") if path.name.partition(".")[0] not in names]
    run(["rm", "-rf", *gone])
    run(["chroot", root, "depmod", version])
