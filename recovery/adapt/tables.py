"""Pure: a partition table as sfdisk prints it, whether it is the point's, and how far its last partition may grow."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass

from recovery.errors import IntegrityError
from recovery.layout import Partition, PartitionTable
from recovery.machine.bootroom import BIOS_BOOT_TYPE, ESP_TYPES
from recovery.units import MIB
from recovery.windows.partitions import KEPT

#: Contents that can be grown here. Everything else stays as it is, and the report says so.
GROWABLE = ("ext2", "ext3", "ext4", "xfs", "btrfs", "ntfs", "LVM2_member")

#: MBR types of extended partitions.
_EXTENDED = ("5", "f", "85", "05", "0f")

_FIRMWARE = (*ESP_TYPES, BIOS_BOOT_TYPE)

#: An MBR counts sectors in 32 bits.
_MBR_SECTORS = 2**32


@dataclass(frozen=True)
class LivePartition:
    """A partition as it is on the disk now. Bytes. ``type`` as sfdisk prints it."""

    number: int
    start: int
    size: int
    type: str
    uuid: str = ""

    @property
    def end(self) -> int:
        """The first byte behind it."""
        return self.start + self.size


@dataclass(frozen=True)
class LiveTable:
    """The table on the disk now. ``last_usable`` is the first byte that partitions cannot use (GPT)."""

    kind: str
    sector: int
    partitions: tuple[LivePartition, ...]
    last_usable: int = 0

    @property
    def last(self) -> LivePartition | None:
        """The partition that ends last and is no container, nor one that only the firmware reads: those never grow,
        and one that was made at the end of the disk must not keep the one in front of it from growing up to it. Nor
        those that Windows made for itself alone."""
        real = [p for p in self.partitions if not self.is_extended(p) and p.type.lower() not in (*_FIRMWARE, *KEPT)]
        return max(real, key=lambda p: p.end, default=None)

    def is_extended(self, partition: LivePartition) -> bool:
        """An MBR's container of logical partitions."""
        return self.kind == "mbr" and partition.type.lower() in _EXTENDED


@dataclass(frozen=True)
class Growth:
    """Partition ``number`` starts at ``start`` and gets ``size`` bytes (it had ``old``)."""

    number: int
    start: int
    old: int
    size: int


def parse_sfdisk(text: str) -> LiveTable:
    """The table of ``sfdisk --json``. Raises IntegrityError when it is none."""
    try:
        table = json.loads(text)["partitiontable"]
        sector = int(table.get("sectorsize", 512))
        partitions = tuple(
            LivePartition(
                number=_number(entry["node"]),
                start=int(entry["start"]) * sector,
                size=int(entry["size"]) * sector,
                type=str(entry.get("type", "")),
                uuid=str(entry.get("uuid", "")).lower(),
            )
            for entry in table.get("partitions", ())
        )
        kind = {"gpt": "gpt", "dos": "mbr"}.get(table["label"], "none")
    except (KeyError, ValueError, TypeError) as error:
        raise IntegrityError(
            f"The partition table on the restored disk cannot be read: {error}.", hint="Restore the disk again."
        ) from error
    return LiveTable(kind, sector, partitions, (int(table.get("lastlba", -1)) + 1) * sector)


def _number(node: str) -> int:
    digits = ""
    while node and node[-1].isdigit():
        digits, node = node[-1] + digits, node[:-1]
    return int(digits)


def differences(live: LiveTable, point: PartitionTable) -> list[str]:
    """How the table on the disk differs from the captured one, in sentences. A partition that has grown is equal, and
    swap that gave room for a boot partition."""
    if live.kind != point.kind:
        return [f"the table is {live.kind}, the captured one {point.kind}"]
    found = {p.number: p for p in live.partitions}
    wrong = []
    for old in point.partitions:
        new = found.get(old.number)
        if new is None:
            wrong.append(f"partition {old.number} is missing")
        elif new.start != old.start or (new.size < old.size and not _may_be_shorter(old)):
            wrong.append(f"partition {old.number} is not where it was")
        elif live.kind == "gpt" and old.uuid and new.uuid and new.uuid != old.uuid.lower():
            wrong.append(f"partition {old.number} has another PARTUUID")
    return wrong


def _may_be_shorter(partition: Partition) -> bool:
    """An earlier run may have taken room for a boot partition from swap, and from the container that it was in."""
    return partition.content.kind == "swap" or partition.type.lower() in _EXTENDED


def backup_gpt_lba(header: bytes) -> int | None:
    """Where the primary GPT header (the sector at LBA 1) says that its backup is; None when it is no GPT header."""
    if len(header) < 92 or header[:8] != b"EFI PART":
        return None
    return int(struct.unpack_from("<Q", header, 32)[0])


def growth(live: LiveTable, disk_size: int) -> list[Growth]:
    """How to give the last partition the room behind it: the partitions to resize, a container first.

    Starts never move, nothing shrinks, ends are aligned to 1 MiB; less than 1 MiB of room is none. A partition
    behind which another one starts is never touched, unless that is one of the firmware: up to it there is room.
    """
    last = live.last
    if last is None:
        return []
    limit = live.last_usable if live.kind == "gpt" else min(disk_size, _MBR_SECTORS * live.sector)
    behind = [p for p in live.partitions if p.start >= last.end]
    if any(p.type.lower() not in _FIRMWARE for p in behind):  # an empty container
        return []
    limit = min([limit, *(p.start for p in behind)])
    end = limit // MIB * MIB
    if end - last.end < MIB:
        return []
    containers = [p for p in live.partitions if live.is_extended(p) and p.start <= last.start and p.end >= last.end]
    chain = [*containers, last]
    return [Growth(p.number, p.start, p.size, end - p.start) for p in chain if end > p.end]
