"""Look into the filesystems of this machine: which hold a repository, and which systems would be missed.

Everything is mounted read-only and without replaying a journal, below /run/rekindle/repositories; what holds a
repository stays mounted so that it can be opened, everything else is unmounted at once.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from recovery.commands import run
from recovery.engine.api import LocalRepository
from recovery.errors import CommandError
from recovery.machine.probe_busy import Node, mountpoints, walk
from recovery.machine.probe_disks import lsblk, read_text
from recovery.machine.probe_volumes import blkid, mapper_name, probe_lvm
from recovery.repository.identity import RepositoryFile

log = logging.getLogger("rekindle.engine")

MOUNTS = Path("/run/rekindle/repositories")
#: Filesystem -> mount options that write nothing, not even a journal that was left behind.
_OPTIONS = {
    "ext2": "", "ext3": "noload", "ext4": "noload", "xfs": "norecovery,nouuid", "btrfs": "rescue=nologreplay",
    "vfat": "", "exfat": "", "ntfs": "",
}  # fmt: skip
#: repo.json lies at the top of a disk or in a folder of it.
PATTERNS = ("repo.json", "*/repo.json", "*/*/repo.json")
_SYSTEMS = ("ext2", "ext3", "ext4", "xfs", "btrfs")


class Inside(msgspec.Struct, frozen=True, kw_only=True):
    """What was found in the filesystem on ``device``."""

    device: str
    disk: str
    repositories: tuple[LocalRepository, ...] = ()
    system: str = ""


class Looker:
    """Looks, and remembers what it saw as long as the filesystem is the same."""

    def __init__(self, mounts: Path = MOUNTS) -> None:
        self._mounts = mounts
        self._seen: dict[tuple[str, str, int], Inside] = {}

    @property
    def seen(self) -> list[Inside]:
        """What was seen when it last looked."""
        return list(self._seen.values())

    def look(self) -> list[Inside]:
        """Every filesystem on every disk. Filesystems that cannot be mounted are passed over.

        Raises CommandError when lsblk fails. Without root only what is mounted already is looked into.
        """
        found = []
        seen = {}
        lvm = probe_lvm()
        open_volumes = {f"/dev/mapper/{name}" for name in lvm.open}
        idle = {f"/dev/mapper/{mapper_name(g.name, v.name)}" for g in lvm.groups for v in g.volumes} - open_volumes
        for disk in lsblk():
            if disk.get("type") != "disk":
                continue
            for node in walk(disk):
                path = str(node.get("path"))
                if node.get("children") or (node.get("type") == "lvm" and not mountpoints(node) and path not in idle):
                    continue
                content = blkid([path])
                if content.kind not in _OPTIONS:
                    continue
                key = (path, content.uuid, int(node.get("size") or 0))
                inside = self._seen.get(key)
                if inside is None or not all(Path(r.path, "repo.json").exists() for r in inside.repositories):
                    inside = self._look_into(node, str(disk.get("path")), content.kind)
                seen[key] = inside
                found.append(inside)
        self._seen = seen
        return found

    def _look_into(self, node: Node, disk: str, kind: str) -> Inside:
        device = str(node.get("path"))
        places = [point for point in mountpoints(node) if point.startswith("/")]
        folder = Path(places[0]) if places else self._mounts / Path(device).name
        if not places and not (os.geteuid() == 0 and mount(device, folder, kind)):
            return Inside(device=device, disk=disk)
        repositories: tuple[LocalRepository, ...] = ()
        try:
            repositories = tuple(_repositories(folder, device, int(node.get("size") or 0)))
            system = describe_system(folder) if kind in _SYSTEMS else ""
        except (OSError, RuntimeError) as error:  # a dying disk, a broken filesystem, links in circles
            log.warning("%s could not be looked into: %s", device, error)
            system = ""
        finally:
            if not places and not repositories:
                unmount(folder)
        return Inside(device=device, disk=disk, repositories=repositories, system=system)


def mount(device: str, folder: Path, kind: str) -> bool:
    """Mount read-only without replaying a journal. False when that is not possible."""
    options = ",".join(filter(None, ("ro,nosuid,nodev,noexec", _OPTIONS.get(kind, ""))))
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # A disk that is dying may make a mount hang; it is passed over then.
        return bool(run(["mount", "-o", options, device, folder], check=False, timeout=30))
    except (OSError, CommandError):
        return False


def unmount(folder: Path) -> None:
    """The end of ``mount``."""
    run(["umount", folder], check=False, timeout=60)
    with contextlib.suppress(OSError):
        folder.rmdir()


def _repositories(folder: Path, device: str, size: int) -> Iterator[LocalRepository]:
    for pattern in PATTERNS:
        for file in sorted(folder.glob(pattern)):
            try:
                repository = msgspec.json.decode(file.read_bytes(), type=RepositoryFile)
            except (OSError, msgspec.MsgspecError):
                continue
            yield LocalRepository(id=repository.id, path=str(file.parent), device=device, size=size)


def describe_system(folder: Path) -> str:
    """``'pve1' (Debian GNU/Linux 13) with the virtual machines mail, web``; empty when no system lies there."""
    release = _inside(folder, "usr/lib/os-release") or _inside(folder, "etc/os-release")
    if not release:
        return ""
    facts = dict(line.partition("=")[::2] for line in release.splitlines())
    name = facts.get("PRETTY_NAME", facts.get("NAME", "a Linux system")).strip("'\"")
    host = _inside(folder, "etc/hostname").strip() or "without a name"
    domains = sorted(file.stem for file in (folder / "etc/libvirt/qemu").glob("*.xml"))
    vms = f" with the virtual machines {', '.join(domains)}" if domains else ""
    return f"'{host}' ({name}){vms}"


def _inside(folder: Path, name: str) -> str:
    """A file of the foreign system; a link that leads out of it into ours is not followed."""
    # Not Path.resolve(): it raises RuntimeError where links lead round in a circle.
    path = Path(os.path.realpath(folder / name))
    return read_text(path) if path.is_relative_to(os.path.realpath(folder)) else ""
