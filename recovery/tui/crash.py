"""A bug ended the console: a report of it without what was typed, and a word to the console that is started next.

On the medium a console is started again after a second and clears the screen, so what this one says is read by nobody.
"""

from __future__ import annotations

import os
import platform
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

from recovery import __version__
from recovery.engine.journal import CONSOLE_REPORT, LOG_DIRECTORY

#: Holds the path of the report that no console has told about yet.
_UNTOLD = "console.untold"
#: A console that ends at every start must not fill the medium's memory: older reports are dropped.
_KEPT = 10


def log_folder(directory: Path | None) -> Path | None:
    """Where reports lie: as the engine's log, ``directory``, else /var/log/rekindle for root."""
    return directory or (LOG_DIRECTORY if os.geteuid() == 0 else None)


def keep_report(error: BaseException, folder: Path | None, screens: Sequence[str] = ()) -> Path:
    """Write the report to ``folder``, or where that is not possible to a temporary place; remember to tell of it."""
    text = "\n".join(report_lines(error, screens)) + "\n"
    name = CONSOLE_REPORT.replace("*", time.strftime("%Y%m%d-%H%M%S", time.gmtime()) + f"-{os.getpid()}")
    if folder is not None:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for old in sorted(folder.glob(CONSOLE_REPORT))[: 1 - _KEPT]:
                old.unlink()
            _write(folder / name, text)
            _write(folder / _UNTOLD, str(folder / name))
            return folder / name
        except OSError:
            pass  # it is full or not ours
    path = Path(tempfile.mkdtemp(prefix="rekindle-")) / name
    _write(path, text)
    return path


def take_notice(folder: Path | None) -> str:
    """What the first screen says of the console that ended before this one; once, empty when there is nothing."""
    if folder is None:
        return ""
    try:
        path = Path((folder / _UNTOLD).read_text(encoding="utf-8"))
        (folder / _UNTOLD).unlink()  # of several consoles that start now one tells
        ended = time.strftime("%H:%M", time.localtime(path.stat().st_mtime))
    except OSError:
        return ""
    return (
        f"The console ended by a bug at {ended} and was started again; the report is {path}. "
        "A restore was not touched by it."
    )


def report_lines(error: BaseException, screens: Sequence[str]) -> Iterator[str]:
    """Kinds of the errors and the lines of code that they came through. Neither what they say nor local variables:
    both may hold what was typed."""
    from importlib.metadata import version  # not at the start of the console

    yield f"rekindle {__version__}, Python {platform.python_version()}, Textual {version('textual')}"
    yield f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())}, TERM={os.environ.get('TERM', '')}"
    yield f"Screens: {', '.join(screens) or 'none'}"
    yield "What the errors say is left out: it may hold what was typed."
    yield from _told(error)


def _told(error: BaseException) -> Iterator[str]:
    yield f"\n{type(error).__module__}.{type(error).__qualname__}"
    for frame in traceback.extract_tb(error.__traceback__):
        yield f"  {frame.filename}:{frame.lineno} {frame.name}" + (f"\n    {frame.line}" if frame.line else "")
    for part in error.exceptions if isinstance(error, BaseExceptionGroup) else ():
        yield from _told(part)
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if before is not None:
        yield "\nCaused by:" if error.__cause__ else "\nWhile this was dealt with:"
        yield from _told(before)


def _write(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
