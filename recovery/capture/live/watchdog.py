"""Our end of the process that thaws guests whatever becomes of us (``guestkeeper``)."""

from __future__ import annotations

import contextlib
import json
import select
import socket
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from recovery.capture.live import guestkeeper

#: Seconds for it to start, and to end.
_START, _END = 30.0, 10.0


class Watchdog:
    """One for each freeze; those that still thaw what did not answer end by themselves."""

    def __init__(self) -> None:
        self._line: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._others: list[subprocess.Popen[bytes]] = []

    def start(self, thaws: Sequence[Sequence[str]], hold: float, late: float) -> bool:
        """Watch over guests, of which each has the command that thaws it; whether that is so. ``hold`` and ``late``:
        ``GuestLimits``."""
        words = [sys.executable, "-I", "-S", str(Path(guestkeeper.__file__).resolve()), str(hold), str(late)]
        try:
            self._line, theirs = socket.socketpair()
            with theirs:
                # Popen, not run(): it lives beside us. Its own session, so that no signal of a terminal ends it.
                self._process = subprocess.Popen(
                    [*words, json.dumps([list(each) for each in thaws])],
                    stdin=theirs.fileno(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                    start_new_session=True, cwd="/",
                )  # fmt: skip
            if select.select([self._line], [], [], _START)[0] and self._line.recv(64) == b"ready\n":
                return True
        except OSError:
            pass
        self.end(())
        return False

    def watch(self, numbers: Iterable[int]) -> None:
        """Only the guests with these numbers may be frozen: it does not touch the others."""
        self._say("watch", numbers)

    def end(self, left: Sequence[int]) -> None:
        """The freeze is over, and only these guests may be frozen still: it thaws those, and nobody waits for it."""
        self._say("left", left)
        if self._line is not None:
            self._line.close()
            self._line = None
        if self._process is not None:
            if not left:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(_END)
            self._others.append(self._process)
            self._process = None
        self._others = [process for process in self._others if process.poll() is None]

    def _say(self, word: str, numbers: Iterable[int]) -> None:
        if self._line is not None:
            with contextlib.suppress(OSError):
                self._line.sendall(" ".join([word, *map(str, numbers)]).encode() + b"\n")
