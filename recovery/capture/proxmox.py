"""The guests of a Proxmox VE host, from the database that ``/etc/pve`` is made of.

``/etc/pve`` is no folder of the disk but a view of ``/var/lib/pve-cluster/config.db`` (SQLite; Proxmox'
``pmxcfs/database.c`` for its one table), which holds the guests of every node of a cluster. Read-only: the file and
its write-ahead log are copied, and the copy is opened.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import sqlite3
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from recovery.capture.hypervisors import Proxmox
from recovery.capture.tree import Tree
from recovery.capture.vms import FindDisk, states_here
from recovery.guestconf import current, options
from recovery.layout import VirtualMachine, VmDisk
from recovery.units import MIB

DATABASE = "/var/lib/pve-cluster/config.db"
#: Proxmox lets it hold 128 MiB.
_LARGEST = 256 * MIB
_GUEST = re.compile(r"nodes/([^/]+)/(qemu-server|lxc)/(\d+)\.conf")
_VM_DISK = re.compile(r"(?:scsi|virtio|sata|ide|efidisk|tpmstate)\d+")
_CONTAINER_DISK = re.compile(r"rootfs|mp\d+")
#: Storages whose volumes are files below a path of the host's own disks.
_FOLDERS = ("dir", "btrfs")


@dataclass(frozen=True)
class Storage:
    """A section of ``storage.cfg``: ``kind`` is its type (``lvmthin``)."""

    kind: str
    words: Mapping[str, str] = field(default_factory=dict)


def read_guests(tree: Tree, find_disk: FindDisk) -> tuple[list[VirtualMachine], list[str]]:
    """The guests of this node, by number, and a sentence for what cannot be read. Empty where there is no Proxmox."""
    if not tree.size(DATABASE):
        return [], []
    try:
        files = _files(tree)
    except (OSError, sqlite3.Error, ValueError, TypeError) as error:
        return [], [f"The guests of Proxmox in {DATABASE} cannot be read: {error}."]
    nodes = {name for path in files if (name := path.removeprefix("nodes/")) != path and "/" not in name}
    own = tree.text("/etc/hostname").strip().partition(".")[0]
    node = next(iter(nodes)) if len(nodes) == 1 else own
    if nodes and node not in nodes:
        return [], [f"Which of the Proxmox nodes {', '.join(sorted(nodes))} this host ('{own}') is is not known: "
                    "its guests are not in the point's list."]  # fmt: skip
    storages = parse_storages(files.get("storage.cfg", ""))
    states, problems = states_here(tree, Proxmox())
    found: list[tuple[int, VirtualMachine]] = []
    for path, text in files.items():
        match = _GUEST.fullmatch(path)
        if match and match[1] == node:
            guest = parse_guest(int(match[3]), text, storages, find_disk, container=match[2] == "lxc")
            state = states.get(guest.name, "unknown") if guest.manager == "proxmox" else "unknown"
            found.append((int(match[3]), msgspec.structs.replace(guest, state=state)))
    return [guest for _, guest in sorted(found, key=lambda pair: pair[0])], problems


def _files(tree: Tree) -> dict[str, str]:
    """Path below ``/etc/pve`` -> text, of the files that are looked at; the nodes' folders too. Raises OSError,
    sqlite3.Error, and ValueError or TypeError for a table of another kind."""
    with tempfile.TemporaryDirectory(prefix="rekindle-pve-") as folder:
        copy = Path(folder) / "config.db"
        for suffix in ("", "-wal"):
            located = tree.locate(DATABASE + suffix)
            if located is None:
                continue
            facts = located.here.lstat()
            if not stat.S_ISREG(facts.st_mode) or facts.st_size > _LARGEST:
                raise OSError(f"'{located.path}' is no file that Proxmox makes")
            shutil.copyfile(located.here, f"{copy}{suffix}")
        with contextlib.closing(sqlite3.connect(copy)) as database:
            # What a captured disk holds is not trusted: its schema calls nothing.
            database.execute("PRAGMA trusted_schema = OFF")
            # Nor is a view run, which may never end.
            kind = database.execute("SELECT type FROM sqlite_master WHERE name = 'tree'").fetchone()
            if kind != ("table",):
                raise ValueError("it has no table of files")
            rows = database.execute("SELECT inode, parent, name, data FROM tree WHERE inode != 0").fetchall()
    places = {int(inode): (int(parent), str(name)) for inode, parent, name, _ in rows}
    found = {}
    for inode, _, _, data in rows:
        path = _path(int(inode), places)
        if path == "storage.cfg" or _GUEST.fullmatch(path) or re.fullmatch(r"nodes/[^/]+", path):
            found[path] = data.decode("utf-8", "replace") if isinstance(data, bytes) else ""
    return found


def _path(inode: int, places: Mapping[int, tuple[int, str]]) -> str:
    names: list[str] = []
    while inode in places and len(names) < 16:  # a damaged table may go in circles
        inode, name = places[inode]
        names.append(name)
    return "/".join(reversed(names))


def parse_storages(text: str) -> dict[str, Storage]:
    """``storage.cfg``: name -> storage. ``local`` is there also where the file does not say so. Pure."""
    found = {"local": Storage("dir", {"path": "/var/lib/vz"})}
    words: dict[str, str] = {}
    for line in text.splitlines():
        if match := re.fullmatch(r"([a-z]+):\s*(\S+)\s*", line):
            words = {}
            found[match[2]] = Storage(match[1], words)
        elif line[:1].isspace() and line.strip():
            key, _, value = line.strip().partition(" ")
            words[key] = value.strip()
    return found


def parse_guest(
    number: int, text: str, storages: Mapping[str, Storage], find_disk: FindDisk, *, container: bool
) -> VirtualMachine:
    """A guest from its configuration. Its name is ``100-web``: Proxmox' own names need not differ. Pure."""
    facts = current(text)
    disks = []
    for key, value in facts.items():
        if (_CONTAINER_DISK if container else _VM_DISK).fullmatch(key):
            disk = _disk(key, value, storages)
            if disk is not None:
                on, size = find_disk(disk.source, disk.format)
                disks.append(VmDisk(target=key, source=disk.source, format=disk.format, on=on, size=size))
    identity = options(facts.get("smbios1", "")).get("uuid", "")
    name = facts.get("hostname" if container else "name", "")
    cores = _number(facts.get("cores", ""), 1) * (1 if container else _number(facts.get("sockets", ""), 1))
    return VirtualMachine(
        name=f"{number}-{name}" if name else str(number),
        uuid=identity,
        memory=_number(options(facts.get("memory", ""), "current").get("current", ""), 512) * MIB,
        vcpus=cores,
        autostart=facts.get("onboot") == "1",
        disks=tuple(disks),
        definition=text,
        manager="proxmox-container" if container else "proxmox",
    )


def _disk(target: str, value: str, storages: Mapping[str, Storage]) -> VmDisk | None:
    """Where a disk lies on the host; of a storage elsewhere the volume's own name. None for what is no disk."""
    words = options(value, "volume")
    volume = words.get("volume", words.get("file", ""))
    if volume in ("", "none", "cdrom") or words.get("media") == "cdrom":
        return None
    if volume.startswith("/"):
        # A device handed through; of a container a folder of the host.
        return VmDisk(target=target, source=volume) if volume.startswith("/dev/") else None
    name, _, inside = volume.partition(":")
    storage = storages.get(name, Storage(""))
    # A linked clone names its base first: base-9-disk-0.qcow2/100/vm-100-disk-0.qcow2.
    inside = "/".join(inside.split("/")[-2:])
    kind = re.search(r"\.(qcow2|raw|vmdk|subvol)$", inside)
    form = kind[1] if kind else "raw"
    if storage.kind == "btrfs" and form == "raw":
        inside = f"{inside.removesuffix('.raw')}/disk.raw"
    if storage.kind in _FOLDERS and storage.words.get("path"):
        return VmDisk(target=target, source=f"{storage.words['path'].rstrip('/')}/images/{inside}", format=form)
    if storage.kind in ("lvm", "lvmthin") and storage.words.get("vgname"):
        return VmDisk(target=target, source=f"/dev/{storage.words['vgname']}/{inside}")
    if storage.kind == "zfspool" and storage.words.get("pool"):
        return VmDisk(target=target, source=f"/dev/zvol/{storage.words['pool']}/{inside}")
    return VmDisk(target=target, source=volume, format=form)


def _number(text: str, default: int) -> int:
    return int(text) if re.fullmatch(r"[0-9]{1,9}", text) else default
