"""The block devices that lie on the restored disks, and how a host's names for them (fstab, root=) are resolved.

Only restored disks are looked at: another disk of the machine may well carry the same UUIDs, labels or volume group
names - the old disk of the same host, for instance.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from recovery.commands import run
from recovery.errors import CommandError
from recovery.format.point import PointDisk
from recovery.machine.model import Disk
from recovery.machine.partuuid import was_called


@dataclass(frozen=True)
class Node:
    """A block device: a disk, a partition, an LV or an md array. ``disk`` is the point's disk name.

    ``kind`` is lsblk's TYPE (``disk``, ``part``, ``lvm``, ``raid1``, ``crypt`` ...), ``content`` is blkid's TYPE.
    """

    path: str
    kind: str
    size: int
    disk: str = ""
    number: int = 0
    content: str = ""
    uuid: str = ""
    label: str = ""
    part_uuid: str = ""
    part_label: str = ""
    parent: str = ""
    mounted: tuple[str, ...] = ()
    parents: tuple[str, ...] = ()
    """Every device that it lies on, where there are several: an array's members, a spanning volume's."""

    def lies_on(self, path: str) -> bool:
        """Whether this lies directly on the device ``path``."""
        return path == self.parent or path in self.parents

    @property
    def lv_names(self) -> tuple[str, ...]:
        """All the names under which LVM shows this LV; empty for other nodes."""
        if self.kind != "lvm":
            return ()
        names = split_mapper_name(self.path.removeprefix("/dev/mapper/"))
        return (self.path, f"/dev/{names[0]}/{names[1]}") if names else (self.path,)


def partition_path(disk: str, number: int) -> str:
    """``/dev/sda``, 2 -> ``/dev/sda2``; ``/dev/nvme0n1``, 2 -> ``/dev/nvme0n1p2``."""
    return f"{disk}{'p' if disk[-1].isdigit() else ''}{number}"


def split_mapper_name(name: str) -> tuple[str, str] | None:
    """``vg--a-lv`` -> (``vg-a``, ``lv``): LVM doubles the hyphens within names. None when it is no LV's name."""
    parts = re.split(r"(?<!-)-(?!-)", name)
    if len(parts) != 2:
        return None
    return parts[0].replace("--", "-"), parts[1].replace("--", "-")


#: What LVM calls the volumes that other volumes are made of (lvm2, lib/misc/lvm-string.c); nobody may name one so.
_PART_OF_VOLUME = re.compile(
    r"_(?:[tcv]data|[tc]meta|[rm]image|rmeta|imeta|mlog|[ciw]c?orig|cvol|pmspare)(?:_\d+)?(?:_\w*)?$"
)


def is_part_of_volume(path: str) -> bool:
    """Whether an LV's device is only a part of another one: a thin pool's data, a leg of a RAID volume. What blkid
    sees there (often the filesystem of the whole) lies elsewhere. Pure."""
    names = split_mapper_name(path.removeprefix("/dev/mapper/"))
    return names is None or bool(_PART_OF_VOLUME.search(names[1]))


def below(node: Node, nodes: Sequence[Node]) -> list[Node]:
    """Everything that ``node`` lies on, itself first, the nearest before the farther. Pure."""
    chain = [node]
    for upper in chain:
        chain += [n for n in nodes if upper.lies_on(n.path) and n not in chain]
    return chain


def scan(targets: Mapping[str, Disk]) -> tuple[Node, ...]:
    """Every block device on the target disks, parents before children. Raises CommandError."""
    nodes: dict[str, Node] = {}
    for name, disk in targets.items():
        done = run(
            ["lsblk", "--json", "--bytes", "--output", "PATH,TYPE,SIZE,MOUNTPOINTS", "--tree=PATH", disk.path],
            check=False,
        )
        if not done:
            raise CommandError(
                f"The disk {disk.path} cannot be listed: {done.stderr.strip()}.",
                hint="Is it still connected? 'lsblk' shows the disks of this machine.",
            )
        for device in json.loads(done.stdout)["blockdevices"]:
            _collect(device, name, "", nodes)
    return tuple(nodes.values())


def _collect(device: Mapping[str, Any], disk: str, parent: str, nodes: dict[str, Node]) -> None:
    path = str(device["path"])
    if path not in nodes:  # an md array or a spanning LV hangs under each of its disks
        hidden = device["type"] == "lvm" and is_part_of_volume(path)
        facts = {} if hidden else probe(path)
        nodes[path] = Node(
            path=path,
            kind=str(device["type"]),
            size=int(device["size"] or 0),
            disk=disk,
            number=int(facts.get("PART_ENTRY_NUMBER", "0")) if device["type"] == "part" else 0,
            content=facts.get("TYPE", ""),
            uuid=facts.get("UUID", ""),
            label=facts.get("LABEL", ""),
            part_uuid=facts.get("PART_ENTRY_UUID", "").lower(),
            part_label=facts.get("PART_ENTRY_NAME", ""),
            parent=parent,
            mounted=tuple(place for place in device.get("mountpoints") or () if place),
            parents=(parent,) if parent else (),
        )
    elif parent not in nodes[path].parents:
        nodes[path] = dataclasses.replace(nodes[path], parents=(*nodes[path].parents, parent))
    for child in device.get("children", ()):
        _collect(child, disk, path, nodes)


def probe(path: str) -> dict[str, str]:
    """What blkid reads from the device itself now (its cache and udev's may be older than the restore)."""
    done = run(["blkid", "-p", "-o", "export", path], check=False)
    pairs = (line.partition("=") for line in done.stdout.splitlines())
    return {key: re.sub(r"\\(.)", r"\1", value) for key, _, value in pairs}


_BY = {"UUID": "uuid", "LABEL": "label", "PARTUUID": "part_uuid", "PARTLABEL": "part_label"}


def resolve(
    spec: str, nodes: Iterable[Node], disks: Sequence[PointDisk] = (), content: str = "", *, guess: bool = True
) -> Node | None:
    """The node that a host's name for a device means, or None.

    Names that survive (``UUID=``, ``LABEL=``, ``/dev/mapper/vg-lv``, ``/dev/disk/by-uuid/...``) are looked up;
    names that do not (``/dev/sda2``, ``/dev/disk/by-id/...-part2``) are read against the captured ``disks``.
    ``content`` is the filesystem type that the host expects there: a guess that contradicts it is no answer. Without
    ``guess`` such a name means something only where the point knows that very name, or the serial number in it.
    """
    spec = spec.strip().strip("\"'")
    nodes = tuple(nodes)
    if match := re.fullmatch(r"/dev/disk/by-(uuid|label|partuuid|partlabel)/(.+)", spec):
        spec = f"{match[1].upper()}={_unescape(match[2])}"
    key, equals, value = spec.partition("=")
    if equals and key.upper() in _BY:
        field, value = _BY[key.upper()], value.strip("\"'")
        same = [n for n in nodes if getattr(n, field) and getattr(n, field).lower() == value.lower()]
        # A member of a mirror shows its array's content too: the array is what is meant.
        if not same and field == "part_uuid" and disks:  # the captured name, from before its disk got a GPT
            same = [n for n in nodes if was_called(n.part_uuid, value)]
        members = {path for n in same for path in (n.parent, *n.parents)}
        return next((n for n in same if n.path not in members), None)
    for node in nodes:
        if spec in node.lv_names or (node.kind.startswith(("raid", "crypt")) and spec == node.path):
            return node
    if match := re.fullmatch(r"/dev/md/?(?:[^/:]+:)?([^/]+)", spec):
        # The array's own name (``host:0`` in its members), whatever number it got on the medium.
        members = {n.path for n in nodes if n.content == "linux_raid_member" and n.label.split(":")[-1] == match[1]}
        return next(
            (n for n in nodes if n.kind.startswith("raid") and members.intersection(n.parents or (n.parent,))), None
        )
    found = _by_unstable_name(spec, nodes, disks, guess=guess)
    # Swap that a session sleeps in (hibernation) has another signature.
    here = "swap" if found and found.content == "swsuspend" else found.content if found else ""
    return None if content not in ("", "auto", "none") and here and here != content else found


def is_unstable(spec: str) -> bool:
    """Whether a device name cannot survive a move to other disks, buses or ports."""
    spec = spec.strip().strip("\"'")
    return bool(
        re.fullmatch(r"/dev/(?:(?:s|v|h|xv)d[a-z]+\d*|nvme\d+n\d+(?:p\d+)?|mmcblk\d+(?:p\d+)?)", spec)
        or re.match(r"/dev/disk/by-(?:id|path)/", spec)
    )


def _by_unstable_name(spec: str, nodes: Sequence[Node], disks: Sequence[PointDisk], *, guess: bool) -> Node | None:
    found = _disk_and_number(spec, disks, guess=guess)
    if not found:
        return None
    disk, number = found
    captured = {part.number for one in disks if one.name == disk for part in one.table.partitions}
    if number and captured and number not in captured:
        return None  # what has that number now was made here: a boot partition for another firmware
    kind = "part" if number else "disk"
    return next((n for n in nodes if n.disk == disk and n.kind == kind and n.number == number), None)


def _disk_and_number(spec: str, disks: Sequence[PointDisk], *, guess: bool) -> tuple[str, int] | None:
    """The point's disk name and the partition number (0 = the whole disk) that an unstable name meant."""
    if match := re.fullmatch(r"/dev/((?:s|v|h|xv)d([a-z]+))(\d*)", spec):
        number = int(match[3] or 0)
        index = 0
        for letter in match[2]:
            index = index * 26 + ord(letter) - ord("a") + 1
        return _pick(disks, f"/dev/{match[1]}", index - 1 if guess else None, number)
    if match := re.fullmatch(r"/dev/((?:nvme|mmcblk)(\d+)(?:n\d+)?)(?:p(\d+))?", spec):
        return _pick(disks, f"/dev/{match[1]}", int(match[2]) if guess else None, int(match[3] or 0))
    if match := re.fullmatch(r"/dev/disk/by-(id|path)/(.+?)(?:-part(\d+))?", spec):
        number = int(match[3] or 0)
        flat = _flat(match[2])
        named = [d for d in disks if any(_flat(v) and _flat(v) in flat for v in (d.serial, d.wwn))]
        if len(named) == 1:
            return named[0].name, number
        # A host's only disk, captured as an image that knows no serial. Otherwise it may be a disk never captured.
        if guess and len(disks) == 1 and (match[1] == "path" or not (disks[0].serial or disks[0].wwn)):
            return disks[0].name, number
    return None


def _pick(disks: Sequence[PointDisk], device: str, index: int | None, number: int) -> tuple[str, int] | None:
    """By the device it was captured from; where that is not known (an image), the n-th disk, if one may guess."""
    for disk in disks:
        if disk.device == device:
            return disk.name, number
    if index is None or any(disk.device.startswith(device[: len("/dev/sd")]) for disk in disks):
        return None  # the names of that kind are known, and this is none of them
    return (disks[index].name, number) if index < len(disks) else None


def _flat(text: str) -> str:
    return re.sub(r"[^0-9a-z]", "", text.lower().removeprefix("0x"))


def _unescape(text: str) -> str:
    """udev writes a blank in a link's name as ``\\x20``."""
    return re.sub(r"\\x([0-9a-fA-F]{2})", lambda m: chr(int(m[1], 16)), text)
