"""Is somebody writing to this disk or image? A capture of a disk that changes under it is no point in time.

Three witnesses: mounted filesystems and swap on the device, its partitions and what is stacked on them (LVM, loop);
programs that hold it open for writing (a running VM); and QEMU's own image lock (``qemu_export.probe_image``).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from recovery.errors import BusyError

_SYS_BLOCK = Path("/sys/dev/block")


@dataclass(frozen=True)
class Mount:
    """One line of mountinfo that matters here."""

    device: str
    source: str
    point: str
    read_only: bool
    kind: str = ""
    root: str = "/"
    """The folder within the filesystem that is mounted here; not ``/`` for binds and subvolumes."""


def parse_mountinfo(text: str) -> list[Mount]:
    """The mounts in ``/proc/self/mountinfo``; ``device`` is ``major:minor``."""
    mounts: list[Mount] = []
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        fields, rest = left.split(" "), right.split(" ")
        if len(fields) < 6 or len(rest) < 3:
            continue
        # Read-only means the superblock (the filesystem writes nothing), not one read-only bind of it.
        read_only = "ro" in rest[2].split(",")
        mounts.append(Mount(fields[2], _unescape(rest[1]), _unescape(fields[4]), read_only, rest[0], fields[3]))
    return mounts


def _unescape(text: str) -> str:
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, character)
    return text


def stacked_devices(numbers: str) -> Iterator[tuple[str, str]]:
    """``(major:minor, name)`` of a block device, its partitions, and everything stacked on them."""
    seen: set[str] = set()
    waiting = [_SYS_BLOCK / numbers]
    while waiting:
        folder = waiting.pop()
        try:
            number = (folder / "dev").read_text().strip()
        except OSError:
            continue
        if number in seen:
            continue
        seen.add(number)
        yield number, folder.resolve().name
        waiting += [part.parent for part in folder.resolve().glob("*/partition")]
        waiting += list((folder / "holders").glob("*"))


def loops_of(file: Path) -> list[str]:
    """``major:minor`` of the loop devices that lie on this file."""
    found: list[str] = []
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            if Path(backing.read_text().strip()) == file:
                found.append((backing.parent.parent / "dev").read_text().strip())
        except OSError:
            continue
    return found


def refuse_if_written(path: Path) -> None:
    """Raises BusyError when ``path`` (block device or file) is mounted read-write, swapped on or open for writing."""
    real = path.resolve()
    facts = real.stat()
    is_device = stat.S_ISBLK(facts.st_mode)
    roots = [f"{os.major(facts.st_rdev)}:{os.minor(facts.st_rdev)}"] if is_device else loops_of(real)
    devices = dict(pair for root in roots for pair in stacked_devices(root))
    _refuse_mounted(path, devices)
    _refuse_swap(path, devices)
    _refuse_open(path, facts, set(devices))


def _refuse_mounted(path: Path, devices: dict[str, str]) -> None:
    names = set(devices.values())
    for mount in parse_mountinfo(Path("/proc/self/mountinfo").read_text()):
        # btrfs shows an anonymous number, so the source's name counts too.
        ours = mount.device in devices or Path(mount.source).resolve().name in names
        if ours and not mount.read_only:
            raise BusyError(
                f"'{path}' is in use: its filesystem is mounted read-write on '{mount.point}'.",
                hint=f"Unmount it or remount it read-only (mount -o remount,ro {mount.point}), or capture a snapshot "
                "of it (LVM, qcow2 or storage snapshot) or the shut-down host from the rescue medium. A whole disk of "
                "the running host is captured with --live.",
            )


def _refuse_swap(path: Path, devices: dict[str, str]) -> None:
    names = set(devices.values())
    for line in Path("/proc/swaps").read_text().splitlines()[1:]:
        device = Path(line.split()[0]).resolve()
        if device.name in names or device == path.resolve():
            raise BusyError(f"'{path}' is in use: '{device}' is active swap.", hint=f"Run 'swapoff {device}' first.")


def _refuse_open(path: Path, facts: os.stat_result, devices: set[str]) -> None:
    for process in Path("/proc").glob("[0-9]*"):
        if process.name == str(os.getpid()):
            continue
        try:
            descriptors = list((process / "fd").iterdir())
        except OSError:
            continue
        for descriptor in descriptors:
            try:
                other = descriptor.stat()
                ours = (
                    f"{os.major(other.st_rdev)}:{os.minor(other.st_rdev)}" in devices
                    if stat.S_ISBLK(other.st_mode)
                    else (other.st_dev, other.st_ino) == (facts.st_dev, facts.st_ino) and stat.S_ISREG(other.st_mode)
                )
                if not ours or not _writable(process / "fdinfo" / descriptor.name):
                    continue
                name = (process / "comm").read_text().strip()
            except OSError:
                continue
            raise BusyError(
                f"'{path}' is in use: program '{name}' (process {process.name}) has it open for writing.",
                hint="Shut the VM or program down first, or capture a snapshot.",
            )


def _writable(fdinfo: Path) -> bool:
    for line in fdinfo.read_text().splitlines():
        if line.startswith("flags:"):
            return int(line.split()[1], 8) & os.O_ACCMODE != os.O_RDONLY
    return False
