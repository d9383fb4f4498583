"""Which kernel modules the initramfs must have to reach the root disk on this machine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from recovery.machine.model import Bus, Disk

#: Modules by bus. Beside those in use, the usual controllers of the bus: the disk may be moved once more.
BUS_MODULES: Mapping[Bus, tuple[str, ...]] = {
    "nvme": ("nvme", "nvme_core", "vmd"),
    "sata": ("ahci", "ata_piix", "ata_generic", "sd_mod"),
    "virtio": ("virtio_pci", "virtio_blk", "virtio_scsi", "sd_mod"),
    "scsi": (
        "sd_mod", "virtio_pci", "virtio_scsi", "mpt3sas", "mptsas", "mptspi", "megaraid_sas", "hpsa", "smartpqi",
        "aacraid", "vmw_pvscsi", "sym53c8xx",
    ),
    "usb": ("xhci_pci", "ehci_pci", "usb_storage", "uas", "sd_mod"),
    "mmc": ("mmc_block", "sdhci_pci", "sdhci_acpi"),
}  # fmt: skip


def wanted_modules(disks: Iterable[Disk], in_use: Iterable[str]) -> list[str]:
    """In-use modules first, then the usual ones of each disk's bus; no duplicates. Pure."""
    names = [*in_use]
    for disk in disks:
        names += BUS_MODULES.get(disk.bus, ("sd_mod",))
    return list(dict.fromkeys(_plain(name) for name in names))


#: Names of drivers (not modules) that sysfs shows for what is always built in or part of a module listed above.
ALIASES = {"sd": "sd_mod", "virtio_blk": "virtio_blk"}

_NOT_STORAGE = ("pcieport", "pci_bridge", "acpi", "usb", "usbcore", "hub")


def kernel_modules(modules_dir: Path) -> tuple[set[str], set[str]]:
    """The (loadable, built-in) modules of a kernel from its ``/lib/modules/VERSION``."""
    return _names(modules_dir / "modules.dep", ":"), _names(modules_dir / "modules.builtin", None)


def _names(file: Path, separator: str | None) -> set[str]:
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return set()
    paths = (line.partition(separator)[0] if separator else line for line in lines)
    return {module_name(path) for path in paths if path}


def module_name(path: str) -> str:
    """``kernel/drivers/nvme/host/nvme-core.ko.xz`` -> ``nvme_core``."""
    return _plain(path.rsplit("/", 1)[-1].partition(".ko")[0])


def needed_of(disk: Disk, in_use: Iterable[str]) -> list[str]:
    """The modules without which the root on ``disk`` cannot be reached: those in use, else the bus's first. Pure."""
    used = [name for name in (ALIASES.get(n, n) for n in in_use) if name not in _NOT_STORAGE]
    fallback: dict[Bus, list[str]] = {"nvme": ["nvme"], "virtio": ["virtio_blk"], "sata": ["sd_mod"]}
    return used or fallback.get(disk.bus, ["sd_mod"] if disk.bus in ("scsi", "usb") else [])


def _plain(name: str) -> str:
    return name.replace("-", "_")
