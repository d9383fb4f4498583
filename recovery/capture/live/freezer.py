"""The process that freezes filesystems and thaws them again, whatever becomes of the agent. Stands alone: no imports
of ours, so that it starts at once and holds nothing but what it needs.

Run as ``python -I -S freezer.py FD...``: descriptors of the filesystems, in the order of freezing; a socket is
descriptor 0. Lines come in: ``freeze SECONDS``, ``thaw``. Lines of JSON go out: ``ready``, ``frozen``, ``failed``,
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
import sys
import threading
import time
from pathlib import Path

# include/uapi/linux/fs.h: _IOWR('X', 119, int), _IOWR('X', 120, int)
FIFREEZE, FITHAW = 0xC0045877, 0xC0045878
_MCL_CURRENT_AND_FUTURE = 3
#: Filesystems without freezing say one of these.
_CANNOT = {errno.EOPNOTSUPP, errno.ENOTTY}


class Freezer:
    """The filesystems and which of them are frozen now."""

    def __init__(self, line: socket.socket, descriptors: list[int]) -> None:
        self._line = line
        self._descriptors = descriptors
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._over.set()
        self._since: dict[int, float] = {}
        self._lasted = [0.0] * len(descriptors)
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
            self._lasted = [0.0] * len(self._descriptors)
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
        for number, descriptor in enumerate(self._descriptors):
            if self._over.is_set():
                self._say(event="failed", number=number, errno=errno.ETIMEDOUT)
                return
            started = time.monotonic()
            try:
                fcntl.ioctl(descriptor, FIFREEZE, 0)
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
                    fcntl.ioctl(self._descriptors[number], FITHAW, 0)
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
    Freezer(socket.socket(fileno=0), [int(word) for word in sys.argv[1:]]).serve()


if __name__ == "__main__":
    main()
