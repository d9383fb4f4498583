"""Everything a point says about a host besides its bytes, found on the disks to be captured.

What cannot be read is left out with a warning: a capture of the bytes is worth more than a complete inventory.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from recovery.capture.content import probe_content
from recovery.capture.esp import list_esp
from recovery.capture.firmware import Decision, Evidence, decide, has_boot_code
from recovery.capture.look_lvm import look_at_lvm
from recovery.capture.luks import read_volume
from recovery.capture.md import Member, assemble, read_member
from recovery.capture.minimum import minimum_bytes
from recovery.capture.mounts import mounted, used_bytes
from recovery.capture.proxmox import read_guests
from recovery.capture.ranges import Extent, read_range
from recovery.capture.sources import Source
from recovery.capture.system import ROOT_FOLDERS, FstabLine, parse_fstab, rank_as_root, read_system
from recovery.capture.tables import read_table
from recovery.capture.tree import Tree
from recovery.capture.vmplaces import VmPlace, find_places, map_still, with_occupancies
from recovery.capture.vms import read_vms, virtual_size
from recovery.capture.volumes import FILESYSTEMS, Volume, find_volume
from recovery.capture.windows import as_host, look_at_ntfs
from recovery.errors import RekindleError
from recovery.layout import (
    Content,
    LuksVolume,
    MdArray,
    Partition,
    PartitionTable,
    SystemFacts,
    VirtualMachine,
    VolumeGroup,
    WindowsSystem,
)

#: Told a warning in a whole sentence.
Warn = Callable[[str], None]
#: Shows a volume's files, read-only, for the time of a block.
Mounter = Callable[[Volume], contextlib.AbstractContextManager[Path]]

_ESP_TYPES = {"c12a7328-f81f-11d2-ba4b-00a0c93ec93b", "ef"}


@dataclass
class Inventory:
    """What was found. ``tables`` and ``sector_sizes`` are by disk name; filesystems carry their used bytes."""

    tables: dict[str, PartitionTable] = field(default_factory=dict)
    sector_sizes: dict[str, int] = field(default_factory=dict)
    volumes: list[Volume] = field(default_factory=list)
    groups: list[VolumeGroup] = field(default_factory=list)
    arrays: list[MdArray] = field(default_factory=list)
    encrypted: list[LuksVolume] = field(default_factory=list)
    system: SystemFacts = SystemFacts()
    vms: list[VirtualMachine] = field(default_factory=list)
    places: list[VmPlace] = field(default_factory=list)
    windows: list[WindowsSystem] = field(default_factory=list)
    architecture: str = ""
    """Of the Windows found first."""
    firmware: Decision = Decision("unknown", False, "nothing was looked at")


def take_inventory(
    sources: Sequence[Source], warn: Warn, mount: Mounter = mounted, *, running: bool = False
) -> Inventory:
    """Look at all disks together (a VG may lie on several). Of a ``running`` host ``places`` of VM disks are found,
    and their extents are left to the moment of the freeze. Raises DeviceError when a disk cannot be read."""
    inventory = Inventory()
    for source in sources:
        _look_at_disk(source, inventory, warn)
    _look_at_arrays(inventory, warn)
    inventory.groups += look_at_lvm(inventory.volumes, warn)
    _look_at_encrypted(inventory, {source.path: source.name for source in sources}, warn)
    esp = next((volume for volume in inventory.volumes if volume.is_esp), None)
    esp_files: list[str] = []
    if esp:
        try:
            esp_files = list_esp(esp.extents[0])
        except RekindleError as error:
            warn(f"The EFI system partition was not looked into: {error.message}")
    _look_at_windows(inventory, warn)
    grub: list[str] = []
    esp_mounted = False
    if os.geteuid() == 0:
        names = {} if running else {source.path: source.name for source in sources}
        found = _look_at_systems(inventory, esp.name if esp else "", esp_files, warn, mount, names)
        if found:
            grub, esp_mounted = found
    else:
        warn("Filesystems, the operating system and VMs were not looked into, because that needs root.")
    evidence = Evidence(
        esp_files=esp_files,
        esp_in_fstab=esp_mounted,
        bios_boot_partition=any("bios_grub" in part.flags for t in inventory.tables.values() for part in t.partitions),
        mbr_boot_code=any(has_boot_code(read_range(source.path, 0, 512)) for source in sources),
        grub_platforms=grub,
    )
    inventory.firmware = decide(evidence)
    return inventory


def _look_at_disk(source: Source, inventory: Inventory, warn: Warn) -> None:
    found = read_table(source)
    inventory.sector_sizes[source.name] = found.sector_size
    if found.problem:
        warn(f"{source.given}: {found.problem}.")
    partitions: list[Partition] = []
    for part in found.table.partitions:
        length = min(part.size, source.size - part.start)
        if length < part.size:
            warn(f"{source.given}: partition {part.number} goes beyond the end of the disk.")
        is_container = found.table.kind == "mbr" and part.type in ("05", "0f", "85")
        content = Content() if is_container or length <= 0 else probe_content(source.path, part.start, length)
        part = msgspec.structs.replace(part, content=content)
        partitions.append(part)
        if length > 0 and not is_container:
            inventory.volumes.append(
                Volume(
                    f"{source.name}:{part.number}",
                    length,
                    (Extent(source.path, part.start, length),),
                    content,
                    part.uuid,
                    part.name,
                    part.type in _ESP_TYPES,
                )
            )
    inventory.tables[source.name] = msgspec.structs.replace(found.table, partitions=tuple(partitions))
    if found.table.kind == "none":
        content = probe_content(source.path, 0, source.size)
        if content.kind:
            whole = (Extent(source.path, 0, source.size),)
            inventory.volumes.append(Volume(source.name, source.size, whole, content))


def _look_at_arrays(inventory: Inventory, warn: Warn) -> None:
    """The md arrays; a mirror's content is a volume as a partition's is."""
    members: list[Member] = []
    for volume in list(inventory.volumes):
        if volume.content.kind == "linux_raid_member":
            member = read_member(volume.name, volume.extents)
            if member is None:
                warn(f"{volume.name} is a member of an md array whose superblock is not understood.")
            else:
                members.append(member)
    for found in assemble(members):
        array, content = found.array, Content()
        stale = [m.place for m in members if m.array.uuid == array.uuid and m.place not in array.members]
        if stale:
            warn(
                f"{', '.join(stale)} had fallen out of the md array {array.name or array.uuid}, and is not up to date."
            )
        if found.extents:
            first = found.extents[0]
            content = probe_content(first.path, first.offset, first.length)
            inventory.volumes.append(Volume(array.volume, found.size, found.extents, content))
        else:
            warn(f"What the md array {array.name or array.uuid} ({array.level}) holds was not looked into.")
        inventory.arrays.append(msgspec.structs.replace(array, content=content))


def _look_at_encrypted(inventory: Inventory, disks: Mapping[Path, str], warn: Warn) -> None:
    """The headers of what is encrypted; its content is nobody's business here."""
    for volume in inventory.volumes:
        if volume.content.kind != "crypto_LUKS":
            continue
        warn(f"{volume.name} is encrypted (LUKS); what it holds was not looked into.")
        first = volume.extents[0] if volume.extents else None
        disk = disks.get(first.path, "") if first else ""
        try:
            found = read_volume(volume.name, volume.extents, disk, first.offset if first else 0)
        except RekindleError as error:
            warn(f"{volume.name}: {error.message}")
        else:
            inventory.encrypted += [found] if found else []


def _look_at_windows(inventory: Inventory, warn: Warn) -> None:
    """NTFS: whether it was left whole, and the Windows on it."""
    for index, volume in enumerate(inventory.volumes):
        if volume.content.kind != "ntfs" or len(volume.extents) != 1:
            continue
        found = look_at_ntfs(volume, warn, inside=os.geteuid() == 0)
        inventory.volumes[index] = _replace_content(volume, found.content)
        if found.windows is not None:
            inventory.windows.append(found.windows)
            inventory.architecture = inventory.architecture or found.architecture
    _carry_used(inventory)


def _look_at_systems(
    inventory: Inventory,
    esp: str,
    esp_files: Sequence[str],
    warn: Warn,
    mount: Mounter,
    still: Mapping[Path, str],
) -> tuple[list[str], bool] | None:
    """Mount every filesystem, find the host's root among them, read it. Gives GRUB's platforms and whether the ESP
    is in the fstab. ``still``: the disks' names, when nothing writes to them."""
    with contextlib.ExitStack() as stack:
        folders: dict[str, Path] = {}
        for index, volume in enumerate(inventory.volumes):
            if volume.content.kind not in FILESYSTEMS or not volume.extents:
                continue
            try:
                folders[volume.name] = stack.enter_context(mount(volume))
                used = used_bytes(folders[volume.name])
            except (RekindleError, OSError) as error:
                why = error.message if isinstance(error, RekindleError) else str(error)
                warn(f"The filesystem on {volume.name} was not looked into: {why}")
                continue
            least = minimum_bytes(volume, folders[volume.name])
            content = msgspec.structs.replace(volume.content, used=used, minimum=least)
            inventory.volumes[index] = _replace_content(volume, content)
        _carry_used(inventory)
        root = _choose_root(inventory.volumes, folders)
        if root is None and inventory.windows:
            inventory.system = as_host(inventory.windows[0], inventory.architecture, esp)
            return None
        if root is None:
            warn("No operating system was found on the disks.")
            return None
        volume, top = root
        tree, where, fstab = _assemble(volume, top, inventory.volumes, folders)
        inventory.system = read_system(tree, where, esp, esp_files)
        for read in (read_vms, read_guests):
            vms, problems = read(
                tree, lambda source, driver: _find_disk(source, driver, tree, where, inventory.volumes)
            )
            inventory.vms += vms
            for problem in problems:
                warn(problem)
        inventory.places = find_places(inventory.vms, tree, where, folders, inventory.volumes)
        if still:
            inventory.vms = with_occupancies(inventory.vms, map_still(inventory.places, still))
        return tree.names("/boot/grub") + tree.names("/boot/grub2"), any(
            line.kind == "vfat" and line.point in ("/boot/efi", "/efi", "/boot") for line in fstab
        )


def _replace_content(volume: Volume, content: Content) -> Volume:
    return Volume(
        volume.name, volume.size, volume.extents, content, volume.part_uuid, volume.part_label, volume.is_esp
    )


def _carry_used(inventory: Inventory) -> None:
    """Put the used bytes, known after mounting, into the tables and groups."""
    contents = {volume.name: volume.content for volume in inventory.volumes}
    for disk, table in inventory.tables.items():
        parts = tuple(
            msgspec.structs.replace(part, content=contents.get(f"{disk}:{part.number}", part.content))
            for part in table.partitions
        )
        inventory.tables[disk] = msgspec.structs.replace(table, partitions=parts)
    inventory.arrays = [
        msgspec.structs.replace(array, content=contents.get(array.volume, array.content)) for array in inventory.arrays
    ]
    inventory.groups = [
        msgspec.structs.replace(
            group,
            volumes=tuple(
                msgspec.structs.replace(lv, content=contents.get(f"{group.name}/{lv.name}", lv.content))
                for lv in group.volumes
            ),
        )
        for group in inventory.groups
    ]


def _choose_root(volumes: Sequence[Volume], folders: dict[str, Path]) -> tuple[Volume, Path] | None:
    best: tuple[int, Volume, Path] | None = None
    for volume in volumes:
        for folder in ROOT_FOLDERS if volume.name in folders else ():
            top = folders[volume.name] / folder
            # Not through a link: "@" must be a folder of the captured filesystem.
            if (folder and (volume.content.kind != "btrfs" or top.is_symlink())) or not top.is_dir():
                continue
            rank = rank_as_root(Tree({"/": top}), volume, volumes)
            if rank and (best is None or rank > best[0]):
                best = (rank, volume, top)
    return (best[1], best[2]) if best else None


def _assemble(
    volume: Volume, top: Path, volumes: Sequence[Volume], folders: dict[str, Path]
) -> tuple[Tree, dict[str, str], list[FstabLine]]:
    """The system's tree as its fstab puts it together, and mount point -> volume name."""
    mounts, where = {"/": top}, {"/": volume.name}
    fstab = parse_fstab(Tree(mounts).text("/etc/fstab"))
    for line in fstab:
        other = find_volume(line.spec, volumes)
        if other is None or not line.point.startswith("/") or line.point == "/" or other.name not in folders:
            continue
        folder = folders[other.name] / line.subvolume
        if folder.is_dir() and not folder.is_symlink() and ".." not in Path(line.subvolume).parts:
            mounts[line.point.rstrip("/")] = folder
            where[line.point.rstrip("/")] = other.name
    return Tree(mounts), where, fstab


def _find_disk(
    source: str, driver: str, tree: Tree, where: dict[str, str], volumes: Sequence[Volume]
) -> tuple[str, int | None]:
    """Where a VM's disk lies and its size in bytes."""
    if source.startswith("/dev/"):
        volume = find_volume(source, volumes)
        return (volume.name, volume.size) if volume else ("", None)
    found = tree.locate(source) if source.startswith("/") else None
    if found is None:
        return "", None
    return where.get(found.mount, ""), virtual_size(tree, source, driver)
