"""Kernel modules and descriptions of hardware that no machine of the lab has are left out of its systems.

A restored host's initramfs is packed anew with MODULES=most, in a machine that is emulated: each of its thousands of
files costs that tens of milliseconds, and all of them were eleven minutes of the demo. What libvirt uses stays as
Debian has it.
"""

from __future__ import annotations

from collections.abc import Iterable
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
    "drivers/ufs", "drivers/thunderbolt", "drivers/nvdimm", "drivers/dax", "drivers/accessibility", "drivers/cpufreq",
    "drivers/xen", "drivers/nvme/target", "drivers/net/ppp", "drivers/char/tpm", "drivers/char/ipmi",
    "drivers/counter", "drivers/crypto", "drivers/extcon", "drivers/regulator", "net/ax25", "net/can", "net/6lowpan",
    "net/dccp",
)  # fmt: skip


#: Of these folders only what the lab's machines have.
KEPT = {
    "drivers/ata": ("ahci", "ata_generic", "ata_piix", "libahci", "libata"),
    "drivers/hid": ("hid", "hid-generic", "usbhid"),
    "drivers/input/keyboard": ("atkbd",),
    "drivers/net/ethernet": ("intel", "realtek"),
    "drivers/net/ethernet/intel": ("e1000", "e1000e", "igb"),
    "drivers/net/ethernet/realtek": ("8139cp", "8139too"),
    "drivers/usb/storage": ("uas", "usb-storage"),
    "drivers/scsi": (
        "megaraid", "mpt3sas", "raid_class", "scsi_common", "scsi_mod", "scsi_transport_sas", "scsi_transport_spi",
        "sd_mod", "sg", "sr_mod", "virtio_scsi", "vmw_pvscsi",
    ),
    "fs": ("btrfs", "efivarfs", "ext4", "fat", "fuse", "isofs", "jbd2", "mbcache", "nls", "overlayfs", "squashfs",
           "xfs"),
    "fs/nls": ("nls_ascii", "nls_cp437", "nls_iso8859-1", "nls_utf8"),
}  # fmt: skip


def prune(root: Path, version: str, absent: Iterable[str]) -> None:
    """Remove folders of modules of the kernel ``version`` of the system in ``root``; of the folders in ``KEPT`` all
    but those modules and folders. Raises CommandError."""
    kernel = root / f"usr/lib/modules/{version}/kernel"
    gone = [kernel / name for name in absent]
    for folder, names in KEPT.items():
        gone += [path for path in (kernel / folder).glob("*") if path.name.partition(".")[0] not in names]
    run(["rm", "-rf", *gone])
    run(["chroot", root, "depmod", version])


def prune_hwdb(root: Path) -> None:
    """Remove the hardware database of the system in ``root``, 13 MB in each initramfs: in the lab udev finds
    everything without it. Raises CommandError."""
    (root / "usr/lib/udev/hwdb.bin").unlink(missing_ok=True)
    # It would make it again at the first start.
    run(["chroot", root, "systemctl", "-q", "mask", "systemd-hwdb-update.service"])
