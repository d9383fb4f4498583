"""NTFS volumes of the restored disks: may they be written to, mounted for a moment, grown, begun elsewhere.

Whether a volume was left whole is judged twice: by its own structures, and by ntfs-3g, which writes to it. A volume
that was not is never written to: only Windows knows what waits in its log.
"""

from __future__ import annotations

import os
import stat
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from recovery.adapt.mount import place_to_mount
from recovery.commands import run
from recovery.errors import CommandError, DeviceError, IntegrityError
from recovery.units import MIB
from recovery.windows.ntfs import HIDDEN_AT, NtfsFacts, read_facts

#: What ``ntfs-3g.probe`` ends with (its manual, "EXIT CODES").
_PROBED = {
    13: "it is damaged",
    14: "a session of Windows sleeps in it (hibernation or fast start)",
    15: "it was not shut down: changes wait in its log",
}
#: ntfsresize moves parts of the table of files; on a slow disk with millions of files that takes a while.
_TIMEOUT = 3600
#: Seconds: what is left to be written by then is a few megabytes.
_LET_GO = 60.0


def facts_of(device: str) -> NtfsFacts:
    """Raises IntegrityError, DeviceError."""
    try:
        with Path(device).open("rb") as file:

            def read(offset: int, length: int) -> bytes:
                return os.pread(file.fileno(), length, offset)

            return read_facts(read)
    except OSError as error:
        raise DeviceError(
            f"{device} cannot be read: {error.strerror}.", hint="Check the disk and its cable; see 'dmesg'."
        ) from error


def why_not_writable(device: str, *, hibernated: bool = True) -> str:
    """Why only Windows may write to the volume, as a clause; empty when it was left whole. Without ``hibernated`` it
    does not matter that a session sleeps in it. Raises DeviceError, CommandError when ntfs-3g is not there."""
    try:
        facts = facts_of(device)
    except IntegrityError:
        return "it is damaged"
    if facts.unclean:
        return facts.unclean
    done = run(["ntfs-3g.probe", "--readwrite", device], check=False)
    if done or (done.returncode == 14 and not hibernated):
        return ""
    return _PROBED.get(done.returncode, f"ntfs-3g does not take it (exit code {done.returncode})")


@contextmanager
def ntfs_mounted(device: str, *, write: bool = False, options: str = "") -> Iterator[Path]:
    """The volume's files, read-only unless ``write``; written back and unmounted at the end. Raises CommandError."""
    # norecover: a log with changes in it is never thrown away.
    words = ",".join(filter(None, ("rw,norecover" if write else "ro", options)))
    try:
        with place_to_mount("ntfs") as folder:
            run(["mount", "-t", "ntfs-3g", "-o", words, device, folder])
            # ntfs-3g mounts what it may not write to all the same, for reading.
            if write and os.statvfs(folder).f_flag & os.ST_RDONLY:
                raise CommandError(
                    f"{device} (NTFS) can be mounted for reading only.",
                    hint="Start the host where it was, shut it down in full, and capture it again.",
                )
            yield folder
    finally:
        wait_until_let_go(device)


def wait_until_let_go(device: str, seconds: float = _LET_GO) -> bool:
    """Wait for ntfs-3g's process, which may outlive the unmount: until it has closed the device not all is written,
    and nobody else may mount or resize it. False when it did not within ``seconds``."""
    end = time.monotonic() + seconds
    number = Path(device).stat().st_rdev
    while any(_has_open(process, number) for process in Path("/proc").glob("[0-9]*")):
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def _has_open(process: Path, number: int) -> bool:
    """Whether this process is ntfs-3g and has the device of that number open."""
    try:
        if "ntfs" not in (process / "comm").read_text():
            return False
        return any(_number(descriptor) == number for descriptor in (process / "fd").iterdir())
    except OSError:
        return False  # it ended meanwhile


def _number(descriptor: Path) -> int:
    try:
        status = descriptor.stat()
    except OSError:
        return 0
    return status.st_rdev if stat.S_ISBLK(status.st_mode) else 0


def grow_ntfs(device: str) -> bool:
    """Grow an unmounted volume to its partition; False when it was as large already. Raises CommandError,
    IntegrityError, DeviceError. ntfsresize asks Windows to check the volume at its next start."""
    size = int(run(["blockdev", "--getsize64", device]).stdout)
    if not has_room(facts_of(device), size):
        return False
    if why := why_not_writable(device):
        raise CommandError(
            f"the NTFS volume on {device} is left as it is, because {why}.",
            hint="Let Windows start and shut down in full, then grow it there.",
        )
    # --check is quiet when all is well; --info and --no-action look at all of it, and change nothing.
    for words in (["--check"], ["--info"], ["--no-action", "--force"], ["--force"]):
        run(["ntfsresize", "--no-progress-bar", *words, device], timeout=_TIMEOUT)
    return True


def is_full(device: str) -> bool:
    """Whether the volume is as large as its partition; a damaged one is not. Raises CommandError, DeviceError."""
    try:
        return not has_room(facts_of(device), int(run(["blockdev", "--getsize64", device]).stdout))
    except IntegrityError:
        return False


def has_room(facts: NtfsFacts, size: int) -> bool:
    """Whether a partition of ``size`` bytes is larger than its volume by more than what every one is (the copy of its
    boot sector, the rest of a cluster). Pure."""
    return size - facts.size >= max(MIB, 2 * facts.cluster)


def moved_boot(head: bytes, old_start: int, start: int) -> bytes | None:
    """The boot sector of a volume that was moved from ``old_start`` to ``start`` of its disk (bytes): code of a BIOS
    finds the rest of Windows' loader by it. None when there is nothing to change: it is no NTFS, or it never said
    where it begins. Pure."""
    if head[3:11] != b"NTFS    ":
        return None
    sector = struct.unpack_from("<H", head, 0x0B)[0]
    hidden = struct.unpack_from("<I", head, HIDDEN_AT)[0]
    if not sector or hidden * sector != old_start or start // sector >= 2**32:
        return None
    return head[:HIDDEN_AT] + struct.pack("<I", start // sector) + head[HIDDEN_AT + 4 :]
