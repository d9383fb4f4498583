"""A console in tmux: a real terminal of 80x25 whose screen can be read, with the interface of the lab's machine."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import uuid
from pathlib import Path
from types import TracebackType
from typing import Self

ROOT = Path(__file__).parents[3]
#: What people call a key -> tmux's name for it.
_KEYS = {"enter": "Enter", "esc": "Escape", "down": "Down", "up": "Up", "left": "Left", "right": "Right",
         "pgdn": "PageDown", "pgup": "PageUp", "tab": "Tab", "space": "Space"}  # fmt: skip


class TmuxMachine:
    """Runs a Python program of this checkout; ``press``, ``type`` and ``screen_text`` as ``tests.e2e.lab.qemu``."""

    def __init__(
        self, *words: str, size: tuple[int, int] = (80, 25), term: str = "linux", locale: str = "C.UTF-8"
    ) -> None:
        self._socket = f"rekindle-{uuid.uuid4().hex[:12]}"
        command = shlex.join(["env", f"TERM={term}", f"LC_ALL={locale}", sys.executable, *words])
        environment = {k: v for k, v in os.environ.items() if k not in ("TMUX", "SSH_CONNECTION")}
        environment |= {"LC_ALL": "C.UTF-8"}
        columns, rows = map(str, size)
        subprocess.run(
            ["tmux", "-u", "-L", self._socket, "-f", "/dev/null", "new-session", "-d", "-x", columns, "-y", rows,
             command, ";", "set", "status", "off", ";", "set", "-s", "escape-time", "0"],
            check=True, cwd=ROOT, env=environment,
        )  # fmt: skip

    def _tmux(self, *words: str) -> str:
        done = subprocess.run(["tmux", "-u", "-L", self._socket, *words], capture_output=True, text=True)
        return done.stdout

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tmux("kill-server")

    @property
    def running(self) -> bool:
        """The program has not ended."""
        return bool(self._tmux("list-sessions"))

    def screen_text(self) -> str:
        """The characters on the screen, spaces on the right cut off."""
        return self._tmux("capture-pane", "-p")

    def screenshot(self, path: Path) -> None:
        """The screen's text, for whoever wants to look."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".txt").write_text(self.screen_text())

    def press(self, *names: str, pause: float = 0.0) -> None:
        """Press keys by the lab's names."""
        self._tmux("send-keys", *(_KEYS[name] for name in names))

    def type(self, text: str, pause: float = 0.0) -> None:
        """Type text."""
        self._tmux("send-keys", "-l", text)

    def serial_text(self) -> str:
        """There is no serial line."""
        return ""
