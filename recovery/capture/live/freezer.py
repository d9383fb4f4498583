"""The process that freezes filesystems and thaws them again, whatever becomes of the agent. Stands alone: no imports
of ours, so that it starts at once and holds nothing but what it needs.

Run as ``python -I -S freezer.py FD...``: descriptors of the filesystems, in the order of freezing; a socket is
descriptor 0. Lines come in: ``freeze SECONDS WORD...``, ``thaw``. Lines of JSON go out: ``ready``, ``frozen``,
``failed``, ``thawed``. A word is what is held beside the filesystems, after them: ``lvm:GROUP``, LVM's lock of a
volume group, or ``dm:MAJOR:MINOR``, a volume of device-mapper that is written to directly (by a VM). All thaws by
itself after SECONDS, and at once when the other end of the socket is gone.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import select
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

# include/uapi/linux/fs.h: _IOWR('X', 119, int), _IOWR('X', 120, int)
FIFREEZE, FITHAW = 0xC0045877, 0xC0045878
#: include/uapi/linux/dm-ioctl.h: _IOWR(0xfd, 7, struct dm_ioctl) and 6; the flag says suspended, or asks for it.
CONTROL, DM_STATUS, DM_SUSPEND, DM_SUSPENDED, DM_INACTIVE = "/dev/mapper/control", 0xC138FD07, 0xC138FD06, 2, 64
#: version, data_size, data_start, target_count, open_count, flags, event_nr, padding, dev; then name and uuid, empty.
_DM = struct.Struct("<3I3IiIIIQ")
_DM_SIZE = 312
_MCL_CURRENT_AND_FUTURE = 3
#: Filesystems without freezing say one of these, and a volume that is gone.
_CANNOT = {errno.EOPNOTSUPP, errno.ENOTTY, errno.ENXIO}
#: Tries of a resume that fails, and seconds between two of them.
_RESUMES, _PAUSE = 40, 0.05
#: Where LVM keeps its locks (lvm.conf, ``locking_dir``), and tries for one whose file is removed meanwhile.
LOCKS, _LOCKINGS = "/run/lock/lvm", 20


class Held(Protocol):
    """What can be held still. ``hold`` and ``release`` raise OSError."""

    #: What is released first, when all must go on: filesystems wait for nobody.
    rank: int

    def hold(self) -> None:
        """Nothing is written to it from now on."""

    def release(self) -> None:
        """What was to be written is."""


class FrozenMount:
    """A filesystem by a descriptor on it."""

    rank = 0

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def hold(self) -> None:
        """Freeze it."""
        fcntl.ioctl(self._descriptor, FIFREEZE, 0)

    def release(self) -> None:
        """Thaw it. Somebody else may have done so."""
        with contextlib.suppress(OSError):
            fcntl.ioctl(self._descriptor, FITHAW, 0)


class SuspendedVolume:
    """A volume of device-mapper: what is written to it waits; a filesystem on it, mounted where we can't see it, is
    frozen by the kernel."""

    rank = 1

    def __init__(self, control: int, major: int, minor: int) -> None:
        self._control = control
        # linux/kdev_t.h, new_encode_dev().
        self._device = (minor & 0xFF) | major << 8 | (minor & ~0xFF) << 12

    def hold(self) -> None:
        """Suspend it; EBUSY when somebody else did, or has put something there that a resume would bring into force.
        ENXIO when it is gone: then nobody writes to it."""
        flags, _ = self._ask(DM_STATUS, 0)
        if flags & (DM_SUSPENDED | DM_INACTIVE):
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        self._ask(DM_SUSPEND, DM_SUSPENDED)

    def release(self) -> None:
        """Resume it, if it is suspended; a resume that fails is tried again for a while."""
        for number in range(_RESUMES):
            try:
                if self.status()[0]:
                    self._ask(DM_SUSPEND, 0)
                return
            except OSError as error:
                if error.errno == errno.ENXIO:
                    return
                if number == _RESUMES - 1:
                    raise
                time.sleep(_PAUSE)

    def status(self) -> tuple[bool, int]:
        """Whether it is suspended, and how often it is open."""
        flags, opened = self._ask(DM_STATUS, 0)
        return bool(flags & DM_SUSPENDED), opened

    def _ask(self, code: int, flags: int) -> tuple[int, int]:
        data = bytearray(_DM_SIZE)
        _DM.pack_into(data, 0, 4, 0, 0, _DM_SIZE, 0, 0, 0, flags, 0, 0, self._device)
        fcntl.ioctl(self._control, code, data)
        facts = _DM.unpack_from(data)
        return facts[7], facts[6]


class LockedGroup:
    """LVM's own lock of a volume group, shared: LVM changes nothing of it while we have it, but waits; when LVM is at
    work, EBUSY. It takes a suspended volume for one that it suspended itself."""

    rank = 2

    def __init__(self, group: str) -> None:
        self._path = f"{LOCKS}/V_{group}"
        self._file = -1

    def hold(self) -> None:
        """Take the lock. Whoever lets go of it removes its file, so it must be the one that has that name still."""
        for _ in range(_LOCKINGS):
            try:
                file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except FileNotFoundError:
                return  # this LVM keeps its locks elsewhere, or has none
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                mine, named = os.fstat(file), Path(self._path).stat()
                if (mine.st_dev, mine.st_ino) == (named.st_dev, named.st_ino):
                    self._file = file
                    return
            except FileNotFoundError:
                pass
            except BlockingIOError as error:
                os.close(file)
                raise OSError(errno.EBUSY, os.strerror(errno.EBUSY)) from error
            os.close(file)
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    def release(self) -> None:
        """Let go of it."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


class Freezer:
    """What is held still, and when it is over."""

    def __init__(self, line: socket.socket, mounts: list[Held], make: Callable[[str], Held]) -> None:
        """``mounts`` are frozen each time; ``make`` gives what a word of ``freeze`` names beside them."""
        self._line, self._mounts, self._make = line, mounts, make
        self._things: list[Held] = []
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._over.set()
        self._since: dict[int, float] = {}
        self._lasted: list[float] = []
        self._stuck: list[int] = []
        self._thread: threading.Thread | None = None
        self._deadline: float | None = None
        self._expired = False

    def serve(self) -> None:
        """Obey until the other end is gone."""
        self._say(event="ready")
        buffer = b""
        while True:
            left = None if self._deadline is None else max(0.0, self._deadline - time.monotonic())
            readable, _, _ = select.select([self._line], [], [], left)
            if not readable:
                self._expired = True
                self._thaw()
                continue
            try:
                data = self._line.recv(65536)
            except OSError:
                data = b""
            if not data:
                self._thaw()
                if self._thread is not None:
                    self._thread.join()
                return
            buffer += data
            while b"\n" in buffer:
                words, _, buffer = buffer.partition(b"\n")
                self._obey(words.decode().split())

    def _obey(self, words: list[str]) -> None:
        if words and words[0] == "freeze" and len(words) >= 2:
            self._things = [*self._mounts, *map(self._make, words[2:])]
            self._expired, self._stuck = False, []
            self._lasted = [0.0] * len(self._things)
            self._deadline = time.monotonic() + float(words[1])
            self._over.clear()
            # In a thread: while one filesystem takes long to freeze, those frozen before must be thawed in time.
            self._thread = threading.Thread(target=self._freeze, daemon=True)
            self._thread.start()
        elif words == ["thaw"]:
            self._thaw()
            if self._thread is not None:
                self._thread.join()
            lasted = [1000 * each for each in self._lasted]
            self._say(event="thawed", expired=self._expired, stuck=self._stuck, milliseconds=lasted)

    def _freeze(self) -> None:
        how: list[str] = []
        for number, thing in enumerate(self._things):
            if self._over.is_set():
                self._say(event="failed", number=number, errno=errno.ETIMEDOUT)
                return
            started = time.monotonic()
            try:
                thing.hold()
            except OSError as error:
                if error.errno in _CANNOT:
                    how.append("still")
                    continue
                self._thaw()
                # Interrupted: the time was over, and it waited for what the disk did not do.
                code = errno.ETIMEDOUT if error.errno == errno.EINTR else error.errno
                self._say(event="failed", number=number, errno=code)
                return
            with self._lock:
                late = self._over.is_set()
                if not late:
                    self._since[number] = started
            if late:
                # Here and at once: a thin volume's resume waits for that of its pool, which may be this one.
                self._release(number, started)
                self._say(event="failed", number=number, errno=errno.ETIMEDOUT)
                return
            how.append("frozen")
        self._say(event="frozen", how=how)

    def _thaw(self) -> None:
        """Release what is held: filesystems first, then volumes, each kind's last one first."""
        self._deadline = None
        with self._lock:
            self._over.set()
            held, self._since = self._since, {}
        thread = self._thread
        # A suspend that waits for a disk that does not answer ends with EINTR, and is undone by the kernel.
        if thread is not None and thread is not threading.current_thread() and thread.ident and thread.is_alive():
            with contextlib.suppress(ProcessLookupError):
                signal.pthread_kill(thread.ident, signal.SIGUSR1)
        for number in sorted(held, key=lambda number: (self._things[number].rank, -number)):
            self._release(number, held[number])

    def _release(self, number: int, started: float) -> None:
        try:
            self._things[number].release()
        except OSError:
            self._stuck.append(number)
        self._lasted[number] = time.monotonic() - started

    def _say(self, **words: object) -> None:
        # The agent may be gone; then nobody needs to be told.
        with contextlib.suppress(OSError):
            self._line.sendall(json.dumps(words).encode() + b"\n")


def main() -> None:
    """Take no signal that could end us between freezing and thawing, and never wait for memory."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, lambda number, frame: None)
    ctypes.CDLL(None).mlockall(_MCL_CURRENT_AND_FUTURE)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("-1000")
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, -20)
    # Not to hold a folder of a filesystem as the current one.
    os.chdir("/proc")
    control = -1
    with contextlib.suppress(OSError):  # no device-mapper: then nobody names a volume of it
        control = os.open(CONTROL, os.O_RDWR | os.O_CLOEXEC)

    def make(word: str) -> Held:
        kind, *name = word.split(":")
        return LockedGroup(name[0]) if kind == "lvm" else SuspendedVolume(control, int(name[0]), int(name[1]))

    Freezer(socket.socket(fileno=0), [FrozenMount(int(word)) for word in sys.argv[1:]], make).serve()


if __name__ == "__main__":
    main()
