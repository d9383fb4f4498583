"""How plans name disks, and the types of partitions that they look for. Pure."""

from __future__ import annotations

from recovery.machine.model import Disk
from recovery.units import format_size

BIOS_BOOT = "21686148-6449-6e6f-744e-656564454649"
ESP = ("c12a7328-f81f-11d2-ba4b-00a0c93ec93b", "ef")
#: Types of the partitions that hold what firmware starts.
BOOT_TYPES = (BIOS_BOOT, *ESP)


def short_name(disk: Disk) -> str:
    """A disk as a person knows it: ``/dev/sda (Samsung SSD 870, 465 GiB, serial S5Y1)``."""
    words = [word for word in (disk.model, format_size(disk.size)) if word]
    if disk.serial:
        words.append(f"serial {disk.serial}")
    return f"{disk.path} ({', '.join(words)})"
