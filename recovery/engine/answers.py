"""Where answers come from: the kernel's command line, and ``rekindle.toml`` on a volume labelled REKINDLE."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

from recovery.engine.api import FoundAnswers
from recovery.engine.local_repositories import MOUNTS, mount, unmount
from recovery.machine.probe_busy import mountpoints, walk
from recovery.machine.probe_disks import lsblk, read_text
from recovery.machine.probe_volumes import blkid
from recovery.plan.answers import own_words

log = logging.getLogger("rekindle.engine")

LABEL = "REKINDLE"
FILE = "rekindle.toml"
_LARGEST = 64 * 1024
#: What an operator's stick or virtual CD is formatted with; all of them are mounted read-only.
FILESYSTEMS = ("vfat", "exfat", "ntfs", "iso9660", "ext2", "ext3", "ext4", "xfs", "btrfs")


def find_answers(*, loops: bool = False, mounts: Path = MOUNTS, procfs: Path = Path("/proc")) -> FoundAnswers:
    """Look at the command line and at every volume with the label. Raises CommandError when lsblk fails."""
    found: dict[str, str] = {}
    problems = []
    for device, kind, places in _volumes(loops):
        try:
            text = _read(device, kind, places, mounts)
        except (OSError, UnicodeDecodeError) as error:
            problems.append(f"{FILE} on {device} cannot be read: {error}.")
            continue
        if text is not None:
            found[device] = text
    if len(found) > 1:
        problems.append(f"{FILE} lies on several volumes labelled {LABEL}: {', '.join(sorted(found))}.")
    source, text = next(iter(found.items()), ("", ""))
    return FoundAnswers(
        command_line=own_words(read_text(procfs / "cmdline")), text=text, source=source, problems=tuple(problems)
    )


def _volumes(loops: bool) -> Iterator[tuple[str, str, list[str]]]:
    """(device, filesystem, where it is mounted) of every volume with the label, also CDs: a BMC lends those."""
    for top in lsblk():
        if top.get("type") not in (("disk", "rom", "loop") if loops else ("disk", "rom")):
            continue
        for node in walk(top):
            path = str(node.get("path"))
            if node.get("children") or not int(node.get("size") or 0):
                continue
            content = blkid([path])
            if content.label.upper() == LABEL:
                yield path, content.kind, [place for place in mountpoints(node) if place.startswith("/")]


def _read(device: str, kind: str, places: list[str], mounts: Path) -> str | None:
    folder = Path(places[0]) if places else mounts / f"answers-{Path(device).name}"
    if not places and not (kind in FILESYSTEMS and mount(device, folder, kind)):
        raise OSError(f"the filesystem ({kind or 'unknown'}) cannot be mounted")
    try:
        file = folder / FILE
        if not file.exists():
            return None
        if not file.is_file() or file.is_symlink() or file.stat().st_size > _LARGEST:
            raise OSError("it is not a small ordinary file")
        return file.read_text(encoding="utf-8-sig")
    finally:
        if not places:
            unmount(folder)
