"""QEMU's control socket (QMP): one JSON object a line, one answer a command, events in between."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


class QmpError(OSError):
    """QEMU refused a command, or its control socket closed."""


def connect(path: Path, alive: Callable[[], bool], timeout: float = 60.0) -> socket.socket:
    """Connect to a socket that QEMU is about to make. Raises OSError when QEMU ends or takes too long."""
    deadline = time.monotonic() + timeout
    while True:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(str(path))
            return connection
        except OSError:
            connection.close()
            if not alive() or time.monotonic() > deadline:
                raise
            time.sleep(0.05)


class Qmp:
    """A connection to the control socket of a running QEMU. Use from one thread."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._socket.settimeout(60)
        self._file = self._socket.makefile("rwb")
        self.events: list[dict[str, Any]] = []
        self._read()  # the greeting
        self.command("qmp_capabilities")

    def _read(self) -> dict[str, Any]:
        line = self._file.readline()
        if not line:
            raise QmpError("QEMU closed its control socket.")
        message: dict[str, Any] = json.loads(line)
        return message

    def command(self, name: str, **arguments: object) -> Any:
        """Run a command and return its answer. Raises QmpError."""
        self._file.write(json.dumps({"execute": name, "arguments": arguments}).encode() + b"\n")
        self._file.flush()
        while True:
            message = self._read()
            if "event" in message:
                self.events.append(message)
            elif "error" in message:
                raise QmpError(f"{name}: {message['error']['desc']}")
            elif "return" in message:
                return message["return"]

    def close(self) -> None:
        """Let go of the socket; QEMU goes on."""
        self._file.close()
        self._socket.close()
