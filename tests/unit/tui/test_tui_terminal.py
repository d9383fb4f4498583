"""The console on a real terminal device: a serial line that nobody told its size, speaking VT220."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from recovery.cli.tui import tui
from recovery.errors import UsageError
from recovery.tui import terminal

ROOT = Path(__file__).parents[3]


class Serial:
    """A program on a pseudo terminal of size 0x0."""

    def __init__(self, *arguments: str, term: str) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 0, 0, 0, 0))
        environment = {**os.environ, "TERM": term, "LANG": "C.UTF-8"}
        self.process = subprocess.Popen(
            [sys.executable, *arguments], stdin=slave, stdout=slave, stderr=slave, cwd=ROOT, env=environment,
            start_new_session=True,
        )  # fmt: skip
        os.close(slave)
        self.output = b""

    def read_until(self, text: str, seconds: float = 60.0) -> None:
        """Collect output until ``text`` was drawn (a generous limit: the machine may be busy)."""
        end = time.monotonic() + seconds
        while text.encode() not in self.output:
            assert time.monotonic() < end, f"never came: {text}\n{self.output[-3000:].decode(errors='replace')}"
            if select.select([self.master], [], [], 0.2)[0]:
                try:
                    self.output += os.read(self.master, 65536)
                except OSError:  # the other end was closed
                    assert text.encode() in self.output, f"ended without: {text}"

    def send(self, keys: str) -> None:
        """Type; forgets the output before."""
        self.output = b""
        os.write(self.master, keys.encode())

    def close(self) -> None:
        """End it, if it has not ended."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        os.close(self.master)


@pytest.mark.parametrize(("term", "power_key"), [("vt220", "\x1b[21~"), ("linux", "\x1b[21~")])
def test_serial_line_of_unknown_size(term: str, power_key: str) -> None:
    serial = Serial("tests/unit/tui/try_console.py", term=term)
    try:
        serial.read_until("F10 power")
        rows, columns = struct.unpack("HHHH", fcntl.ioctl(serial.master, termios.TIOCGWINSZ, bytes(8)))[:2]
        assert (rows, columns) == (24, 80)
        assert "Rekindle · Task".encode() in serial.output
        whole = re.sub(rb"\x1b\[?[0-9;?<>=$]*\Z", b"", serial.output)  # a sequence may have come by half
        # Only what a VT220 knows: cursor, colours, clear, show/hide cursor, wrap. No OSC, no '>' or '$' requests.
        codes = {code.decode() for code in re.findall(rb"\x1b(?:\[[0-9;?<>=$]*[A-Za-z]|.)", whole)}
        unknown = [c for c in codes if not re.fullmatch(r"\x1b\[(\d+(;\d+)*)?[mH]|\x1b\[2J|\x1b\[\?(25|7)[hl]", c)]
        assert unknown == []
        # Drawn again, and everything: asked for with Ctrl+L, or by a signal although the size is the same.
        for ask in ("\x0c", ""):
            serial.send(ask) if ask else serial.process.send_signal(signal.SIGWINCH)
            serial.read_until(terminal.CLEAR)
            serial.output = serial.output.partition(terminal.CLEAR.encode())[2]
            serial.read_until("F10 power")
            assert "Rekindle · Task".encode() in serial.output
            serial.output = b""
        serial.send("\x1bOP" if term == "vt220" else "\x1b[[A")  # F1
        serial.read_until("Help · Task")
        serial.send("\r")
        serial.read_until("Restore some disks")
        serial.send(power_key)
        serial.read_until("Leave console")
        serial.send("\t")
        serial.read_until(">Leave console<")
        serial.send("\r")
        serial.read_until("\x1b[?25h")  # the cursor is back
        assert b"\x1b[2J" in serial.output
        assert serial.process.wait(timeout=60) == 0
    finally:
        serial.close()


def test_without_a_terminal_it_says_so() -> None:
    result = CliRunner().invoke(tui, [])
    assert isinstance(result.exception, UsageError)
    assert "StandardError=tty" in result.exception.hint
