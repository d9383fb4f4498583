"""A disk as a picture: its partitions as boxes of proportional width with name and size. Pure.

::

    ┌1──┬2───────────────────────────┬3──────────────────────┬────────┐
    │EFI│ext4 'root' 20.0 GiB        │LVM vg0 80.0 GiB grows │free    │
    └───┴────────────────────────────┴───────────────────────┴────────┘

Everything that the picture says stands in its text; colour only repeats it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from recovery.format.point import Point, PointDisk
from recovery.layout import Content, PartitionTable, VolumeGroup
from recovery.machine.model import Disk, Machine
from recovery.units import MIB, format_size

#: Room that is not worth a box of its own: alignment before the first partition, the backup GPT behind the last.
_NEGLIGIBLE = 8 * MIB
#: The number of a partition, and "free", fit.
_NARROWEST = 4
FREE = "free"
_KINDS = {
    "LVM2_member": "LVM", "linux_raid_member": "RAID", "crypto_LUKS": "LUKS", "vfat": "FAT", "zfs_member": "ZFS",
    "iso9660": "CD image",
}  # fmt: skip
_TYPES = {
    "21686148-6449-6e6f-744e-656564454649": "BIOS boot",
    "c12a7328-f81f-11d2-ba4b-00a0c93ec93b": "EFI",
    "e3c9e316-0b5c-4db8-817d-f92df00215ae": "Windows reserved",
    "de94bba4-06d1-4d40-a16a-bfd50179d6ac": "Windows recovery",
    "ef": "EFI",
    "5": "extended",
    "f": "extended",
    "05": "extended",
    "0f": "extended",
}


@dataclass(frozen=True)
class Segment:
    """A part of a disk, bytes. ``number`` of the partition; empty for room that none uses and for a whole disk."""

    size: int
    name: str
    number: str = ""
    remark: str = ""


def content_name(content: Content, groups: Sequence[VolumeGroup] = ()) -> str:
    """``ext4 'root'``, ``LVM vg0``; empty when nothing was recognised."""
    if not content.kind:
        return ""
    kind = _KINDS.get(content.kind, content.kind)
    group = next((group.name for group in groups if content.uuid and content.uuid in group.pv_uuids), "")
    label = f" '{content.label}'" if content.label else ""
    return f"{kind} {group}" if group else f"{kind}{label}"


def segments(
    table: PartitionTable, content: Content, size: int, groups: Sequence[VolumeGroup] = (), *, grow: bool = False
) -> list[Segment]:
    """What lies on a disk of ``size`` bytes, in its order, with the room between. ``grow``: the last partition takes
    what is free behind it."""
    if table.kind == "none":
        name = content_name(content, groups)
        return [Segment(size, name or "nothing recognised" if content.kind else "blank")]
    found: list[Segment] = []
    end = 0
    # Logical partitions lie in the extended one, which says nothing that they do not.
    parts = [part for part in table.partitions if _TYPES.get(part.type.lower()) != "extended"]
    for index, part in enumerate(parts):
        if part.start - end > _NEGLIGIBLE:
            found.append(Segment(part.start - end, FREE))
        purpose = _TYPES.get(part.type.lower(), "")
        name = purpose or content_name(part.content, groups) or part.name or "not recognised"
        room = size - (part.start + part.size)
        grows = grow and index == len(parts) - 1 and room > _NEGLIGIBLE
        found.append(Segment(part.size + (room if grows else 0), name, str(part.number), "grows" if grows else ""))
        end = size if grows else part.start + part.size
    if size - end > _NEGLIGIBLE:
        found.append(Segment(size - end, FREE))
    return found


def widths(sizes: Sequence[int], cells: int) -> list[int]:
    """Cells for each size, ``cells`` together: proportional, none narrower than can be seen."""
    least = max(1, min(_NARROWEST, cells // max(1, len(sizes))))
    whole = sum(sizes) or 1
    spare = cells - least * len(sizes)
    exact = [spare * size / whole for size in sizes]
    found = [int(value) for value in exact]
    # What rounding left over goes to those that lost most by it.
    order = sorted(range(len(sizes)), key=lambda i: exact[i] - found[i], reverse=True)
    for index in order[: spare - sum(found)]:
        found[index] += 1
    return [least + value for value in found]


def _inside(segment: Segment, width: int) -> str:
    if segment.name == FREE:
        return (f"{FREE} {format_size(segment.size)}" if width > 13 else FREE)[:width].ljust(width)
    size = format_size(segment.size)
    for words in (
        (segment.name, size, segment.remark),
        (segment.name, size),
        (segment.name.split(" ")[0], size),
        (segment.name,),
        (segment.name.split(" ")[0],),
    ):
        text = " ".join(word for word in words if word)
        if len(text) <= width:
            return text.ljust(width)
    return segment.name[:width].ljust(width)


def draw(found: Sequence[Segment], width: int) -> list[str]:
    """Three lines of ``width`` cells. More parts than have room are counted in the last one."""
    most = max(1, (width - 1) // 4)
    shown = list(found)
    if len(shown) > most:
        rest = shown[most - 1 :]
        shown = [*shown[: most - 1], Segment(sum(part.size for part in rest), f"+{len(rest)}")]
    cells = widths([part.size for part in shown], width - 1 - len(shown))
    pairs = list(zip(shown, cells, strict=True))
    top = "┬".join(part.number[:room].ljust(room, "─") for part, room in pairs)
    middle = "│".join(_inside(part, room) for part, room in pairs)
    bottom = "┴".join("─" * room for _, room in pairs)
    return [f"┌{top}┐", f"│{middle}│", f"└{bottom}┘"]


def legend(found: Sequence[Segment], width: int) -> str:
    """Names and sizes of the partitions whose box is too narrow for them; empty when all have room."""
    cells = widths([part.size for part in found], width - 1 - len(found)) if len(found) < width // 4 else []
    hidden = [
        part
        for index, part in enumerate(found)
        if part.number and (not cells or len(f"{part.name} {format_size(part.size)}") > cells[index])
    ]
    return ", ".join(f"{part.number} {part.name} {format_size(part.size)}" for part in hidden)


def labelled(label: str, found: Sequence[Segment], width: int) -> list[str]:
    """The picture with ``label`` (at most 6 characters) beside it, and below what did not fit in."""
    indent = 7
    lines = draw(found, width - indent)
    small = legend(found, width - indent)
    heads = ("", label, "")
    return [
        *(f"{head:<{indent}}{line}" for head, line in zip(heads, lines, strict=True)),
        *([f"{'':{indent}}{small}"] if small else []),
    ]


def now_on(disk: Disk, machine: Machine) -> list[Segment]:
    """What lies on a disk of this machine."""
    return segments(disk.table, disk.content, disk.size, machine.volume_groups)


def after_on(source: PointDisk, point: Point, target: Disk, *, grow: bool) -> list[Segment]:
    """What will lie on ``target`` once ``source`` was restored to it."""
    if source.table.kind == "none":
        whole = [Segment(source.size, content_name(source.content, point.body.volume_groups) or "not recognised")]
        return whole + ([Segment(target.size - source.size, FREE)] if target.size - source.size > _NEGLIGIBLE else [])
    size = max(target.size, source.size)
    return segments(source.table, source.content, size, point.body.volume_groups, grow=grow and target.bus != "file")
