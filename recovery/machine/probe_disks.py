"""The disks of the machine: lsblk's tree, what sysfs adds to it, and what lies on each."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from recovery.commands import run
from recovery.errors import CommandError
from recovery.layout import Partition, PartitionTable, TableKind
from recovery.machine.identity import ambiguous_ids, bus_of, disk_id, normal_words, normal_wwn
from recovery.machine.model import Disk
from recovery.machine.modules import modules_in_use
from recovery.machine.probe_busy import MEDIUM_LABEL, MEDIUM_REASONS, Node, busy_reasons, is_boot_medium
from recovery.machine.probe_volumes import Volumes, blkid, said

#: Not disks that a host could be restored to: memory, floppies, hardware boot partitions of an eMMC.
_NOT_DISKS = re.compile(r"^(zram|ram|fd|sr)\d|^mmcblk\d+(boot|rpmb)")
#: MBR types of extended partitions: containers, whose content is the logical partitions.
_EXTENDED = ("5", "05", "f", "0f", "85")


def read_text(path: Path) -> str:
    """A small file of sysfs or procfs, empty when it can't be read."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def lsblk() -> list[Node]:
    """The trees of all block devices. Raises CommandError."""
    text = run(["lsblk", "-J", "-O", "-b"], timeout=60).stdout
    try:
        devices: list[Node] = msgspec.json.decode(text)["blockdevices"]
    except (msgspec.DecodeError, KeyError, TypeError) as error:
        raise CommandError(f"lsblk did not answer with a list of disks: {error}.") from error
    return devices


def partition_path(disk: str, number: int) -> str:
    """The kernel's name of a partition: ``/dev/sda1``, ``/dev/nvme0n1p1``."""
    return f"{disk}{'p' if disk[-1].isdigit() else ''}{number}"


def probe_table(path: str) -> PartitionTable:
    """The partition table of ``path`` and what lies in each partition, read from the disk and not from a cache.

    Contents are probed at their offset in the whole disk, so partitions whose device nodes are missing count too.
    """
    text = said(["sfdisk", "-J", path])
    if not text.strip():
        return PartitionTable()
    try:
        table = msgspec.json.decode(text)["partitiontable"]
    except (msgspec.DecodeError, KeyError, TypeError):
        return PartitionTable()
    unit = int(table.get("sectorsize", 512))
    kind: TableKind = "gpt" if table.get("label") == "gpt" else "mbr" if table.get("label") == "dos" else "none"
    partitions = [_partition(row, unit, path) for row in table.get("partitions", ())]
    return PartitionTable(
        kind=kind,
        uuid=str(table.get("id", "")).removeprefix("0x").lower(),
        partitions=tuple(sorted(partitions, key=lambda p: p.start)),
    )


def _partition(row: Mapping[str, Any], unit: int, path: str) -> Partition:
    start, size = int(row["start"]) * unit, int(row["size"]) * unit
    kind = str(row.get("type", "")).lower()
    number = re.search(r"(\d+)$", str(row.get("node", "")))
    flags = [flag for flag in str(row.get("attrs", "")).split() if flag]
    if row.get("bootable"):
        flags.append("boot")
    extended = kind in _EXTENDED
    content = {} if extended else {"content": blkid(["-O", str(start), "-S", str(size), path])}
    return Partition(
        number=int(number.group(1)) if number else 0,
        start=start,
        size=size,
        type=kind.zfill(2) if len(kind) < 3 else kind,
        uuid=str(row.get("uuid", "")).lower(),
        name=str(row.get("name", "")),
        flags=tuple(flags),
        **content,
    )


def probe_disk(node: Node, sysfs: Path, volumes: Volumes, repositories: Mapping[str, str]) -> Disk:
    """One disk. ``repositories`` maps device paths (of a disk or of anything on it) to a repository's id."""
    name, path = str(node["name"]), str(node.get("path") or f"/dev/{node['name']}")
    block = sysfs / "block" / name
    wwn = normal_wwn(str(node.get("wwn") or ""))
    for file in (block / "wwid", block / "device" / "wwid"):
        wwn = wwn or normal_wwn(read_text(file))
    serial = normal_words(str(node.get("serial") or ""))
    for file in (block / "serial", block / "device" / "serial"):
        serial = serial or normal_words(read_text(file))
    model = normal_words(str(node.get("model") or "")) or normal_words(read_text(block / "device" / "model"))
    table, content = probe_table(path), blkid([path])
    uuids = {content.uuid, *(p.content.uuid for p in table.partitions)}
    repository = next((repositories[p] for p in _paths(node) if p in repositories), "")
    ours = content.kind == "iso9660" and content.label.upper().startswith(MEDIUM_LABEL)
    medium = is_boot_medium({**node, "fstype": content.kind, "label": content.label} if ours else node)
    busy = busy_reasons(node, open_volumes=volumes.open, repository=repository)
    if medium and not is_boot_medium(node):
        busy = (MEDIUM_REASONS[1], *busy)
    return Disk(
        id=disk_id(wwn=wwn, model=model, serial=serial, path=path),
        path=path,
        size=int(node.get("size") or 0),
        sector_size=int(node.get("log-sec") or 512),
        physical_sector_size=int(node.get("phy-sec") or 512),
        bus=bus_of(name, str(node.get("tran") or ""), str(node.get("subsystems") or "").split(":")),
        model=model,
        serial=serial,
        wwn=wwn,
        rotational=bool(node.get("rota")),
        removable=bool(node.get("rm") or node.get("hotplug")),
        read_only=bool(node.get("ro")),
        boot_medium=medium,
        repository=repository,
        busy=busy,
        table=table,
        content=content,
        modules=tuple(modules_in_use(path, sysfs)),
        volume_groups=tuple(sorted({volumes.pv_groups[u] for u in uuids if u in volumes.pv_groups})),
    )


def _paths(node: Node) -> list[str]:
    below = [path for child in node.get("children") or () for path in _paths(child)]
    return [str(node.get("path") or f"/dev/{node['name']}"), *below]


def probe_disks(
    nodes: list[Node], sysfs: Path, volumes: Volumes, repositories: Mapping[str, str], *, loops: bool = False
) -> tuple[Disk, ...]:
    """All disks that could be thought of as a target, in the kernel's order; loop devices only with ``loops``."""
    disks = []
    for node in nodes:
        wanted = node.get("type") == "disk" or (loops and node.get("type") == "loop")
        if wanted and int(node.get("size") or 0) > 0 and not _NOT_DISKS.match(str(node["name"])):
            disks.append(probe_disk(node, sysfs, volumes, repositories))
    claimed_twice = ambiguous_ids(disks)
    return tuple(
        msgspec.structs.replace(disk, id=f"path:{disk.path}") if disk.id in claimed_twice else disk for disk in disks
    )
