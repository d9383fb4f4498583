"""What is lost when a disk is overwritten, in sentences. Pure."""

from __future__ import annotations

from recovery.layout import Content, Partition, VolumeGroup
from recovery.machine.model import Disk, Machine
from recovery.units import format_count, format_size

_KINDS = {
    "LVM2_member": "LVM physical volume",
    "linux_raid_member": "member of a RAID array",
    "crypto_LUKS": "encrypted volume",
    "swap": "swap space",
    "vfat": "FAT",
    "iso9660": "CD image",
}
_TYPES = {
    "21686148-6449-6e6f-744e-656564454649": "BIOS boot partition",
    "c12a7328-f81f-11d2-ba4b-00a0c93ec93b": "EFI system partition",
}


def describe_content(content: Content) -> str:
    """``ext4 'root'``; ``nothing recognised`` for empty content."""
    if not content.kind:
        return "nothing recognised"
    name = _KINDS.get(content.kind, content.kind)
    return f"{name} '{content.label}'" if content.label else name


def describe_partition(partition: Partition) -> str:
    """``ext4 'root' 20.0 GiB``."""
    purpose = _TYPES.get(partition.type.lower(), "")
    if purpose and partition.content.kind:
        purpose = f"{purpose} ({describe_content(partition.content)})"
    return f"{purpose or describe_content(partition.content)} {format_size(partition.size)}"


def describe_disk(disk: Disk) -> str:
    """What lies on a disk, in one line."""
    if disk.blank:
        return "nothing recognised on it"
    if disk.table.kind == "none":
        return f"{describe_content(disk.content)} on the whole disk"
    partitions = disk.table.partitions
    count = f"{len(partitions)} partition{'' if len(partitions) == 1 else 's'}"
    parts = ", ".join(describe_partition(p) for p in partitions)
    return f"{disk.table.kind.upper()} with {count}{': ' + parts if parts else ''}"


def _describe_group(group: VolumeGroup, disk: Disk) -> str:
    volumes = ", ".join(
        f"{volume.name} {format_size(volume.size)}"
        + (f" ({describe_content(volume.content)})" if volume.content.kind else "")
        for volume in group.volumes
    )
    mine = {disk.content.uuid, *(p.content.uuid for p in disk.table.partitions)}
    others = len([uuid for uuid in group.pv_uuids if uuid not in mine])
    spread = f" It also lies on {format_count(others, 'other physical volume')}, useless without it." if others else ""
    return f"LVM volume group {group.name}{' with ' + volumes if volumes else ' without volumes'}.{spread}"


def losses(disk: Disk, machine: Machine) -> tuple[str, ...]:
    """Every loss of overwriting ``disk``, most telling first; empty for a disk on which nothing is recognised."""
    if disk.blank:
        return ()
    found = [f"The system {name}." for name in disk.systems]
    if disk.bus == "file":
        found.append(f"The file {disk.path} as it is now: {describe_disk(disk)}.")
    else:
        found.append(describe_disk(disk) + ".")
    groups = {group.name: group for group in machine.volume_groups}
    for name in disk.volume_groups:
        found.append(_describe_group(groups[name], disk) if name in groups else f"LVM volume group {name}.")
    return tuple(found)
