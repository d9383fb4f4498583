"""The process that freezes filesystems and thaws them again, whatever becomes of the agent. Stands alone: no imports
of ours, so that it starts at once and holds nothing but what it needs.

Run as ``python -I -S freezer.py FD... dm:MAJOR:MINOR...``: descriptors of filesystems, and volumes of device-mapper
that are written to directly (by VMs), which are suspended; in the order of freezing. A socket is descriptor 0. Lines
come in: ``freeze SECONDS``, ``thaw``. Lines of JSON go out: ``ready``, ``frozen``, ``failed``,
``thawed``. It thaws by itself after SECONDS, and at once when the other end of the socket is gone.
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
from pathlib import Path
from typing import Protocol

# include/uapi/linux/fs.h: _IOWR('X', 119, int), _IOWR('X', 120, int)
FIFREEZE, FITHAW = 0xC0045877, 0xC0045878
#: include/uapi/linux/dm-ioctl.h: _IOWR(0xfd, 7, struct dm_ioctl) and 6; the flag says suspended, or asks for it.
CONTROL, DM_STATUS, DM_SUSPEND, DM_SUSPENDED = "/dev/mapper/control", 0xC138FD07, 0xC138FD06, 1 << 1
#: version, data_size, data_start, target_count, open_count, flags, event_nr, padding, dev; then name and uuid, empty.
_DM = struct.Struct("<3I3IiIIIQ")
_DM_SIZE = 312
_MCL_CURRENT_AND_FUTURE = 3
#: Filesystems without freezing say one of these.
_CANNOT = {errno.EOPNOTSUPP, errno.ENOTTY}


class Held(Protocol):
    """What can be held still. Both raise OSError."""

    def hold(self) -> None:
        """Nothing is written to it from now on."""

    def release(self) -> None:
        """What was to be written is."""


class FrozenMount:
    """A filesystem by a descriptor on it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def hold(self) -> None:
        """Freeze it."""
        fcntl.ioctl(self._descriptor, FIFREEZE, 0)

    def release(self) -> None:
        """Thaw it; EINVAL when it is not frozen."""
        fcntl.ioctl(self._descriptor, FITHAW, 0)


class SuspendedVolume:
    """A volume of device-mapper: what is written to it waits; a filesystem on it, mounted where we can't see it, is
    frozen by the kernel."""

    def __init__(self, control: int, major: int, minor: int) -> None:
        self._control = control
        # linux/kdev_t.h, new_encode_dev().
        self._device = (minor & 0xFF) | major << 8 | (minor & ~0xFF) << 12

    def hold(self) -> None:
        """Suspend it; EBUSY when somebody else did: LVM does, and what it put there comes into force at a resume."""
        if self.status()[0]:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        self._ask(DM_SUSPEND, DM_SUSPENDED)

    def release(self) -> None:
        """Resume it."""
        if self.status()[0]:
            self._ask(DM_SUSPEND, 0)

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


class Freezer:
    """What is to be held still, and what of it is now."""

    def __init__(self, line: socket.socket, things: list[Held]) -> None:
        self._line = line
        self._things = things
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._over.set()
        self._since: dict[int, float] = {}
        self._lasted = [0.0] * len(things)
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
                data = self._line.recv(4096)
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
        if words and words[0] == "freeze" and len(words) == 2:
            self._expired = False
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
            self._say(event="thawed", expired=self._expired, milliseconds=[1000 * each for each in self._lasted])

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
                self._say(event="failed", number=number, errno=error.errno)
                return
            with self._lock:
                self._since[number] = started
                late = self._over.is_set()
            if late:
                self._thaw()
                self._say(event="failed", number=number, errno=errno.ETIMEDOUT)
                return
            how.append("frozen")
        self._say(event="frozen", how=how)

    def _thaw(self) -> None:
        """Thaw what is frozen, the last one first."""
        self._deadline = None
        with self._lock:
            self._over.set()
            for number in sorted(self._since, reverse=True):
                with contextlib.suppress(OSError):  # somebody else thawed it
                    self._things[number].release()
                self._lasted[number] = time.monotonic() - self._since.pop(number)

    def _say(self, **words: object) -> None:
        # The agent may be gone; then nobody needs to be told.
        with contextlib.suppress(OSError):
            self._line.sendall(json.dumps(words).encode() + b"\n")


def main() -> None:
    """Take no signal that could end us between freezing and thawing, and never wait for memory."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    ctypes.CDLL(None).mlockall(_MCL_CURRENT_AND_FUTURE)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("-1000")
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, -20)
    # Not to hold a folder of a filesystem as the current one.
    os.chdir("/proc")
    control = os.open(CONTROL, os.O_RDWR | os.O_CLOEXEC) if any(":" in word for word in sys.argv[1:]) else -1
    things: list[Held] = []
    for word in sys.argv[1:]:
        kind, _, device = word.partition(":")
        things.append(SuspendedVolume(control, *map(int, device.split(":"))) if device else FrozenMount(int(kind)))
    Freezer(socket.socket(fileno=0), things).serve()


if __name__ == "__main__":
    main()
