"""The terminal below the console: a Linux VT, a serial line, or a terminal emulator over SSH.

Textual talks to terminal emulators: it asks for the kitty keyboard, synchronised output, focus reports and the
alternate screen. A VT or a VT220 has none of them and may print what it does not understand.
"""

from __future__ import annotations

import fcntl
import io
import os
import struct
import sys
import termios
from collections.abc import Mapping

from textual.drivers.linux_driver import LinuxDriver

from recovery.tui.glyphs import CHARSETS

#: What a serial line gets when nobody told the kernel its size.
SERIAL_ROWS, SERIAL_COLUMNS = 24, 80

#: Requests of Textual that a plain console must not see, and what it gets instead.
CLEAR = "\x1b[0m\x1b[2J\x1b[H"
PLAIN_SEQUENCES = {
    "\x1b[?1049h": CLEAR,
    "\x1b[?1049l": CLEAR,
    "\x1b[?1004h": "",
    "\x1b[?1004l": "",
    "\x1b[?2004h": "",
    "\x1b[?2004l": "",
    "\x1b[?2048h": "",
    "\x1b[?2048l": "",
    "\x1b[?2048$p": "",
    "\x1b[?2026$p": "",
    "\x1b[<u": "",
}


def is_plain(term: str) -> bool:
    """Whether ``TERM`` names a console or a DEC terminal rather than a terminal emulator."""
    return term in ("", "dumb", "linux", "ansi") or term.startswith(("linux-", "vt"))


def charset(environment: Mapping[str, str]) -> str:
    """Which of ``glyphs.CHARSETS`` the terminal can draw, as far as its environment tells (F9 corrects it). Pure.

    The medium's own VTs have the font made for this console. A VT at the other end of SSH and a DEC terminal have some
    font of CP437's repertoire; terminal emulators have all. Without UTF-8 nothing but ASCII is safe.
    ``REKINDLE_CHARSET`` says it outright.
    """
    wanted = environment.get("REKINDLE_CHARSET", "")
    if wanted in CHARSETS:
        return wanted
    locale = next((v for n in ("LC_ALL", "LC_CTYPE", "LANG") if (v := environment.get(n, ""))), "C.UTF-8")
    if "utf" not in locale.lower():
        return "ascii"
    term = environment.get("TERM", "")
    if term in ("", "dumb", "ansi") or term.startswith("vt"):
        return "basic"
    if term.startswith("linux") and environment.get("SSH_CONNECTION"):
        return "basic"
    return "full"


def terminal_size() -> tuple[int, int] | None:
    """Columns and rows of the terminal Textual draws on (stderr) or reads from; None when it has none.

    Not stdout: a unit of the medium may have that in the journal.
    """
    for descriptor in (2, 0, 1):
        try:
            size = os.get_terminal_size(descriptor)
        except OSError:
            continue
        if size.columns and size.lines:
            return size.columns, size.lines
    return None


def prepare() -> None:
    """Make the terminal fit to draw on; call it before Textual is imported.

    Sets the environment Textual reads at import, UTF-8 output, and 80x24 on a serial line whose size is unknown, so
    that programs of the shell (F2) agree about it too.
    """
    os.environ["TEXTUAL_COLOR_SYSTEM"] = "standard"
    os.environ["TEXTUAL_ANIMATIONS"] = "none"
    os.environ.pop("COLUMNS", None)
    os.environ.pop("LINES", None)
    if isinstance(sys.__stderr__, io.TextIOWrapper):
        sys.__stderr__.reconfigure(encoding="utf-8", errors="replace")
    if terminal_size() is None:
        for descriptor in (2, 0):
            try:
                fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", SERIAL_ROWS, SERIAL_COLUMNS, 0, 0))
            except OSError:
                continue
            break


class ConsoleDriver(LinuxDriver):
    """Textual's driver, speaking only what the terminal in front of it understands."""

    plain = is_plain(os.environ.get("TERM", ""))

    def write(self, data: str) -> None:
        """Send ``data``, without the requests a plain console does not know."""
        if self.plain and data.startswith("\x1b"):
            # Besides the table: the kitty keyboard (CSI > ... u) and the mouse pointer's shape (OSC 22).
            data = "" if data.startswith(("\x1b[>", "\x1b]22;")) else PLAIN_SEQUENCES.get(data, data)
        if data:
            super().write(data)

    def _get_terminal_size(self) -> tuple[int, int]:
        return terminal_size() or (SERIAL_COLUMNS, SERIAL_ROWS)
