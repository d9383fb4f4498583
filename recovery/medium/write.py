"""Write a medium to a stick or disk: which drive may be taken, the writing, and the reading back.

The rules for the drive are those of a restore (``plan.checks.check_target``), and one more: a drive that is not
removable is taken only when it is named by its serial number, because nobody keeps a medium on a built-in disk.
"""

from __future__ import annotations

import hashlib
import mmap
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from recovery.commands import run
from recovery.errors import CancelledError, IntegrityError, NotFoundError, UnsafeTargetError
from recovery.events import Listener, Progress
from recovery.format.point import PointDisk
from recovery.machine.model import Disk, Machine
from recovery.machine.probe_busy import MEDIUM_MOUNTS, MEDIUM_REASONS
from recovery.machine.probe_disks import read_text
from recovery.plan.checks import check_target
from recovery.plan.model import Problem
from recovery.plan.names import short_name
from recovery.restore.target import Target
from recovery.units import MIB, format_size

#: Bytes written and read at once: a stick writes its erase blocks of up to 4 MiB whole.
_STEP = 4 * 1024 * 1024
#: Written last, so that an unfinished medium does not start: boot sector, partition table, volume descriptor.
_HEAD = 1024 * 1024
#: Where the second GPT of what was on the drive before may lie: its last 33 sectors of 4096 bytes at most.
_TAIL = 1024 * 1024


def find_drive(machine: Machine, name: str) -> Disk:
    """The drive called ``name``: a path (also a link such as /dev/disk/by-id/...), an id, or a serial number.

    Raises NotFoundError, UnsafeTargetError when several have that serial number.
    """
    path = str(Path(name).resolve()) if name.startswith("/dev/") else name
    by_serial = [disk for disk in machine.disks if disk.serial and disk.serial == name]
    if len(by_serial) > 1:
        raise UnsafeTargetError(
            f"{len(by_serial)} drives have the serial number {name}.", hint="Name the drive by its path, /dev/..."
        )
    disk = by_serial[0] if by_serial else machine.disk(path)
    if disk is None:
        owner = next((d for d in machine.disks if path.startswith(d.path) and d.path != path), None)
        if owner:
            raise UnsafeTargetError(
                f"'{name}' is a partition; a medium takes the whole drive.", hint=f"Name the drive: {owner.path}"
            )
        raise NotFoundError(f"There is no drive '{name}'.", hint="'rekindle machine' and 'lsblk' list the drives.")
    return disk


def problems(drive: Disk, machine: Machine, size: int, *, serial: str = "", on_medium: bool) -> list[Problem]:
    """Everything that forbids writing a medium of ``size`` bytes to the drive, and what would be lost. Pure.

    ``serial`` is what the operator named a drive that is not removable by. ``on_medium``: the running system was
    started from a medium (``runs_from_medium``); elsewhere an older medium in the drive is only that.
    """
    if not on_medium and drive.boot_medium:
        busy = tuple(reason for reason in drive.busy if reason not in MEDIUM_REASONS)
        drive = msgspec.structs.replace(drive, boot_medium=False, busy=busy)
    source = PointDisk(name="the medium", size=size, sector_size=512, chunk_size=MIB, root="")
    found = list(check_target(source, drive, machine))
    removable = drive.removable or drive.bus in ("usb", "mmc")
    if not removable and serial != drive.confirmation:
        what = "serial number" if drive.serial else "size in bytes"
        alone = all(problem.severity != "error" for problem in found)
        found.insert(0, Problem(
            severity="error",
            code="target-not-removable",
            what=f"{short_name(drive)} is not a removable drive.",
            why="A medium is written to a stick; a built-in disk holds a system or its data.",
            todo=f"If you mean this one, say so by its {what}: --serial {drive.confirmation}" if alone else "",
        ))  # fmt: skip
    return found


def runs_from_medium(procfs: Path = Path("/proc"), root: Path = Path("/")) -> bool:
    """The running system is a live system, ours or another's."""
    points = (line.split()[1] for line in read_text(procfs / "mounts").splitlines() if line)
    return (root / "etc/rekindle/medium.json").exists() or any(point.startswith(MEDIUM_MOUNTS) for point in points)


def refuse(found: list[Problem]) -> None:
    """Raises UnsafeTargetError with every reason that forbids it."""
    errors = [problem for problem in found if problem.severity == "error"]
    if errors:
        raise UnsafeTargetError(
            " ".join(f"{p.what} {p.why}".strip() for p in errors) + " Nothing was written.",
            hint=" ".join(p.todo for p in errors if p.todo),
        )


def check_same(before: Disk, machine: Machine) -> None:
    """The drive is still the one that was confirmed, with the same content. Raises UnsafeTargetError."""
    if machine.disk(before.id) != before:
        raise UnsafeTargetError(
            f"{before.path} is not the drive that was confirmed any more, or what lies on it has changed. "
            "Nothing was written.",
            hint="Start again, and look at what is there now.",
        )


def write_medium(image: Path, drive: str, listener: Listener, cancelled: Callable[[], bool] = lambda: False) -> None:
    """Write ``image`` to the device ``drive`` past the cache, and read all of it back.

    Raises BusyError (something holds the drive), UnsafeTargetError (too small), IntegrityError (it does not give back
    what was written), DeviceError, CancelledError. A drive that was not finished does not start.
    """
    size = image.stat().st_size
    with Target(drive, size) as target, image.open("rb") as source:
        # Nothing of what was there before may be taken for what is there now.
        target.zero(0, min(_HEAD, target.size))
        if target.size - size >= _TAIL:
            target.zero(target.size - _TAIL, _TAIL)
        target.sync()
        digests: dict[int, bytes] = {}
        buffer = memoryview(mmap.mmap(-1, _STEP))
        offsets = [*range(_HEAD, size, _STEP), 0]
        tell = _Teller("write", size, listener)
        for offset in offsets:
            _stop_if(cancelled, "The medium was not written whole; it does not start.")
            length = min(_STEP if offset else _HEAD, size - offset)
            piece = buffer[:length]
            source.seek(offset)
            if source.readinto(piece) != length:
                raise IntegrityError(f"'{image}' became shorter while it was read.", hint="Write it again.")
            if offset == 0:
                target.sync()
            target.write(offset, piece)
            digests[offset] = hashlib.sha256(piece).digest()
            tell.add(length)
        target.sync()
        tell = _Teller("read-back", size, listener)
        for offset in sorted(digests):
            _stop_if(cancelled, "The medium was written, but not all of it was read back.")
            length = min(_STEP if offset else _HEAD, size - offset)
            piece = buffer[:length]
            target.read(offset, piece)
            if hashlib.sha256(piece).digest() != digests[offset]:
                raise IntegrityError(
                    f"{drive} does not give back what was written at byte {offset}: the stick is failing or a fake.",
                    hint="Take another stick. This one must not be relied on.",
                )
            tell.add(length)
    # So that the new partitions and label are seen; the medium is whole whether they are or not.
    run(["blockdev", "--rereadpt", drive], check=False, timeout=60)


def _stop_if(cancelled: Callable[[], bool], what: str) -> None:
    if cancelled():
        raise CancelledError(what, hint="Start again with the same words.")


class _Teller:
    def __init__(self, step: str, total: int, listener: Listener) -> None:
        self._step, self._total, self._listener = step, total, listener
        self._done, self._start = 0, time.monotonic()

    def add(self, length: int) -> None:
        self._done += length
        rate = self._done / max(time.monotonic() - self._start, 0.001)
        left = (self._total - self._done) / rate if rate else None
        self._listener(Progress(step=self._step, done=self._done, total=self._total, rate=rate, eta=left))


def describe(image: Path) -> str:
    """``rekindle.iso, 221 MiB``."""
    return f"{image.name}, {format_size(image.stat().st_size)}"
