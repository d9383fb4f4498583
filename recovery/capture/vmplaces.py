"""Where the disks of VMs lie: the file or volume of each, found when the inventory is taken, and its extents on the
disks that are captured. Whatever keeps them from being known is said, never guessed: a VM would come back broken."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import msgspec

from recovery.capture.btrfschunks import UnmappedError
from recovery.capture.fiemap import file_runs
from recovery.capture.ranges import cut, read_extents, total
from recovery.capture.thin import thin_runs
from recovery.capture.tree import Tree
from recovery.capture.volumes import Volume, find_volume
from recovery.commands import run
from recovery.errors import RekindleError
from recovery.format.extents import Run, encode_runs
from recovery.layout import DiskExtents, Occupancy, VirtualMachine

#: Bytes of all extents of a point of chunks together: some 300,000 pieces. Each list of points reads its points whole.
MOST = 1024 * 1024
#: ``(name of the VM, target of its disk)``
Key = tuple[str, str]
#: An occupancy, or why there is none.
Found = Occupancy | str


@dataclass(frozen=True)
class VmPlace:
    """A VM's disk: ``volume`` is what it is, or what its file lies in. Of a file ``here`` is where the inventory sees
    it, ``inside`` its path from the top of its filesystem, ``device`` that filesystem's number (st_dev). ``why`` it is
    not known where it lies, or empty."""

    key: Key
    volume: Volume | None = None
    here: Path | None = None
    inside: str = ""
    device: int = 0
    why: str = ""


def find_places(
    vms: Iterable[VirtualMachine],
    tree: Tree,
    where: Mapping[str, str],
    folders: Mapping[str, Path],
    volumes: Sequence[Volume],
) -> list[VmPlace]:
    """The place of each disk of each VM. ``where``: mount point -> name of its volume; ``folders``: name of a volume
    -> where its filesystem's top can be seen."""
    by_name = {volume.name: volume for volume in volumes}
    found: list[VmPlace] = []
    for vm in vms:
        for disk in vm.disks:
            key = (vm.name, disk.target)
            if disk.source.startswith("/dev/"):
                found.append(_on_volume(key, find_volume(disk.source, volumes)))
            elif disk.source.startswith("/"):
                located = tree.locate(disk.source)
                name = where.get(located.mount, "") if located else ""
                if located is None or name not in folders:
                    found.append(VmPlace(key, why="there is no such file on the disks captured"))
                else:
                    found.append(_in_file(key, by_name[name], located.here, folders[name]))
            else:
                found.append(VmPlace(key, why="it lies on no disk of this host"))
    return found


def _on_volume(key: Key, volume: Volume | None) -> VmPlace:
    if volume is None:
        return VmPlace(key, why="it lies on none of the disks captured")
    return VmPlace(key, volume, why="" if volume.extents or volume.thin else _nowhere(volume))


def _nowhere(volume: Volume) -> str:
    return (
        f"where the bytes of {volume.name} lie is not known (it or its pool is striped, cached or RAID, or a disk of "
        "it is missing)"
    )


def _in_file(key: Key, volume: Volume, here: Path, top: Path) -> VmPlace:
    try:
        facts = here.lstat()
        why = _several_devices(volume) if volume.extents else _nowhere(volume)
    except (RekindleError, UnmappedError, OSError) as error:
        # A capture of the bytes is worth more than a complete inventory.
        return VmPlace(key, volume, why=error.message if isinstance(error, RekindleError) else str(error))
    if not stat.S_ISREG(facts.st_mode):
        return VmPlace(key, volume, why="it is no regular file")
    return VmPlace(key, volume, here, "/" + os.path.relpath(here, top), facts.st_dev, why)


def _several_devices(volume: Volume) -> str:
    if volume.content.kind != "btrfs":
        return ""
    # The superblock at 64 KiB; num_devices is a u64 at 0x88 of it (struct btrfs_super_block).
    count = int.from_bytes(read_extents(volume.extents, 65536 + 0x88, 8), "little")
    return f"its btrfs lies on {count} devices" if count != 1 else ""


def map_still(places: Iterable[VmPlace], disks: Mapping[Path, str]) -> dict[Key, Found]:
    """The extents of VM disks on disks that nothing writes to, while their filesystems are mounted read-only.
    ``disks``: path -> name in the point."""
    found: dict[Key, Found] = {}
    replayed: dict[str, str] = {}
    for place in places:
        if place.why or place.volume is None:
            found[place.key] = place.why
            continue
        try:
            volume = place.volume
            if place.here is None and volume.thin is not None:
                size, metadata = volume.size, volume.thin.metadata
                runs = thin_runs(partial(read_extents, metadata), volume.thin, size)
                volume = replace(volume, extents=volume.thin.data)
            elif place.here is None:
                size, runs = volume.size, [Run(0, 0, volume.size)]
            else:
                if place.volume.name not in replayed:
                    replayed[place.volume.name] = not_replayed(place.volume, place.device)
                if replayed[place.volume.name]:
                    raise UnmappedError(replayed[place.volume.name])
                with place.here.open("rb", buffering=0) as file:
                    size = os.fstat(file.fileno()).st_size
                    runs = file_runs(file.fileno(), place.volume.content.kind)
            found[place.key] = occupancy(volume, runs, size, disks)
        except (RekindleError, UnmappedError, OSError) as error:
            found[place.key] = error.message if isinstance(error, RekindleError) else str(error)
    return found


def not_replayed(volume: Volume, device: int) -> str:
    """Why the files of a filesystem that is mounted read-only (``device``: st_dev) may lie elsewhere once its journal
    is replayed, or empty. Raises RekindleError."""
    kind = volume.content.kind
    if kind in ("ext2", "ext3", "ext4"):
        # s_feature_incompat, EXT4_FEATURE_INCOMPAT_RECOVER (Documentation/filesystems/ext4, "Super Block").
        dirty = bool(int.from_bytes(read_extents(volume.extents, 1024 + 96, 4), "little") & 0x4)
    elif kind == "btrfs":
        # log_root of the superblock: what was synced since the last commit.
        dirty = any(read_extents(volume.extents, 65536 + 0x60, 8))
    else:
        path = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").resolve().name
        said = run(["xfs_logprint", "-t", f"/dev/{path}"], check=False, timeout=120).stdout
        dirty = "<CLEAN>" not in said
    return "its filesystem was in the middle of its work: the journal has not been replayed" if dirty else ""


def occupancy(volume: Volume, runs: Iterable[Run], size: int, disks: Mapping[Path, str]) -> Occupancy:
    """Runs of something in a volume as extents of disks. Raises UnmappedError. Pure."""
    by_disk: dict[str, list[Run]] = {}
    for run_ in runs:
        at = run_.at
        pieces = cut(volume.extents, run_.offset, run_.length)
        if total(pieces) != run_.length:
            raise UnmappedError(f"a part of it lies beyond the end of {volume.name}")
        for piece in pieces:
            by_disk.setdefault(disks[piece.path], []).append(Run(at, piece.offset, piece.length))
            at += piece.length
    try:
        packed = [DiskExtents(disk=disk, runs=encode_runs(found)) for disk, found in sorted(by_disk.items())]
    except ValueError as error:
        raise UnmappedError(f"{error}") from error
    return Occupancy(size=size, disks=tuple(packed))


def with_occupancies(
    vms: Iterable[VirtualMachine], found: Mapping[Key, Found], most: int = MOST
) -> list[VirtualMachine]:
    """The VMs with what was found of their disks; ``most`` bytes of extents in all, the largest lists are left out.
    Pure."""
    sizes = sorted((weight(each), key) for key, each in found.items() if isinstance(each, Occupancy))
    kept: set[Key] = set()
    for size, key in sizes:
        most -= size
        if most < 0:
            break
        kept.add(key)
    changed: list[VirtualMachine] = []
    for vm in vms:
        disks = []
        for disk in vm.disks:
            key = (vm.name, disk.target)
            each = found.get(key, "it was not looked for")
            if isinstance(each, Occupancy) and key not in kept:
                each = f"it lies in so many pieces that their list has {weight(each)} bytes, too many for this point"
            known = each if isinstance(each, Occupancy) else None
            why = each if isinstance(each, str) else ""
            disks.append(msgspec.structs.replace(disk, occupies=known, unmapped=why))
        changed.append(msgspec.structs.replace(vm, disks=tuple(disks)))
    return changed


def weight(occupies: Occupancy) -> int:
    """Bytes that its extents take in a point."""
    return sum(len(each.runs) for each in occupies.disks)
