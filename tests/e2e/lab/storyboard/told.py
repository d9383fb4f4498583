"""What the writer of stamped records told us over the network: which were safe, and when, by its clock and by ours.

So nothing about the end is known from the host's own disk.
"""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path
from typing import NamedTuple

#: Seconds between two looks whether it was closed.
_LOOK = 0.5


class Safe(NamedTuple):
    """A record was safe at ``there`` on the host's clock; ``here`` is when we heard of it, on ours."""

    there: float
    here: float


class Listener:
    """Hears one writer, on a port of our loopback; QEMU's guests reach it at 10.0.2.2."""

    def __init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self._server.settimeout(_LOOK)
        self.port = int(self._server.getsockname()[1])
        self._closed = threading.Event()
        self._records: list[Safe] = []
        self._thread = threading.Thread(target=self._listen, name="told", daemon=True)
        self._thread.start()

    @property
    def records(self) -> list[Safe]:
        """By number."""
        return list(self._records)

    def close(self) -> None:
        """Hear no more."""
        self._closed.set()
        self._thread.join(10)
        self._server.close()

    def write(self, path: Path) -> None:
        """Keep what was heard, one line a record: its number, its time there, ours."""
        lines = (f"{number} {safe.there:.6f} {safe.here:.6f}\n" for number, safe in enumerate(self._records))
        path.write_text("".join(lines))

    def _listen(self) -> None:
        while not self._closed.is_set():
            try:
                connection = self._server.accept()[0]
            except TimeoutError:
                continue
            with connection:
                connection.settimeout(_LOOK)
                self._hear(connection)

    def _hear(self, connection: socket.socket) -> None:
        rest = b""
        while not self._closed.is_set():
            try:
                data = connection.recv(4096)
            except TimeoutError:
                continue
            except OSError:
                return
            if not data:
                return
            *lines, rest = (rest + data).split(b"\n")
            self._records += [Safe(float(line.split()[1]), time.time()) for line in lines]


def lag_of(cut: float, records: list[Safe], count: int) -> float:
    """Seconds from the last of ``count`` records that came back to the power cut at ``cut``, by our clock. Pure.

    A record may have come back that we had not heard of yet; then it is the last that we had, and the lag is less.
    Raises ValueError when none came back.
    """
    if not records or count < 1:
        raise ValueError("no record came back")
    return max(0.0, cut - records[min(count, len(records)) - 1].here)
