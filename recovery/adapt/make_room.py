"""Step: a machine of the other firmware mode gets the partition that its firmware starts from. Nothing of the host
moves; where it goes was decided, and shown, by the plan (``recovery.machine.bootroom``)."""

from __future__ import annotations

from collections.abc import Mapping

from recovery.adapt.devices import partition_path, probe
from recovery.adapt.model import AdaptRequest, Job
from recovery.adapt.undo import file_name, remember
from recovery.commands import run
from recovery.errors import SpaceError
from recovery.layout import Firmware, Partition, PartitionTable
from recovery.machine.bootroom import (
    ESP_TYPES,
    BootPartition,
    Kind,
    Shortened,
    bios_can_start,
    boot_disk,
    existing_esp,
    place,
)
from recovery.machine.model import Disk
from recovery.machine.probe_disks import probe_table
from recovery.units import format_size

TITLE = "Make room for this firmware's boot loader"

#: sgdisk's codes and the names in the table.
_GPT = {"esp": ("ef00", "EFI system partition"), "bios_grub": ("ef02", "BIOS boot partition")}


def make_room(job: Job) -> str:
    """Make the ESP or the BIOS boot partition that is missing. Raises SpaceError, CommandError."""
    request = job.request
    tables = {name: probe_table(disk.path) for name, disk in request.targets.items()}
    kind = needed(request, tables)
    if kind is None:
        return "It is there."
    if kind == "esp" and (begun := _unformatted(request, tables)):
        disk, number = begun
        _format(job, disk, number)
        return "The EFI system partition of an earlier run was formatted."
    made = find_place(request, tables, kind)
    if made is None:
        if kind == "bios_grub":
            return "There is no room; what is in the boot sector has to do."
        raise SpaceError(
            "The restored disks have no EFI system partition, and no room for one.",
            hint="Start the medium in BIOS mode, use a larger disk, or allow a swap partition to be shortened "
            "(--use-swap).",
        )
    disk = request.targets[made.disk]
    remember(job, f"table-{file_name(disk.path)}.sfdisk", run(["sfdisk", "--dump", disk.path]).stdout.encode())
    for cut in reversed(made.shortened):  # the swap partition before the extended one around it
        _shorten(job, disk, cut)
    _create(disk, tables[made.disk], made)
    run(["partx", "--update", disk.path], check=False)
    run(["udevadm", "settle", "--timeout=30"], check=False)
    job.changed(f"On {disk.path}, {made.text} was made.")
    if kind == "esp":
        _format(job, disk, made.number)
    return made.text


def firmware_of(request: AdaptRequest) -> Firmware:
    """The firmware mode that the host has to start in."""
    return request.point.body.firmware if request.machine.firmware == "unknown" else request.machine.firmware


def needed(request: AdaptRequest, tables: Mapping[str, PartitionTable]) -> Kind | None:
    """The kind of boot partition that the machine's firmware needs and the disks have not. Pure.

    A host whose point was captured in the same mode has what it needs. Without a point only the disks can tell.
    """
    firmware = firmware_of(request)
    if request.point.id and request.point.body.firmware == firmware:
        return None
    if firmware == "uefi":
        return None if existing_esp(tables) else "esp"
    name = boot_disk(request.point, tuple(tables))
    return None if firmware == "unknown" or not name or bios_can_start(tables[name]) else "bios_grub"


def find_place(request: AdaptRequest, tables: Mapping[str, PartitionTable], kind: Kind) -> BootPartition | None:
    """Where it is made: as the plan decides it, on the tables that are there now. Pure."""
    first = boot_disk(request.point, tuple(tables))
    order = [first, *(name for name in tables if name != first)] if kind == "esp" else [first]
    for use_swap in (False, True) if request.use_swap else (False,):
        for name in order:
            disk = request.targets[name]
            if made := place(name, tables[name], disk.size, disk.sector_size, kind, use_swap=use_swap):
                return made
    return None


def _unformatted(request: AdaptRequest, tables: Mapping[str, PartitionTable]) -> tuple[Disk, int] | None:
    """An ESP that a run made which was cut off before it was formatted: the point does not know it, nothing is in
    it."""
    for name, table in tables.items():
        known = {p.number for p in request.point.disk(name).table.partitions} if request.point.id else set()
        for partition in table.partitions:
            if partition.type.lower() in ESP_TYPES and not partition.content.kind and partition.number not in known:
                return request.targets[name], partition.number
    return None


def _shorten(job: Job, disk: Disk, cut: Shortened) -> None:
    path = partition_path(disk.path, cut.number)
    facts = probe(path) if cut.swap else {}
    words = ["sfdisk", "--no-reread", "--no-tell-kernel", "--force", "--quiet", "--wipe", "never"]
    line = f"start={cut.start // disk.sector_size}, size={cut.size // disk.sector_size}\n"
    run([*words, "--wipe-partitions", "never", "-N", str(cut.number), disk.path], input=line.encode())
    if not cut.swap:
        return
    run(["partx", "--update", "--nr", str(cut.number), disk.path], check=False)
    run(["udevadm", "settle", "--timeout=30"], check=False)
    names = [*(["--uuid", facts["UUID"]] if facts.get("UUID") else [])]
    names += ["--label", facts["LABEL"]] if facts.get("LABEL") else []
    run(["mkswap", *names, path])  # its header says how long it is
    job.changed(f"Swap partition {path} was shortened to {format_size(cut.size)}; its UUID stays.")


def _create(disk: Disk, table: PartitionTable, made: BootPartition) -> None:
    first, count = made.start // disk.sector_size, made.size // disk.sector_size
    if table.kind == "gpt":
        code, name = _GPT[made.kind]
        # Its table lies at sector 2 anyway; saying so gives back the sectors that some partitioners declare unusable.
        words = ["--move-main-table=2"] if first * disk.sector_size < 2**20 else []
        words += ["--set-alignment=1", f"--new={made.number}:{first}:{first + count - 1}"]
        words += [f"--typecode={made.number}:{code}", f"--change-name={made.number}:{name}"]
        run(["sgdisk", *words, disk.path])
        return
    line = f"start={first}, size={count}, type=ef\n"
    words = ["sfdisk", "--no-reread", "--no-tell-kernel", "--force", "--quiet", "--wipe", "never"]
    run([*words, "--wipe-partitions", "never", "-N", str(made.number), disk.path], input=line.encode())


def _format(job: Job, disk: Disk, number: int) -> None:
    path = partition_path(disk.path, number)
    run(["mkfs.vfat", "-F", "32", "-n", "ESP", path])
    run(["udevadm", "settle", "--timeout=30"], check=False)
    job.changed(f"The EFI system partition {path} was formatted.")


def esp_partition(table: PartitionTable) -> Partition | None:
    """The ESP with a FAT of one disk, if it has one. Pure."""
    found = existing_esp({"": table})
    return found[1] if found else None
