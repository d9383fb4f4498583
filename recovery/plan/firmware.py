"""The firmware mode of the host against this machine's: what a conversion makes where, or why it cannot be. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from recovery.format.point import Point, PointDisk
from recovery.layout import WINDOWS, Firmware, PartitionTable
from recovery.machine import bootroom
from recovery.machine.bootroom import BootPartition
from recovery.machine.model import Disk, Machine
from recovery.plan.growth import landings
from recovery.plan.model import Choices, Problem
from recovery.units import format_size
from recovery.windows.partitions import looks_like_windows

Pairs = tuple[tuple[PointDisk, Disk], ...]

_NAMES = {"bios": "legacy BIOS", "uefi": "UEFI"}

#: Their GRUB menus are lists of boot entries (BLS) or lie in /boot/grub2, which only their own GRUB reads; and their
#: signed loaders come from packages that a host of the other firmware mode does not have.
_OWN_GRUB_ONLY = (
    "rhel", "centos", "rocky", "almalinux", "ol", "fedora", "amzn", "opensuse-leap", "opensuse-tumbleweed", "sles",
)  # fmt: skip


@dataclass(frozen=True)
class Conversion:
    """How the host is made to start in the other firmware mode. ``make`` is the partition to be made, on ``target``;
    None when the one on ``target`` (``found``) serves. ``refused`` and ``todo``: why it cannot be, and what helps."""

    make: BootPartition | None = None
    target: Disk | None = None
    found: str = ""
    refused: str = ""
    todo: str = ""

    @property
    def room(self) -> str:
        """What is made where, or what is there already, in a sentence."""
        path = self.target.path if self.target else ""
        if self.make is None:
            return f"{self.found} of {path} is used." if self.found else ""
        lost = " and ".join(
            f"partition {cut.number} is shortened to {format_size(cut.size)}" for cut in self.make.shortened
        )
        return f"On {path}, {self.make.text} is made{f'; {lost}' if lost else ''}."


def conversion(point: Point, pairs: Pairs, machine: Machine, choices: Choices) -> Conversion | None:
    """The conversion that this machine needs; None when it needs none, or a mode is not known."""
    was, now = point.body.firmware, machine.firmware
    if "unknown" in (was, now) or was == now or not pairs:
        return None
    if _is_windows(point):
        return _windows(now)
    refusal = _no_loader(point)
    if refusal:
        return Conversion(refused=refusal)
    found = _to_uefi(point, pairs, choices) if now == "uefi" else _to_bios(point, pairs, choices)
    if found.make is not None and landings(point, pairs, choices):
        # Where the partition goes was worked out on the table as it was captured, which will not be there.
        return Conversion(
            refused="A disk that is laid out anew gets no partition for the other firmware mode.",
            todo="Choose disks of at least the captured size, with the same sectors; let the last partition grow, and "
            "keep the partition table.",
        )
    return found


def missing_boot(point: Point, pairs: Pairs, machine: Machine, choices: Choices) -> Conversion | None:
    """The same for a host that is repaired: nobody knows how it was started, so only what its disks lack is made."""
    if machine.firmware == "unknown" or not pairs or all(target.blank for _, target in pairs):
        return None
    if point.body.system.os_id == WINDOWS:
        tables = {source.name: source.table for source, _ in pairs}
        starts = any(table.kind == "mbr" for table in tables.values())
        starts = bool(bootroom.existing_esp(tables)) if machine.firmware == "uefi" else starts
        return None if starts else _windows(machine.firmware)
    to = _to_uefi if machine.firmware == "uefi" else _to_bios
    found = to(point, pairs, choices)
    # A BIOS may start it all the same: what is in the boot sector cannot be seen in a plan.
    return None if found.make is None and (found.found or machine.firmware == "bios") else found


def check_repaired(point: Point, pairs: Pairs, machine: Machine, choices: Choices) -> Iterator[Problem]:
    """What a repair makes for this machine's firmware, or why it cannot."""
    found = missing_boot(point, pairs, machine, choices)
    if found is None:
        return
    name = _NAMES[machine.firmware]
    if found.refused:
        yield Problem(
            severity="error",
            code="firmware-differs",
            what=f"This machine runs with {name}, and the host has nothing that {name} could start.",
            why=found.refused,
            todo="Start the medium in the other firmware mode, or restore the host to a larger disk.",
        )
        return
    yield Problem(
        severity="warning",
        code="firmware-converted",
        what=f"This machine runs with {name}, for which the host has no boot partition: it gets one.",
        why=f"{found.room} {LOADERS[machine.firmware]}",
        todo="Go on if that is meant. Else start the medium in the firmware mode that the host was started with.",
    )


def _is_windows(point: Point) -> bool:
    """Also where the capture could not look into its filesystems: no partition of ours belongs on its disk."""
    facts = point.body.system
    kinds = [part.content.kind for disk in point.body.disks for part in disk.table.partitions]
    return facts.os_id == WINDOWS or (not facts.os_id and looks_like_windows(kinds))


def _windows(now: Firmware) -> Conversion:
    todo = "Let Windows convert itself (Microsoft's mbr2gpt) before it is captured" if now == "uefi" else ""
    return Conversion(refused=f"The boot manager of Windows (BCD) is not made anew for {_NAMES[now]}.", todo=todo)


def _no_loader(point: Point) -> str:
    facts = point.body.system
    if facts.os_id in _OWN_GRUB_ONLY:
        return f"The menu of {facts.os_name or facts.os_id} works with its distribution's own GRUB only."
    if facts.bootloader not in ("", "grub"):
        other = "BIOS" if facts.bootloader == "systemd-boot" else "UEFI"
        return f"It starts by {facts.bootloader}, which has no edition for {other} here."
    return ""


def _to_uefi(point: Point, pairs: Pairs, choices: Choices) -> Conversion:
    tables = {source.name: source.table for source, _ in pairs}
    targets = {source.name: target for source, target in pairs}
    if esp := bootroom.existing_esp(tables):
        return Conversion(target=targets[esp[0]], found=f"The EFI system partition (number {esp[1].number})")
    first = bootroom.boot_disk(point, tuple(tables))
    order = [first, *(name for name in tables if name != first)]
    for use_swap in (False, True) if choices.use_swap else (False,):
        for name in order:
            if made := _place(name, tables[name], targets[name], "esp", use_swap=use_swap):
                return Conversion(make=made, target=targets[name])
    least = bootroom.least_esp(min(target.sector_size for target in targets.values()))
    why = (
        f"An EFI system partition needs {format_size(least)} in one piece (and a free entry of the table) on "
        f"{', '.join(target.path for target in targets.values())}, which is not there."
    )
    return Conversion(refused=why, todo=_more_room(order, tables, targets, choices, "esp"))


def _to_bios(point: Point, pairs: Pairs, choices: Choices) -> Conversion:
    tables = {source.name: source.table for source, _ in pairs}
    targets = {source.name: target for source, target in pairs}
    # A BIOS has one disk to start from, and GRUB must find its menu on it: no other disk will do.
    name = bootroom.boot_disk(point, tuple(tables))
    table, target = tables[name], targets[name]
    if bootroom.bios_can_start(table):
        found = "The BIOS boot partition" if table.kind == "gpt" else "The gap in front of the first partition"
        return Conversion(target=target, found=found)
    if made := _place(name, table, target, "bios_grub", use_swap=choices.use_swap):
        return Conversion(make=made, target=target)
    least = format_size(bootroom.BIOS_BOOT_LEAST)
    why = f"GRUB for BIOS needs {least} of unused room on {target.path}, which is not there."
    return Conversion(refused=why, todo=_more_room([name], tables, targets, choices, "bios_grub"))


def _place(
    name: str, table: PartitionTable, target: Disk, kind: bootroom.Kind, *, use_swap: bool
) -> BootPartition | None:
    return bootroom.place(name, table, target.size, target.sector_size, kind, use_swap=use_swap)


def _more_room(
    order: list[str],
    tables: dict[str, PartitionTable],
    targets: dict[str, Disk],
    choices: Choices,
    kind: bootroom.Kind,
) -> str:
    """What would give room, if anything here does."""
    if not choices.use_swap:
        for name in order:
            if made := _place(name, tables[name], targets[name], kind, use_swap=True):
                return f"Allow that {made.text[3:].strip()} is taken (--use-swap), or choose a larger target disk."
    return "Choose a larger target disk."


def check_firmware(point: Point, pairs: Pairs, machine: Machine, choices: Choices) -> Iterator[Problem]:
    """Does the host start in this machine's firmware mode, and what is done for it?"""
    was, now = point.body.firmware, machine.firmware
    if "unknown" in (was, now):
        yield Problem(
            severity="warning",
            code="firmware-unknown",
            what="Whether the host's firmware mode and this machine's are the same is not known.",
            why=f"The host was captured with firmware '{was}', this machine has '{now}'.",
            todo="If it does not start, try the other mode (UEFI or legacy BIOS) in the firmware setup.",
        )
        return
    found = conversion(point, pairs, machine, choices)
    if found is None:
        return
    differs = f"The host started with {_NAMES[was]}, this machine runs with {_NAMES[now]}"
    switch = f"switch this machine to {_NAMES[was]} in its firmware setup and start the medium again."
    if found.refused or not choices.adapt:
        why = found.refused or f"Without adaptation it keeps its boot loader for {_NAMES[was]}."
        other = (found.todo.rstrip(".") + ", or ") if found.todo else "" if choices.adapt else "Let it be adapted, or "
        yield Problem(
            severity="error",
            code="firmware-differs",
            what=f"{differs}.",
            why=why,
            todo=f"{other}{switch}" if other else switch[0].upper() + switch[1:],
        )
        return
    yield Problem(
        severity="warning",
        code="firmware-converted",
        what=f"{differs}: it is converted.",
        why=f"{found.room} {LOADERS[now]}",
        todo=f"Go on if that is meant. Else {switch}",
    )


#: What the step that installs the boot loader does for a machine of this firmware mode.
LOADERS = {
    "uefi": "GRUB for UEFI is installed there by the host's own packages, else shim and GRUB, signed, from this "
    "medium; with the fallback path, a boot entry of the firmware, and a line in fstab.",
    "bios": "GRUB for BIOS is installed there by the host's own packages, else from this medium.",
}
