"""A virtual machine in QEMU as a person meets a real one: disks, network card, screen, keyboard, serial line."""

from __future__ import annotations

import contextlib
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from PIL import Image

from tests.e2e.lab.accel import Acceleration
from tests.e2e.lab.hardware import Hardware, command_line
from tests.e2e.lab.keyboard import press_of_name, presses_of_text
from tests.e2e.lab.qmp import Qmp, connect
from tests.e2e.lab.screen import ScreenReader


class LabError(Exception):
    """Something did not happen on the machine: a text did not come, QEMU ended."""


def not_panicked(text: str) -> None:
    """Raises LabError when the guest's kernel has died on this screen or line: then nothing more will come."""
    if "Kernel panic - not syncing" in text:
        raise LabError(f"The guest's kernel panicked. It said:\n{text[-3000:]}")


class Machine:
    """A running (or stopped) machine. Use as a context manager: leaving it ends QEMU.

    ``directory`` receives sockets, ``serial.log`` and the firmware's variables, which survive a power cycle.
    """

    def __init__(
        self, hardware: Hardware, directory: Path, accel: Acceleration, reader: ScreenReader | None = None
    ) -> None:
        self.accel = accel
        self.hardware = hardware
        self.directory = directory
        self.reader = reader or ScreenReader.default()
        self.serial_log = directory / "serial.log"
        # A socket's path may have 107 characters only.
        self._sockets = Path(tempfile.mkdtemp(prefix="rekindle-vm-"))
        self._last_seen: tuple[bytes, str] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._qmp: Qmp | None = None
        self._serial: socket.socket | None = None

    # -- power ---------------------------------------------------------------------------------------------------

    def start(self) -> Self:
        """Power on. Raises LabError when QEMU does not start."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self._sockets.mkdir(exist_ok=True)
        self.serial_log.unlink(missing_ok=True)
        argv = command_line(self.hardware, self.directory, self.accel, self._sockets)
        (self.directory / "qemu.command").write_text(" ".join(argv) + "\n")
        # A long-lived child: the machine runs while the test drives it.
        with (self.directory / "qemu.log").open("wb") as log:
            self._process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            self._serial = connect(self._sockets / "serial.sock", lambda: self.running)
            self._qmp = Qmp(connect(self._sockets / "qmp.sock", lambda: self.running))
        except OSError as error:
            self.stop()
            raise LabError(f"QEMU did not start: {(self.directory / 'qemu.log').read_text().strip()}") from error
        threading.Thread(target=self._listen, args=(self._serial,), daemon=True, name="serial").start()
        return self

    def stop(self) -> None:
        """Pull the plug."""
        for closable in (self._qmp, self._serial):
            if closable is not None:
                with contextlib.suppress(OSError):
                    closable.close()
        self._qmp = self._serial = None
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._process = None
        shutil.rmtree(self._sockets, ignore_errors=True)

    def lose_power(self) -> None:
        """The power fails: QEMU ends in the middle of whatever it does (SIGKILL)."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self.stop()

    def reset(self) -> None:
        """Press the reset button."""
        self.qmp.command("system_reset")

    def power_button(self) -> None:
        """Press the power button; a running system shuts down."""
        self.qmp.command("system_powerdown")

    def wait_for_power_off(self, timeout: float) -> None:
        """Wait until the machine has switched itself off. Raises LabError."""
        if self._process is None:
            return
        deadline = time.monotonic() + timeout
        while self._process.poll() is None:
            if time.monotonic() > deadline:
                raise LabError(f"The machine did not switch itself off within {timeout:.0f} s.")
            time.sleep(0.2)
        self.stop()

    @property
    def running(self) -> bool:
        """QEMU is alive."""
        return self._process is not None and self._process.poll() is None

    def __enter__(self) -> Self:
        return self if self._process else self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def qmp(self) -> Qmp:
        """The control socket. Raises LabError when the machine is off or QEMU died."""
        if self._qmp is None or not self.running:
            code = None if self._process is None else self._process.poll()
            how = f" ({signal.Signals(-code).name})" if code is not None and code < 0 else f" (exit code {code})"
            log = self.directory / "qemu.log"
            said = log.read_text(errors="replace").strip()[-500:] if log.exists() else ""
            raise LabError(f"The machine is off{how if code is not None else ''}. {said}")
        return self._qmp

    # -- screen and keyboard -------------------------------------------------------------------------------------

    def screenshot(self, path: Path | None = None) -> Image.Image:
        """What the screen shows now, kept as PNG at ``path`` when given."""
        dump = self.directory / "screen.ppm"
        self.qmp.command("screendump", filename=str(dump))
        image = Image.open(dump).convert("RGB")
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            image.save(path, optimize=True)
        return image

    def screen_text(self) -> str:
        """The characters on the screen, one line a row; unreadable cells are U+FFFD. LabError when a kernel died."""
        image = self.screenshot()
        pixels = image.tobytes()
        # A console that waits looks the same for minutes; reading it costs more than looking.
        if self._last_seen is None or self._last_seen[0] != pixels:
            self._last_seen = (pixels, self.reader.text(image))
        not_panicked(self._last_seen[1])
        return self._last_seen[1]

    def wait_for_screen(self, pattern: str, timeout: float, *, interval: float = 1.0) -> str:
        """Wait until the screen matches ``pattern``; returns its text. Raises LabError with the last text."""
        deadline = time.monotonic() + timeout
        while True:
            text = self.screen_text()
            if re.search(pattern, text):
                return text
            if time.monotonic() > deadline:
                raise LabError(f"The screen did not show {pattern!r} within {timeout:.0f} s. It shows:\n{text}")
            time.sleep(interval)

    def press(self, *names: str, pause: float = 0.15) -> None:
        """Press keys one after the other: ``press("tab", "enter")``, ``press("ctrl+alt+f2")``."""
        for name in names:
            self._send(press_of_name(name), pause)

    def type(self, text: str, pause: float = 0.08) -> None:
        """Type text on the keyboard."""
        for keys in presses_of_text(text):
            self._send(keys, pause)

    def _send(self, keys: list[str], pause: float) -> None:
        # The keyboard controller holds 16 bytes: without a pause an emulated processor loses keys.
        self.qmp.command("send-key", keys=[{"type": "qcode", "data": key} for key in keys], **{"hold-time": 30})
        time.sleep(pause + 0.03)

    # -- serial line ---------------------------------------------------------------------------------------------

    def serial_text(self) -> str:
        """Everything the machine has said on its serial line since power-on."""
        # As bytes: reading as text would turn the line's CR LF into LF.
        return self.serial_log.read_bytes().decode(errors="replace") if self.serial_log.exists() else ""

    def wait_for_serial(self, pattern: str, timeout: float, *, since: int = 0) -> int:
        """Wait until the serial text after character ``since`` matches; returns the position after the match."""
        deadline = time.monotonic() + timeout
        while True:
            text = self.serial_text()
            not_panicked(text[since:])
            found = re.compile(pattern).search(text, since)
            if found:
                return found.end()
            if time.monotonic() > deadline or not self.running:
                why = f"within {timeout:.0f} s" if self.running else "and the machine went off"
                raise LabError(f"The serial line did not say {pattern!r} {why}. Its end:\n{text[since:][-3000:]}")
            time.sleep(0.3)

    def serial_send(self, text: str) -> None:
        """Type on the serial line."""
        if self._serial is None:
            raise LabError("The machine is off.")
        for start in range(0, len(text), 12):  # the emulated UART's queue is 16 bytes
            self._serial.sendall(text[start : start + 12].encode())
            time.sleep(0.02)

    def _listen(self, serial: socket.socket) -> None:
        """The thread that keeps the serial line's record. QEMU's own log repeats bytes when its reader is slow."""
        with contextlib.suppress(OSError), self.serial_log.open("ab", buffering=0) as log:
            while data := serial.recv(65536):
                log.write(data)
