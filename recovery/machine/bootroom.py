"""Pure: where on a host's disks the partition is, or can be made, that another firmware mode starts from.

UEFI starts files on an EFI system partition (ESP). A BIOS starts a boot sector, and GRUB keeps the rest of itself in
the gap behind an MBR, or on a GPT in a partition of the type *BIOS boot*. The plan asks this before the first write,
and the adaptation asks again of the table that it finds, so that both come to the same place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from recovery.format.point import Point
from recovery.layout import Partition, PartitionTable
from recovery.units import MIB, format_size

Kind = Literal["esp", "bios_grub"]

#: GPT type, MBR type of an EFI system partition.
ESP_TYPES = ("c12a7328-f81f-11d2-ba4b-00a0c93ec93b", "ef")
#: GPT type of the partition that GRUB's core image lies in.
BIOS_BOOT_TYPE = "21686148-6449-6e6f-744e-656564454649"
EXTENDED_TYPES = ("05", "0f", "85", "5", "f")

#: An ESP that is made: room for several kernels, should the host ever move to systemd-boot.
ESP_SIZE = 512 * MIB
#: A BIOS boot partition is at most this large. GRUB's core with LVM, RAID and LUKS takes about 150 KiB.
BIOS_BOOT_SIZE = MIB
BIOS_BOOT_LEAST = 256 * 1024
#: FAT32 has at least 65525 clusters of at least a sector: 32 MiB, on sectors of 4096 bytes 256 MiB; plus its tables.
_FAT32_CLUSTERS = 65525
#: A swap partition that gives room keeps at least this much.
SWAP_LEAST = 64 * MIB
#: An MBR counts sectors in 32 bits and has four entries.
_MBR_SECTORS = 2**32
_PRIMARIES = range(1, 5)


@dataclass(frozen=True)
class Shortened:
    """A swap partition (or the extended one around it) that ends earlier. Bytes."""

    number: int
    start: int
    size: int
    swap: bool = True


@dataclass(frozen=True)
class BootPartition:
    """A partition that is to be made on the point's disk ``disk``. Bytes. ``where`` says in words where it comes to
    lie; ``shortened`` what gives it room, the outermost partition last."""

    disk: str
    kind: Kind
    number: int
    start: int
    size: int
    where: str
    shortened: tuple[Shortened, ...] = ()

    @property
    def name(self) -> str:
        """What a person calls it."""
        return "EFI system partition" if self.kind == "esp" else "BIOS boot partition"

    @property
    def text(self) -> str:
        """``an EFI system partition of 512 MiB at the end of the disk (partition 3)``."""
        article = "an" if self.kind == "esp" else "a"
        return f"{article} {self.name} of {format_size(self.size)} {self.where} (partition {self.number})"


def existing_esp(tables: Mapping[str, PartitionTable]) -> tuple[str, Partition] | None:
    """The disk and the ESP with a FAT that are there already."""
    for disk, table in tables.items():
        for partition in table.partitions:
            if partition.type.lower() in ESP_TYPES and partition.content.kind == "vfat":
                return disk, partition
    return None


def bios_can_start(table: PartitionTable) -> bool:
    """Whether GRUB for BIOS has room on a disk with this table as it is."""
    if table.kind == "gpt":
        return any(p.type.lower() == BIOS_BOOT_TYPE and p.size >= BIOS_BOOT_LEAST for p in table.partitions)
    first = min((p.start for p in table.partitions), default=0)
    return table.kind == "mbr" and first >= BIOS_BOOT_LEAST


def boot_disk(point: Point, names: Sequence[str]) -> str:
    """The one of the disks ``names`` that holds /boot, else the root, else what looks most like it; "" of none.

    A BIOS reads boot loader and kernel from the disk that it starts, so both should be on one.
    """
    facts = point.body.system
    for where in filter(None, (facts.boot, facts.root)):
        if "/" not in where:
            if (name := where.partition(":")[0]) in names:
                return name
            continue
        group = next((g for g in point.body.volume_groups if g.name == where.partition("/")[0]), None)
        for disk in point.body.disks:
            contents = [disk.content, *(p.content for p in disk.table.partitions)]
            if group and disk.name in names and any(c.uuid and c.uuid in group.pv_uuids for c in contents):
                return disk.name
    tables = {disk.name: disk.table for disk in point.body.disks if disk.name in names}
    marked = (n for n, t in tables.items() if any("boot" in p.flags or _firmware(p) for p in t.partitions))
    return next(marked, next((n for n, t in tables.items() if t.partitions), next(iter(names), "")))


def _firmware(partition: Partition) -> bool:
    return partition.type.lower() in (*ESP_TYPES, BIOS_BOOT_TYPE)


def least_esp(sector: int) -> int:
    """The smallest ESP that is made on sectors of this size: a FAT32, in whole MiB."""
    return -(-(_FAT32_CLUSTERS * sector + 2 * MIB) // MIB) * MIB


def place(
    disk: str, table: PartitionTable, size: int, sector: int, kind: Kind, *, use_swap: bool = False
) -> BootPartition | None:
    """Where on a disk of ``size`` bytes the partition can be made: nothing moves, only swap may be shortened, and that
    only with ``use_swap``. None when there is no room."""
    number = _free_number(table)
    if table.kind == "none" or number is None or (kind == "bios_grub" and table.kind != "gpt"):
        return None
    gaps = list(_gaps(table, size, sector, MIB if kind == "esp" else sector))
    if kind == "bios_grub":
        fitting = [gap for gap in gaps if gap.size >= BIOS_BOOT_LEAST]
        gap = next(iter(fitting), None)
        if gap:
            return _in_gap(disk, kind, number, gap, min(gap.size, BIOS_BOOT_SIZE))
        return _from_swap(disk, table, kind, number, sector, MIB) if use_swap else None
    least = least_esp(sector)
    whole = [gap for gap in gaps if gap.size >= ESP_SIZE]
    gap = whole[0] if whole else max((g for g in gaps if g.size >= least), key=lambda g: g.size, default=None)
    if gap:
        return _in_gap(disk, kind, number, gap, min(gap.size, ESP_SIZE))
    return _from_swap(disk, table, kind, number, sector, least) if use_swap else None


@dataclass(frozen=True)
class _Gap:
    start: int
    size: int
    where: str
    last: bool


def _in_gap(disk: str, kind: Kind, number: int, gap: _Gap, size: int) -> BootPartition:
    # At the end of the disk it is put last, so that the partition in front can grow up to it.
    start = gap.start + gap.size - size if gap.last and kind == "esp" else gap.start
    return BootPartition(disk, kind, number, start, size, gap.where)


def _gaps(table: PartitionTable, size: int, sector: int, align: int) -> Iterator[_Gap]:
    """Unused room, whole ``align`` units, in the order of the disk."""
    if table.kind == "gpt":
        entries = 128 * 128 // sector
        first, end = (2 + entries) * sector, size - (1 + entries) * sector
    else:
        first, end = MIB, min(size, _MBR_SECTORS * sector)
    before = ""
    for partition in sorted(_outer(table), key=lambda p: p.start):
        where = f"between partitions {before} and {partition.number}" if before else "in front of the first partition"
        yield from _gap(first, partition.start, align, where, last=False)
        first, before = max(first, partition.start + partition.size), str(partition.number)
    yield from _gap(first, end, MIB if end - first >= 2 * MIB else align, "at the end of the disk", last=True)


def _gap(start: int, end: int, align: int, where: str, *, last: bool) -> Iterator[_Gap]:
    start, end = -(-start // align) * align, end // align * align
    if end > start:
        yield _Gap(start, end - start, where, last)


def _outer(table: PartitionTable) -> list[Partition]:
    """The partitions that are in no other one."""
    if table.kind != "mbr":
        return list(table.partitions)
    return [p for p in table.partitions if p.number in _PRIMARIES]


def _free_number(table: PartitionTable) -> int | None:
    used = {p.number for p in table.partitions}
    numbers = _PRIMARIES if table.kind == "mbr" else range(1, 129)
    return next((number for number in numbers if number not in used), None)


def _from_swap(
    disk: str, table: PartitionTable, kind: Kind, number: int, sector: int, least: int
) -> BootPartition | None:
    """The end of a swap partition. A logical one must be the last of its container, which ends earlier then, too."""
    for swap in table.partitions:
        if swap.content.kind != "swap":
            continue
        end = (swap.start + swap.size) // MIB * MIB
        size = min(ESP_SIZE if kind == "esp" else MIB, (swap.size // 2) // MIB * MIB)
        start = end - size
        if size < least or start - swap.start < SWAP_LEAST:
            continue
        cut = [Shortened(swap.number, swap.start, start - swap.start)]
        if table.kind == "mbr" and swap.number not in _PRIMARIES:
            box = next((p for p in table.partitions if p.type.lower() in EXTENDED_TYPES and _holds(p, swap)), None)
            if box is None or any(p.start > swap.start and p.number > 4 for p in table.partitions):
                continue
            cut.append(Shortened(box.number, box.start, start - box.start, swap=False))
        where = f"from the end of swap partition {swap.number}"
        return BootPartition(disk, kind, number, start, size, where, tuple(cut))
    return None


def _holds(outer: Partition, inner: Partition) -> bool:
    return outer.start <= inner.start and outer.start + outer.size >= inner.start + inner.size
