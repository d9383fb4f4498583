"""Where the disks of a VM lie in a point, and what is to be said about them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

from recovery.errors import NotFoundError, UsageError
from recovery.explore.host import HostView
from recovery.explore.mapped import Mapped
from recovery.format.point import Point
from recovery.layout import VirtualMachine, VmDisk

#: Bytes 8 to 15 of a qcow2 file: where the name of its backing file stands, 0 without one; 16 to 19: its length.
_QCOW2 = b"QFI\xfb"


@dataclass(frozen=True)
class FoundDisk:
    """A disk of a VM: its entry in the inventory, its bytes as they lie (a qcow2 file is that file), a file name for
    them, and ``backing``: the file that its qcow2 needs beside it."""

    disk: VmDisk
    where: Mapped
    name: str
    backing: str = ""


def vm_of(point: Point, name: str) -> VirtualMachine:
    """The VM ``name`` of the point. Raises NotFoundError, which names those there are."""
    for vm in point.body.vms:
        if vm.name == name:
            return vm
    known = ", ".join(vm.name for vm in point.body.vms) or "none"
    raise NotFoundError(f"{point.header.host} has no VM '{name}' in this point.", hint=f"It has: {known}.")


def find_disks(view: HostView, vm: VirtualMachine, only: str = "") -> list[FoundDisk]:
    """Where the disks of ``vm`` lie (or the one at ``only``, such as ``vda``): as the point says it, else by walking
    the host's volumes and filesystems. Raises NotFoundError, UsageError, IntegrityError."""
    wanted = [disk for disk in vm.disks if disk.target == only or not only]
    if not wanted:
        known = ", ".join(disk.target for disk in vm.disks) or "none"
        raise NotFoundError(f"The VM '{vm.name}' has no disk '{only}'.", hint=f"It has: {known}.")
    return [_find(view, vm, disk) for disk in wanted]


def _find(view: HostView, vm: VirtualMachine, disk: VmDisk) -> FoundDisk:
    if disk.occupies is None and not disk.on:
        where = f"at {disk.source}, " if disk.source else ""
        raise UsageError(
            f"Disk {disk.target} of '{vm.name}' lies {where}on none of the disks that were captured.",
            hint="--disk takes the others one by one.",
        )
    known = view.occupied(disk.occupies) if disk.occupies is not None else None
    if disk.source.startswith("/dev/"):
        return FoundDisk(disk, known or view.volume(disk.on), f"{vm.name}-{disk.target}.{disk.format}")
    where_it_lies = known or view.file(disk.source)
    backing = _backing(view, where_it_lies) if disk.format == "qcow2" else ""
    suffix = PurePosixPath(disk.source).suffix or f".{disk.format}"
    return FoundDisk(disk, where_it_lies, f"{vm.name}-{disk.target}{suffix}", backing)


def _backing(view: HostView, mapped: Mapped) -> str:
    head = view.read(mapped, 0, 32)
    if head[:4] != _QCOW2:
        return ""
    place, length = int.from_bytes(head[8:16], "big"), int.from_bytes(head[16:20], "big")
    return view.read(mapped, place, min(length, 1023)).decode("utf-8", "replace") if place else ""
