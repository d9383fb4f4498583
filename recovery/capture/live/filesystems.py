"""Which mounted filesystems lie on the disks, in the order in which they must be frozen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from recovery.capture.busy import Mount, parse_mountinfo, stacked_devices
from recovery.capture.tracking.extents import Extents
from recovery.capture.tracking.model import TrackedDisk
from recovery.errors import BusyError

_MOUNTINFO = Path("/proc/self/mountinfo")


@dataclass(frozen=True)
class Filesystem:
    """A filesystem mounted read-write: ``device`` is ``major:minor`` as stat() shows it, ``mount`` one of its mount
    points; ``reach``: where we see a mount point that is a container's."""

    device: str
    source: str
    mount: str
    kind: str
    reach: str = ""


def find_filesystems(disks: Sequence[TrackedDisk]) -> list[Filesystem]:
    """Those on the disks, their partitions and what is stacked on them (LVM, md, LUKS, loop devices on their files):
    inner ones first, the root last."""
    mounts = parse_mountinfo(_MOUNTINFO.read_text())
    devices = {pair for disk in disks for pair in stacked_devices(f"{disk.major}:{disk.minor}")}
    found = on_devices(mounts, devices)
    # A filesystem in a file of another one must be frozen before it, or its own freeze would wait for ever.
    while inner := _in_files_of(mounts, found):
        found = inner + found
    return found


def hidden_filesystems(disks: Sequence[TrackedDisk], found: Sequence[Filesystem]) -> list[Filesystem]:
    """Those that only other mount namespaces (containers) have mounted read-write: we cannot reach, so not freeze,
    them."""
    devices = {pair for disk in disks for pair in stacked_devices(f"{disk.major}:{disk.minor}")}
    known = {each.device for each in found}
    namespaces: set[str] = set()
    hidden: dict[str, Filesystem] = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            namespace = str((process / "ns/mnt").readlink())
            if namespace in namespaces:
                continue
            namespaces.add(namespace)
            mounts = parse_mountinfo((process / "mountinfo").read_text())
        except OSError:
            continue  # it ended
        for each in on_devices(mounts, devices):
            if each.device not in known:
                hidden.setdefault(each.device, replace(each, reach=f"{process}/root{each.mount}"))
    return list(hidden.values())


def on_devices(mounts: Sequence[Mount], devices: Iterable[tuple[str, str]]) -> list[Filesystem]:
    """The read-write filesystems of block devices (``major:minor``, kernel name), each once, deeper mounts first."""
    numbers, names = {}, set()
    for number, name in devices:
        numbers[number] = name
        names.add(name)
    found: dict[str, Filesystem] = {}
    for mount in mounts:
        # btrfs shows an anonymous number, so the source's name counts too.
        ours = mount.device in numbers or Path(mount.source).resolve().name in names
        if ours and not mount.read_only and mount.device not in found:
            found[mount.device] = Filesystem(mount.device, mount.source, mount.point, mount.kind)
    return sorted(found.values(), key=lambda each: len(PurePosixPath(each.mount).parts), reverse=True)


def mount_holding(path: str, mounts: Sequence[Mount]) -> Mount | None:
    """The mount that an absolute path lies on: of the longest mount points the last one mounted."""
    folders = {path, *(str(parent) for parent in PurePosixPath(path).parents)}
    holding = [mount for mount in mounts if mount.point in folders]
    return max(enumerate(holding), key=lambda pair: (len(pair[1].point), pair[0]))[1] if holding else None


def _in_files_of(mounts: Sequence[Mount], found: Sequence[Filesystem]) -> list[Filesystem]:
    """Filesystems on loop devices whose files lie on those found, and which are not among them."""
    known = {each.device for each in found}
    devices: set[tuple[str, str]] = set()
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            file, number = backing.read_text().strip(), (backing.parent.parent / "dev").read_text().strip()
        except OSError:
            continue
        holder = mount_holding(file, mounts)
        if holder is not None and holder.device in known:
            devices |= set(stacked_devices(number))
    return [each for each in on_devices(mounts, devices) if each.device not in known]


def swap_areas(disks: Sequence[TrackedDisk]) -> dict[str, Extents]:
    """Where swap partitions in use lie on each disk: nobody needs what is in them after a restore."""
    areas: dict[str, list[tuple[int, int]]] = {disk.name: [] for disk in disks}
    for line in Path("/proc/swaps").read_text().splitlines()[1:]:
        name = Path(line.split()[0]).resolve().name
        for disk in disks:
            folder = Path("/sys/block") / disk.kernel_name / name
            if name == disk.kernel_name:
                areas[disk.name].append((0, disk.size))
            elif (folder / "partition").exists():
                start, sectors = (int((folder / fact).read_text()) for fact in ("start", "size"))
                areas[disk.name].append((start * 512, sectors * 512))
    return {name: Extents(pairs) for name, pairs in areas.items()}


def refuse_own_output(filesystems: Sequence[Filesystem], outputs: Iterable[tuple[str, int]]) -> None:
    """Raises BusyError when one of our own outputs (name, descriptor) is a file on a filesystem that is to be frozen:
    we would wait for ourselves."""
    by_device = {each.device: each for each in filesystems}
    mounts = parse_mountinfo(_MOUNTINFO.read_text())
    for name, descriptor in outputs:
        try:
            path = str(Path(f"/proc/self/fd/{descriptor}").readlink())
            if not Path(path).is_file():
                continue
        except OSError:
            continue
        holder = mount_holding(path, mounts)
        if holder is not None and holder.device in by_device:
            raise BusyError(
                f"Our own {name} is the file '{path}', on the filesystem '{holder.point}' that is to be frozen.",
                hint="Send the output to the journal, a pipe, or a file on another disk (or in /run).",
            )
