"""A network that can be cut, or slow: TCP connections go through it until it is cut, and all of them end then."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

#: Bytes passed on at once.
_PIECE = 65536
#: Seconds between two looks whether it was closed.
_LOOK = 0.2


class Relay:
    """Listens on ``port`` of our loopback and passes on to ``target`` (another port) as long as it is whole."""

    def __init__(self, port: int, target: int) -> None:
        self.port, self._target = port, target
        #: Bytes a second of each connection and direction; 0: as many as there are.
        self.rate = 0
        self._whole = threading.Event()
        self._whole.set()
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", port))
        self._listener.settimeout(_LOOK)
        self._thread = threading.Thread(target=self._accept, name="relay", daemon=True)
        self._thread.start()

    def cut(self) -> None:
        """Connections are reset, new ones too, until ``mend``."""
        self._whole.clear()
        with self._lock:
            ends = list(self._open)
        for end in ends:
            _reset(end)

    def mend(self) -> None:
        """It is whole again."""
        self._whole.set()

    def close(self) -> None:
        """End it."""
        self._closed.set()
        self.cut()
        self._thread.join(10)
        self._listener.close()

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                near = self._listener.accept()[0]
            except TimeoutError:
                continue
            try:
                if not self._whole.is_set():
                    raise ConnectionError("cut")
                far = socket.create_connection(("127.0.0.1", self._target), 10)
            except OSError:
                _reset(near)
                continue
            far.settimeout(None)
            with self._lock:
                self._open |= {near, far}
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self._pass_on, args=(one, other), daemon=True).start()
            if not self._whole.is_set():  # it was cut while this one came up
                _reset(near)
                _reset(far)

    def _pass_on(self, one: socket.socket, other: socket.socket) -> None:
        try:
            while data := one.recv(_PIECE):
                other.sendall(data)
                if self.rate:
                    time.sleep(len(data) / self.rate)
            other.shutdown(socket.SHUT_WR)
        except OSError:
            _reset(one)
            _reset(other)
        with self._lock:
            self._open.discard(one)


def _reset(connection: socket.socket) -> None:
    """Both sides of it hear that it is over, threads that wait for it included."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
