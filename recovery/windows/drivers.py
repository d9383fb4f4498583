"""The storage drivers that Windows brings or that are commonly installed, and what they drive. Pure.

Windows loads at its start only drivers whose start type is *boot* (0), and sets that for the controller that it was
installed on; the others would be there, and are not loaded: INACCESSIBLE_BOOT_DEVICE.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

#: The start type of a driver that the boot loader loads (``SERVICE_BOOT_START`` of ``winnt.h``).
BOOT_START = 0

#: Services -> what they drive. Those of Windows itself, of virtio-win and of VMware Tools; a name that a Windows does
#: not have is passed over.
SERVICES: Mapping[str, str] = {
    "storahci": "SATA (AHCI)",
    "msahci": "SATA (AHCI) of Windows 7",
    "stornvme": "NVMe",
    "intelide": "IDE", "pciide": "IDE", "atapi": "IDE",
    "viostor": "virtio-blk", "vioscsi": "virtio-scsi",
    "pvscsi": "VMware's paravirtual SCSI",
    "storvsc": "Hyper-V's SCSI", "vmbus": "Hyper-V's bus",
    "megasas": "MegaRAID", "megasas2i": "MegaRAID", "megasas35i": "MegaRAID",
    "LSI_SAS": "LSI SAS", "LSI_SAS2i": "LSI SAS 2", "LSI_SAS3i": "LSI SAS 3",
    "LSI_SAS2": "LSI SAS 2", "LSI_SCSI": "LSI SCSI", "ItSas35i": "Broadcom SAS 3.5",
    "HpSAMD": "Smart Array", "SmartSAMD": "Smart HBA",
    "iaStorV": "Intel RAID", "iaStorAVC": "Intel RAID", "iaStorVD": "Intel VMD",
}  # fmt: skip

#: Linux' module for a controller -> the services of Windows that drive it: one of them has to be there.
_BY_MODULE: Mapping[str, tuple[str, ...]] = {
    "ahci": ("storahci", "msahci"),
    "ata_piix": ("intelide", "pciide"),
    "ata_generic": ("pciide",),
    "nvme": ("stornvme",),
    "virtio_blk": ("viostor",),
    "virtio_scsi": ("vioscsi",),
    "vmw_pvscsi": ("pvscsi",),
    "hv_storvsc": ("storvsc",),
    "megaraid_sas": ("megasas", "megasas2i", "megasas35i"),
    "mptsas": ("LSI_SAS",),
    "mptspi": ("LSI_SCSI",),
    "mpt3sas": ("LSI_SAS2i", "LSI_SAS3i", "LSI_SAS2", "ItSas35i"),
    "hpsa": ("HpSAMD",),
    "smartpqi": ("SmartSAMD",),
}

#: The same by the bus of a disk, where the module is not known (a recorded machine, a driver built in).
_BY_BUS: Mapping[str, tuple[str, ...]] = {
    "nvme": ("stornvme",),
    "sata": ("storahci", "msahci", "intelide", "pciide"),
    "virtio": ("viostor",),
}


def services_for(bus: str, modules: Iterable[str]) -> tuple[str, ...]:
    """The services of which one drives a disk here, on this bus and behind these modules of Linux; empty where that
    is not known."""
    for module in modules:
        if module in _BY_MODULE:
            return _BY_MODULE[module]
    return _BY_BUS.get(bus, ())


def missing_for(bus: str, modules: Iterable[str], present: Iterable[str]) -> tuple[str, ...]:
    """Of these services the host has none: they are what it lacks; empty when it has one, or nobody knows."""
    wanted = services_for(bus, modules)
    has = {name.lower() for name in present}
    return () if any(name.lower() in has for name in wanted) else wanted
