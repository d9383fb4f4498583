"""The machine in front of us, as plain data that can be saved to and loaded from JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from recovery.errors import UsageError
from recovery.layout import Content, Firmware, MdArray, PartitionTable, VolumeGroup

Bus = Literal["nvme", "sata", "virtio", "scsi", "usb", "mmc", "loop", "file", "other"]


class Disk(msgspec.Struct, frozen=True, kw_only=True):
    """A whole block device that could hold a host's disk.

    ``id`` names it for ever: ``wwn:...``, else ``serial:MODEL:SERIAL``, else ``path:/dev/...`` for a device that
    has neither. ``path`` is the kernel's name today. ``busy`` says in whole sentences why it must not be written
    (mounted, active LVM, the boot medium, holds a repository); empty when it may be.
    """

    id: str
    path: str
    size: int
    sector_size: int = 512
    physical_sector_size: int = 512
    bus: Bus = "other"
    model: str = ""
    serial: str = ""
    wwn: str = ""
    rotational: bool = False
    removable: bool = False
    read_only: bool = False
    boot_medium: bool = False
    repository: str = ""
    """Id of the repository that lies on this disk, or empty."""
    busy: tuple[str, ...] = ()
    table: PartitionTable = PartitionTable()
    content: Content = Content()
    """What lies on the whole disk when it has no partition table."""
    volume_groups: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    """The kernel modules that drive it here, its own first, those of its controllers after it; empty: not known."""
    systems: tuple[str, ...] = ()
    """What a person would miss: names of operating systems, hosts or VMs found on it, where known."""

    @property
    def blank(self) -> bool:
        """Nothing recognisable lies on it."""
        return self.table.kind == "none" and not self.content.kind

    @property
    def confirmation(self) -> str:
        """What the operator types to allow overwriting: the serial number, else the size in bytes."""
        return self.serial or str(self.size)


class Nic(msgspec.Struct, frozen=True, kw_only=True):
    """A network interface. ``speed`` is Mbit/s or None; ``path`` its stable udev path name (``enp3s0``)."""

    name: str
    mac: str
    driver: str = ""
    carrier: bool = False
    speed: int | None = None
    addresses: tuple[str, ...] = ()
    model: str = ""
    state: str = ""
    """The kernel's word: ``up``, ``down``, ``lowerlayerdown`` (no cable), ``dormant``, ``unknown``."""
    slot: str = ""
    """The PCI address (``0000:03:00.0``), for who looks at the back of the machine; empty for USB."""
    bond: str = ""
    """The bond that it is a member of."""

    @property
    def link(self) -> str:
        """``10000 Mbit/s``, ``link``, ``no link``, or ``switched off``: what a person looks for first."""
        if self.carrier:
            return f"{self.speed} Mbit/s" if self.speed else "link"
        return "switched off" if self.state == "down" else "no link"


class Driverless(msgspec.Struct, frozen=True, kw_only=True):
    """A network card or storage controller that does not work here; ``reason`` says in a sentence what it misses."""

    slot: str
    purpose: Literal["network", "storage"]
    name: str
    reason: str
    modalias: str = ""
    modules: tuple[str, ...] = ()
    firmware: tuple[str, ...] = ()


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a plan asks of the machine. ``memory`` is bytes."""

    firmware: Firmware = "unknown"
    secure_boot: bool = False
    architecture: str = "x86_64"
    memory: int = 0
    cpus: int = 0
    processor: tuple[str, ...] = ()
    """What it can do, in Linux' words (``vmx``, ``avx2``); empty: not known."""
    vendor: str = ""
    model: str = ""
    disks: tuple[Disk, ...] = ()
    nics: tuple[Nic, ...] = ()
    volume_groups: tuple[VolumeGroup, ...] = ()
    md_arrays: tuple[MdArray, ...] = ()
    driverless: tuple[Driverless, ...] = ()

    def disk(self, id: str) -> Disk | None:
        """The disk with this ``id`` or ``path``."""
        return next((disk for disk in self.disks if id in (disk.id, disk.path)), None)


def load_machine(path: Path) -> Machine:
    """A recorded machine. Raises UsageError when the file is not one."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Machine)
    except (OSError, msgspec.MsgspecError) as error:
        raise UsageError(
            f"'{path}' is not a recorded machine: {error}.", hint="Make one with 'rekindle machine --json > FILE'."
        ) from error
