"""How a disk is named for ever and what it is attached by. Pure: words from the kernel in, names out."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from recovery.machine.model import Bus, Disk

_TRANSPORTS: dict[str, Bus] = {
    "nvme": "nvme", "sata": "sata", "ata": "sata", "usb": "usb", "virtio": "virtio", "mmc": "mmc",
    "sas": "scsi", "fc": "scsi", "iscsi": "scsi", "spi": "scsi",
}  # fmt: skip


def normal_wwn(text: str) -> str:
    """A world wide name as bare lower-case hex, or empty when ``text`` is not a real one.

    udev writes ``0x5000...``, sysfs ``naa.5000...`` and ``eui.0025...`` for the same thing. ``t10.`` and ``nvme.``
    names are made up from model and serial, so the serial says the same.
    """
    word = text.strip().lower()
    for prefix in ("0x", "naa.", "eui.", "uuid.", "wwn:"):
        word = word.removeprefix(prefix)
    bare = word.replace("-", "")
    return bare if re.fullmatch(r"[0-9a-f]{16,32}", bare) and bare.strip("0") else ""


def normal_words(text: str) -> str:
    """A model or serial number with the kernel's padding removed."""
    return " ".join(text.replace("\0", " ").split())


def disk_id(*, wwn: str, model: str, serial: str, path: str) -> str:
    """The id of a disk from normalised words."""
    if wwn:
        return f"wwn:{wwn}"
    return f"serial:{model}:{serial}" if serial else f"path:{path}"


def bus_of(name: str, transport: str, subsystems: Sequence[str]) -> Bus:
    """What the disk ``name`` (``sda``) is attached by; ``transport`` and ``subsystems`` are lsblk's words."""
    for start, bus in (("nvme", "nvme"), ("vd", "virtio"), ("mmcblk", "mmc"), ("loop", "loop")):
        if name.startswith(start):
            return bus  # type: ignore[return-value]
    if transport in _TRANSPORTS:
        return _TRANSPORTS[transport]
    if "usb" in subsystems:
        return "usb"
    return "scsi" if "scsi" in subsystems or name.startswith("sd") else "other"


def same_device(one: Disk, other: Disk) -> bool:
    """Two names of one device (paths to a SAN volume, a disk cabled twice): what is written to one is on the other.

    Cheap disks of one make may share a WWN; then their serial numbers differ.
    """
    same = bool(one.wwn) and one.wwn == other.wwn and one.size == other.size and one.serial == other.serial
    return same and one.path != other.path


def ambiguous_ids(disks: Iterable[Disk]) -> set[str]:
    """Ids that more than one disk claims, as cheap USB enclosures do: they name nothing."""
    return {id for id, count in Counter(disk.id for disk in disks).items() if count > 1}
