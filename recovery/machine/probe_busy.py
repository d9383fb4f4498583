"""Why a disk must not be written, in whole sentences, from lsblk's tree and the LVs that are open. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

#: Where live-boot, dracut and older live systems mount what they were booted from.
MEDIUM_MOUNTS = ("/run/live/", "/run/initramfs/live", "/lib/live/mount/", "/usr/lib/live/mount/", "/cdrom")
#: What the volume label of our own medium starts with; it tells the medium even when it was copied to memory.
MEDIUM_LABEL = "REKINDLE"
#: Why a disk with the label of our medium is busy: mounted as that, or only looking like it.
MEDIUM_REASONS = (
    "This is the medium that the running system was started from.",
    "This is a Rekindle medium, most likely the one that the running system was started from.",
)
#: Where the engine itself mounts, read-only, the filesystems it looks into.
OWN_MOUNTS = "/run/rekindle/"

Node = Mapping[str, Any]


def walk(node: Node) -> Iterator[Node]:
    """The node of lsblk's tree and all below it."""
    yield node
    for child in node.get("children") or ():
        yield from walk(child)


def mountpoints(node: Node) -> list[str]:
    """Where it is mounted; ``[SWAP]`` for swap in use."""
    points = node.get("mountpoints") or [node.get("mountpoint")]
    return [point for point in points if point]


def is_boot_medium(disk: Node) -> bool:
    """The running system was booted from this disk (a stick or a CD image), even when it was copied to memory."""
    for node in walk(disk):
        if any(point.startswith(MEDIUM_MOUNTS) for point in mountpoints(node)):
            return True
        if node.get("fstype") == "iso9660" and str(node.get("label") or "").upper().startswith(MEDIUM_LABEL):
            return True
    return False


def _called(node: Node) -> str:
    kind, path = node.get("type"), str(node.get("path") or node.get("name"))
    if kind == "lvm":
        return f"The logical volume {path}"
    if str(kind).startswith("raid"):
        return f"The array {path}"
    return path


def busy_reasons(disk: Node, *, open_volumes: Collection[str] = (), repository: str = "") -> tuple[str, ...]:
    """Every reason. ``open_volumes`` are device-mapper names of open LVs (``vg0-data``).

    An LV or an array that is only active is not busy: the engine deactivates it before the first write.
    """
    reasons = []
    if is_boot_medium(disk):
        reasons.append(MEDIUM_REASONS[0])
    if repository:
        reasons.append(f"It holds the backup repository {repository[:16]}.")
    for node in walk(disk):
        points = mountpoints(node)
        foreign = [p for p in points if p != "[SWAP]" and not p.startswith((*MEDIUM_MOUNTS, OWN_MOUNTS))]
        if "[SWAP]" in points:
            reasons.append(f"{_called(node)} is in use as swap space.")
        if foreign:
            reasons.append(f"{_called(node)} is mounted at {' and '.join(foreign)}.")
        kind = node.get("type")
        if kind == "crypt":
            reasons.append(f"The encrypted volume {node.get('path')} on it is open.")
        if kind == "mpath":
            reasons.append(f"It is a path of the multipath device {node.get('path')}.")
        if kind == "lvm" and not points and node.get("name") in open_volumes:
            reasons.append(f"The logical volume {node.get('path')} on it is open, perhaps by a virtual machine.")
    return tuple(dict.fromkeys(reasons))
