"""A disk with an MBR becomes one with a GPT: an MBR reaches only 2 TiB of it. Pure.

The partitions keep their numbers (``/dev/sda5`` stays the fifth, though nothing is around it any more) and order;
their GUIDs tell what they were called before (``recovery.machine.partuuid``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from recovery.format.point import Point, PointDisk
from recovery.layout import Landing, Partition, PartitionTable
from recovery.machine.bootroom import BIOS_BOOT_LEAST, BIOS_BOOT_SIZE, BIOS_BOOT_TYPE, EXTENDED_TYPES
from recovery.machine.model import Disk, Machine
from recovery.machine.partuuid import gpt_guid
from recovery.plan.landing import NoRoom, land
from recovery.plan.model import Choices, Problem
from recovery.units import MIB, TIB, format_size

#: An MBR counts sectors in 32 bits.
_MBR_SECTORS = 2**32
_MOST = 128
_ENTRIES = 16384
_LINUX = "0fc63daf-8483-4772-8e79-3d69d8477de4"
_WINDOWS = "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7"
#: MBR type -> GPT type, as gdisk's typecodes have it; what is not here is Linux's own data.
_TYPES = {
    "82": "0657fd6d-a4ab-43c4-84e5-0933c84b4f4f",
    "8e": "e6d6d379-f507-44c2-a23c-238f2a3df928",
    "fd": "a19d880f-05fc-4d3b-a006-743f0f84911e",
    "ef": "c12a7328-f81f-11d2-ba4b-00a0c93ec93b",
    "ea": "bc13c2ff-59e6-4262-a352-b275fd6f7172",
    "27": "de94bba4-06d1-4d40-a16a-bfd50179d6ac",
    **dict.fromkeys(("01", "04", "06", "07", "0b", "0c", "0e"), _WINDOWS),
}


def applies(source: PointDisk, target: Disk, choices: Choices) -> bool:
    """Whether this disk is to get a GPT: asked for, an MBR, and a target of which an MBR would leave a part out."""
    return choices.to_gpt and target.bus != "file" and beyond_mbr(source, target) > 0


def beyond_mbr(source: PointDisk, target: Disk) -> int:
    """The bytes of the target that an MBR does not reach; 0 for other tables."""
    return max(0, target.size - _MBR_SECTORS * target.sector_size) if source.table.kind == "mbr" else 0


def land_as_gpt(source: PointDisk, target: Disk, grow: int | None = None) -> Landing | NoRoom | str:
    """As ``landing.land``, with a GPT, and a BIOS boot partition in it."""
    # A MiB less: it may be needed in front of the first partition.
    found = land(as_gpt(source), target.size - MIB, target.sector_size, grow)
    return with_bios_boot(found) if isinstance(found, Landing) else found


def as_gpt(source: PointDisk) -> PointDisk:
    """The disk as if it had been captured with a GPT: to be laid out by ``recovery.plan.landing``."""
    parts = [part for part in source.table.partitions if part.type.lower() not in EXTENDED_TYPES]
    table = PartitionTable(
        kind="gpt",
        uuid=gpt_guid(source.table.uuid, 0, _salt(source)),
        partitions=tuple(_converted(source, part) for part in sorted(parts, key=lambda part: part.start)),
    )
    return msgspec.structs.replace(source, table=table)


def with_bios_boot(landing: Landing) -> Landing:
    """The landing with a BIOS boot partition in front of the first partition, which GRUB needs on a GPT; all of it is
    moved up by a MiB where there is no room."""
    sector, parts = landing.sector_size, landing.table.partitions
    first = 2 * sector + _ENTRIES
    number = next((n for n in range(1, _MOST + 1) if all(part.number != n for part in parts)), 0)
    start = min((part.start for part in parts), default=MIB)
    if not number or any(part.type == BIOS_BOOT_TYPE for part in parts):
        return landing
    shift = MIB if start - first < BIOS_BOOT_LEAST else 0
    made = Partition(
        number=number, start=first, size=min(BIOS_BOOT_SIZE, start + shift - first) // sector * sector,
        type=BIOS_BOOT_TYPE, uuid=gpt_guid(landing.table.uuid[:8], number, landing.table.uuid),
        name="BIOS boot partition", flags=("bios_grub",),
    )  # fmt: skip
    moved = (msgspec.structs.replace(part, start=part.start + shift) for part in parts)
    placed = (msgspec.structs.replace(one, start=one.start + shift) for one in landing.placements)
    table = msgspec.structs.replace(landing.table, partitions=(made, *moved))
    return msgspec.structs.replace(landing, table=table, placements=tuple(placed))


def _converted(source: PointDisk, part: Partition) -> Partition:
    active = ("legacy_boot",) if "boot" in part.flags else ()
    kept = tuple(flag for flag in part.flags if flag != "boot")
    return msgspec.structs.replace(
        part,
        type=_TYPES.get(part.type.lower(), _LINUX),
        uuid=gpt_guid(source.table.uuid, part.number, _salt(source)),
        flags=(*kept, *active),
    )


def _salt(source: PointDisk) -> str:
    return f"{source.name} {source.root}"


def check_to_gpt(
    point: Point, pairs: tuple[tuple[PointDisk, Disk], ...], machine: Machine, choices: Choices,
    landings: Mapping[str, Landing],
) -> Iterator[Problem]:  # fmt: skip
    """What an MBR leaves out, what is done about it, or why that cannot be."""
    for source, target in pairs:
        left = beyond_mbr(source, target) if target.bus != "file" else 0
        if not left:
            continue
        if not choices.to_gpt:
            yield Problem(
                severity="info",
                code="mbr-limit",
                what=f"{format_size(left)} of {target.path} stay unused: the host's partition table (MBR) reaches "
                f"only {format_size(_MBR_SECTORS * target.sector_size)}.",
                todo="It can be converted to a GPT (--to-gpt).",
            )
        elif why := _why_not(point, source, machine, choices, landings):
            yield Problem(
                severity="error",
                code="gpt-refused",
                what=f"{source.name} cannot get a GPT on {target.path}.",
                why=why,
                todo=f"Without --to-gpt it keeps its MBR, and {format_size(left)} of the disk stay unused.",
            )
        else:
            yield _converts(source, target, machine, landings[source.name])


def _converts(source: PointDisk, target: Disk, machine: Machine, landing: Landing) -> Problem:
    logical = [str(part.number) for part in source.table.partitions if part.number > 4]
    boot = next((part for part in landing.table.partitions if part.type == BIOS_BOOT_TYPE), None)
    words = [f"The {len(landing.placements)} partitions keep their numbers and order and get new PARTUUIDs, which "
             "replace the old ones in fstab, crypttab and kernel command lines."]  # fmt: skip
    words += [f"No extended partition is around {', '.join(logical)} any more."] if logical else []
    if boot is not None:
        words.append(f"A BIOS boot partition ({boot.number}, {format_size(boot.size)}) is made in front, for GRUB.")
    if machine.firmware == "bios" and landing.sector_size == 512:
        words.append(f"Some BIOSes read only the first {format_size(2 * TIB)}: /boot should end before.")
    return Problem(
        severity="warning",
        code="gpt-converted",
        what=f"{source.name} had an MBR and gets a GPT on {target.path}.",
        why=" ".join(words),
        todo="Go on if that is meant. Without --to-gpt the MBR stays, which reaches a part of the disk only.",
    )


def _why_not(
    point: Point, source: PointDisk, machine: Machine, choices: Choices, landings: Mapping[str, Landing]
) -> str:
    facts = point.body.system
    boots = any("boot" in part.flags for part in source.table.partitions)
    if not choices.adapt:
        return "Its boot loader has to be installed anew, which is a part of making the host start here."
    if any(part.content.kind == "ntfs" for part in source.table.partitions):
        return "There is NTFS on it, and Windows does not start by BIOS from a GPT."
    if boots and not facts.os_id:
        return "No Linux system was found on the host, so nobody knows what starts from it."
    if machine.firmware != "uefi" and facts.bootloader not in ("", "grub"):
        return f"The host starts by {facts.bootloader}, which is not installed anew here."
    if point.header.journal(source.name) is not None:
        return "Its table can be written anew for points of chunks only, and this one has journals."
    if any(part.size > 0 and part.number > _MOST for part in source.table.partitions):
        return f"It has more than {_MOST} partitions."
    return "" if source.name in landings else "Its partitions cannot be laid out anew: they overlap, or nothing fits."
