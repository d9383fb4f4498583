"""The engine's log: a file for afterwards, the newest lines in memory for the windows, a secret in neither."""

from __future__ import annotations

import logging
import os
import tempfile
import threading
import time
from collections import deque
from pathlib import Path

from recovery.errors import RekindleError
from recovery.events import Event, Message, Progress, RunFinished, StepFinished, StepStarted

#: Where logs lie on the medium, and in a restored host.
LOG_DIRECTORY = Path("/var/log/rekindle")
#: What a console that ended by a bug leaves beside the log.
CONSOLE_REPORT = "console-*.txt"
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_SHORTEST_SECRET = 4

log = logging.getLogger("rekindle.engine")


class _Redactor(logging.Formatter):
    """Formats UTC lines, and replaces known secrets wherever they turn up: the last line of defence."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%SZ")
        self.converter = time.gmtime
        self._secrets: set[str] = set()
        self._lock = threading.Lock()

    def hide(self, *secrets: str) -> None:
        with self._lock:
            self._secrets.update(s for s in secrets if len(s) >= _SHORTEST_SECRET)

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        with self._lock:
            for secret in self._secrets:
                text = text.replace(secret, "***")
        return text


class _Memory(logging.Handler):
    def __init__(self, lines: int) -> None:
        super().__init__()
        self.lines: deque[str] = deque(maxlen=lines)

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.extend(self.format(record).splitlines())


class Journal:
    """The log of one engine. ``directory`` defaults to /var/log/rekindle for root, else a new temporary one."""

    def __init__(self, directory: Path | None = None) -> None:
        self.directory = _usable(directory)
        self.path = self.directory / "engine.log"
        self._formatter = _Redactor()
        self._memory = _Memory(5000)
        self._logger = logging.getLogger("rekindle")
        self._handlers: list[logging.Handler] = [self._memory]
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._file = os.fdopen(descriptor, "a", encoding="utf-8")
        self._handlers.append(logging.StreamHandler(self._file))
        for handler in self._handlers:
            handler.setFormatter(self._formatter)
            handler.setLevel(logging.DEBUG)
            self._logger.addHandler(handler)
        self._logger.setLevel(logging.DEBUG)

    def hide(self, *secrets: str) -> None:
        """From now on these words never appear in the log."""
        self._formatter.hide(*secrets)

    def newest(self, lines: int) -> list[str]:
        """The newest lines, oldest of them first."""
        return list(self._memory.lines)[-lines:] if lines > 0 else []

    def hear(self, event: Event) -> None:
        """A Listener: everything but progress is written down."""
        match event:
            case StepStarted():
                log.info("step %s: %s", event.step, event.title)
            case StepFinished():
                log.info("step %s ended after %.1f s: %s", event.step, event.seconds, event.summary)
            case Message():
                log.log(_LEVELS[event.level], "%s%s", f"{event.step}: " if event.step else "", event.text)
            case RunFinished(error=None):
                log.info("the run ended well: %s", event.summary)
            case RunFinished(error=error) if error is not None:
                log.error("the run failed: %s %s (%s)", error.message, error.hint, error.kind)
            case Progress():
                pass

    def close(self) -> None:
        """Stop listening and close the file."""
        for handler in self._handlers:
            self._logger.removeHandler(handler)
        self._file.close()


def _usable(directory: Path | None) -> Path:
    wanted = directory or (LOG_DIRECTORY if os.geteuid() == 0 else None)
    if wanted is not None:
        try:
            wanted.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            if directory is not None:
                raise RekindleError(f"The log cannot be written to '{directory}': {error.strerror}.") from error
        else:
            return wanted
    return Path(tempfile.mkdtemp(prefix="rekindle-log-"))
