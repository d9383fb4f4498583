"""Places of this machine that files can be written to: found, looked at read-only, and mounted for one run.

Looking mounts a filesystem read-only for a moment, without replaying a journal. Only the run mounts for writing, and
only the one filesystem that was chosen; it is unmounted at the end, so that its disk can be taken out.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path

import msgspec

from recovery.capture.busy import Mount, parse_mountinfo
from recovery.commands import run
from recovery.engine.local_repositories import PATTERNS, describe_system, mount, unmount
from recovery.errors import CommandError, DeviceError, NotFoundError, UnsafeTargetError, UsageError
from recovery.machine.model import Machine
from recovery.machine.place import Place, is_place, why_not
from recovery.machine.probe_busy import OWN_MOUNTS, Node, is_boot_medium, mountpoints, walk
from recovery.machine.probe_disks import lsblk, partition_path
from recovery.machine.probe_volumes import blkid

MOUNTS = Path("/run/rekindle/places")
_MOUNTINFO = Path("/proc/self/mountinfo")
#: Nothing on a foreign filesystem is a device or a program for this machine. A copy of a disk has the UUID of its
#: original, and xfs refuses the second one of them.
_OPTIONS = {"xfs": ",nouuid", "vfat": ",umask=077", "exfat": ",umask=077"}
_REPOSITORY = "It holds a repository, which is only ever read."


def find_places(*, loops: bool = False, only: str = "") -> list[Place]:
    """Every filesystem on the disks of this machine (or ``only`` that on one device), also those that cannot be
    chosen, with the reason. ``loops``: also those on loop devices. Raises CommandError when lsblk fails."""
    kinds = ("disk", "loop") if loops else ("disk",)
    return [place for disk in lsblk() if disk.get("type") in kinds for place in _on(disk, only)]


def _on(disk: Node, only: str) -> Iterator[Place]:
    medium = is_boot_medium(disk)
    for node in walk(disk):
        if (node.get("children") and not mountpoints(node)) or (only and node.get("path") != only):
            continue
        device = str(node.get("path"))
        content = blkid([device])
        if not is_place(content):
            continue
        reason = why_not(content, medium=medium, repository=False, read_only=bool(node.get("ro")))
        place = Place(
            device=device, kind=content.kind, label=content.label, size=int(node.get("size") or 0),
            disk=str(disk.get("path")), model=str(disk.get("model") or "").strip(), bus=str(disk.get("tran") or ""),
            unavailable=reason,
        )  # fmt: skip
        yield place if reason else _looked_at(place, node)


def _looked_at(place: Place, node: Node) -> Place:
    """With its free room and its system, or the reason why it cannot be written to."""
    points = [point for point in mountpoints(node) if point.startswith("/")]
    if any(point.startswith(OWN_MOUNTS) for point in points):
        return msgspec.structs.replace(place, unavailable=_REPOSITORY)
    if points:
        place = msgspec.structs.replace(place, path=points[0])
    try:
        with looking(place) as folder:
            if any(next(folder.glob(pattern), None) for pattern in PATTERNS):
                return msgspec.structs.replace(place, unavailable=_REPOSITORY)
            system = "" if points else describe_system(folder)
            return msgspec.structs.replace(place, free=shutil.disk_usage(folder).free, system=system)
    except (DeviceError, UnsafeTargetError) as error:
        return msgspec.structs.replace(place, unavailable=error.message)
    except OSError as error:
        return msgspec.structs.replace(place, unavailable=f"It cannot be read: {error.strerror}.")


@contextlib.contextmanager
def looking(place: Place) -> Iterator[Path]:
    """Its top folder, to be read only. Raises DeviceError, UnsafeTargetError when it is mounted read-only."""
    if place.path:
        mounted = mount_of(Path(place.path))
        if mounted is not None and mounted.read_only:
            raise UnsafeTargetError(
                f"It is mounted read-only on {mounted.point}.", hint="Mount it for writing, or choose another place."
            )
        yield Path(place.path)
        return
    folder = MOUNTS / Path(place.device).name
    if os.geteuid() != 0:
        raise DeviceError("Only root may mount it.", hint="Run as root, or mount it and give the directory.")
    if not mount(place.device, folder, place.kind):
        raise DeviceError(
            "It cannot be mounted: it may be damaged, in use, or one part of several.",
            hint="Mount it in a shell and give the directory, or choose another place.",
        )
    try:
        yield folder
    finally:
        unmount(folder)


@contextlib.contextmanager
def writing(place: Place) -> Iterator[Path]:
    """Its top folder, mounted for writing for the time of the block where it was not mounted before.

    Raises DeviceError when it is another filesystem by now, or cannot be mounted or unmounted.
    """
    if place.path or not place.device:
        yield Path(place.path)
        return
    now = blkid([place.device])
    if (now.kind, now.label) != (place.kind, place.label):
        raise DeviceError(
            f"{place.device} is not the filesystem that was chosen. Nothing was written.", hint="Choose it again."
        )
    folder = MOUNTS / Path(place.device).name
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    options = f"rw,nosuid,nodev,noexec{_OPTIONS.get(place.kind, '')}"
    try:
        run(["mount", "-o", options, place.device, folder], timeout=120)
    except CommandError as error:
        with contextlib.suppress(OSError):
            folder.rmdir()
        raise DeviceError(
            f"{place.name} cannot be mounted for writing: {error.message}. Nothing was written.",
            hint="Check it with its own tool (fsck), or choose another place.",
        ) from error
    try:
        yield folder
    except BaseException:
        unmount(folder)  # why it ended is what is told
        raise
    done = run(["umount", folder], check=False, timeout=600)
    if not done:
        raise DeviceError(
            f"The files are complete, but {place.name} could not be unmounted: {done.stderr.strip()}.",
            hint=f"Do not pull it out. In a shell (F2): umount {folder}",
        )
    with contextlib.suppress(OSError):
        folder.rmdir()


def within(top: Path, folder: str) -> Path:
    """The folder below the top of a filesystem; links that lead out of it are refused. Raises UsageError."""
    parts = [part for part in folder.split("/") if part not in ("", ".")]
    path = top.joinpath(*parts)
    # Not Path.resolve(): it raises RuntimeError where links lead round in a circle.
    inside = Path(os.path.realpath(path)).is_relative_to(os.path.realpath(top))
    nowhere = any(each.is_symlink() and not each.exists() for each in (path, *path.parents))
    if ".." in parts or not inside or nowhere:
        raise UsageError(
            f"'{folder}' leads out of the filesystem, or nowhere.", hint="Type a folder within it, such as vms/web1."
        )
    return path


def directory(folder: str) -> Place:
    """A directory that is there already, as a place. Raises UsageError, NotFoundError."""
    path = Path(folder)
    if not path.is_absolute():
        raise UsageError(f"'{folder}' is not the whole path of a directory.", hint="Type it from the top: /mnt/vms.")
    if not path.is_dir():
        raise NotFoundError(f"The directory {path} is not there.", hint="Make it, or mount what shall be there (F2).")
    mounted = mount_of(path)
    reason = ""
    if mounted is not None and mounted.read_only:
        reason = f"It is read-only ({mounted.kind} on {mounted.point})."
    elif not os.access(path, os.W_OK):
        reason = "This user may not write to it."
    elif any((parent / "repo.json").is_file() for parent in (path.resolve(), *path.resolve().parents)):
        reason = _REPOSITORY
    usage = shutil.disk_usage(path)
    return Place(
        path=str(path), kind=mounted.kind if mounted else "", size=usage.total, free=usage.free, unavailable=reason
    )


def mount_of(path: Path) -> Mount | None:
    """What is mounted where ``path`` lies."""
    try:
        mounts = parse_mountinfo(_MOUNTINFO.read_text(errors="replace"))
    except OSError:
        return None
    where = path.resolve()
    holding = [mount for mount in mounts if where.is_relative_to(mount.point)]
    # The one mounted last hides those before it.
    return max(enumerate(holding), key=lambda pair: (len(pair[1].point), pair[0]))[1] if holding else None


def taken(folder: Path, names: Collection[str]) -> set[str]:
    """Which of ``names`` are in the folder; none when there is no such folder."""
    return {name for name in names if (folder / name).exists() or (folder / name).is_symlink()}


def recorded_places(machine: Machine) -> list[Place]:
    """The places of a recorded machine: none can be looked into, so ``free`` is what its record knows. Pure."""
    places = []
    for disk in machine.disks:
        contents = [
            (partition_path(disk.path, part.number), part.size, part.content) for part in disk.table.partitions
        ]
        for device, size, content in contents or [(disk.path, disk.size, disk.content)]:
            if not is_place(content):
                continue
            reason = why_not(
                content, medium=disk.boot_medium, repository=bool(disk.repository), read_only=disk.read_only
            )
            free = None if content.used is None or reason else size - content.used
            places.append(
                Place(
                    device=device,
                    kind=content.kind,
                    label=content.label,
                    size=size,
                    free=free,
                    disk=disk.path,
                    model=disk.model,
                    bus=disk.bus,
                    unavailable=reason,
                )  # fmt: skip
            )
    return places
