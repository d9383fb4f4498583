"""Windows and the engine as processes: a console on a terminal of its own, and the service it speaks to."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import termios
import threading
import time
from pathlib import Path

from recovery.engine.client import EngineClient
from tests.support.processes import environment, rekindle

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][0-9A-Z]|\x1b.")


class Console:
    """``rekindle tui`` on a terminal of its own; ``text`` is everything it drew, without colours and positions."""

    def __init__(self, socket: Path, folder: Path, *, term: str = "linux", rows: int = 25, columns: int = 80) -> None:
        self._master, follower = pty.openpty()
        fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.process = subprocess.Popen(
            rekindle("tui", "--socket", str(socket)), stdin=follower, stdout=follower, stderr=follower,
            start_new_session=True, env=environment(folder) | {"TERM": term, "LC_ALL": "C.UTF-8"},
            # As a login does it: when this test ends before its time, the hangup ends the console too.
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        os.close(follower)
        self._drawn = bytearray()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        while True:
            try:
                self._drawn += os.read(self._master, 65536)
            except OSError:
                return

    @property
    def text(self) -> str:
        return _CONTROL.sub(" ", bytes(self._drawn).decode(errors="replace"))

    def wait_for(self, pattern: str, seconds: float = 60.0) -> str:
        """Until it has drawn that; ``pattern`` may be separated by any white space."""
        deadline = time.monotonic() + seconds
        while not re.search(pattern.replace(" ", r"\s+"), self.text):
            assert self.process.poll() is None, f"the console ended: {self.text[-2000:]}"
            assert time.monotonic() < deadline, f"no {pattern!r} in: {self.text[-3000:]}"
            time.sleep(0.05)
        return self.text

    @property
    def drawn(self) -> bytes:
        """Every byte it sent to the terminal since it was last forgotten."""
        return bytes(self._drawn)

    def size(self) -> tuple[int, int]:
        """Rows and columns of the terminal, as the console has left them."""
        rows, columns, _, _ = struct.unpack("HHHH", fcntl.ioctl(self._master, termios.TIOCGWINSZ, bytes(8)))
        return rows, columns

    def send(self, keys: bytes) -> None:
        """What a terminal sends when these keys are pressed."""
        os.write(self._master, keys)

    def forget(self) -> None:
        """Look only at what is drawn from now on."""
        self._drawn.clear()

    def kill(self) -> None:
        """-9."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)
        self._thread.join(10)
        os.close(self._master)


class Service:
    """``rekindle engine`` as a process."""

    def __init__(self, folder: Path, *more: str) -> None:
        self.folder, self.socket, self._more = folder, folder / "engine.sock", more
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        words = [
            "engine",
            "--socket",
            str(self.socket),
            "--log-directory",
            str(self.folder / "log"),
            "--no-look-inside",
            *self._more,
        ]
        with (self.folder / "engine.txt").open("ab") as log:
            process = subprocess.Popen(rekindle(*words), stdout=log, stderr=log, env=environment(self.folder))
        deadline = time.monotonic() + 60
        while True:
            try:
                EngineClient(self.socket).state()
                return process
            except Exception:
                assert process.poll() is None and time.monotonic() < deadline, (self.folder / "engine.txt").read_text()
                time.sleep(0.05)

    def kill(self) -> None:
        """-9."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)

    def start_again(self) -> None:
        """As systemd does."""
        self.process = self._start()

    def client(self) -> EngineClient:
        return EngineClient(self.socket)

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(30)
