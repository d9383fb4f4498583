"""The listener of the command line: rich bars on a terminal, plain lines elsewhere, JSON lines on demand."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from recovery import events
from recovery.cli.console import PlainConsole
from recovery.events import Event, Listener
from recovery.units import format_duration, format_rate, format_size

_STYLES = {"debug": "dim", "info": "", "warning": "yellow", "error": "red"}


@contextlib.contextmanager
def progress_listener(*, as_json: bool = False) -> Iterator[Listener]:
    """A listener for the time of the block. JSON lines go to stdout, everything for people to stderr."""
    if as_json:
        lock = threading.Lock()

        def write(event: Event) -> None:
            with lock, contextlib.suppress(OSError):
                sys.stdout.write(events.encode(event).decode() + "\n")
                sys.stdout.flush()

        yield write
        return
    console = PlainConsole(stderr=True)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        TextColumn("{task.fields[figures]}", markup=False),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        yield _Bars(console, bars).hear


class _Bars:
    def __init__(self, console: Console, bars: Progress) -> None:
        self._console = console
        self._bars = bars
        self._tasks: dict[tuple[str, str], TaskID] = {}
        self._titles: dict[str, str] = {}
        self._lock = threading.Lock()

    def hear(self, event: Event) -> None:
        # A terminal that went away (an SSH line that dropped) must not end the run that is listened to.
        with self._lock, contextlib.suppress(OSError):
            match event:
                case events.StepStarted():
                    self._titles[event.step] = event.title
                    if not self._console.is_terminal:
                        self._console.print(event.title, highlight=False)
                case events.Progress():
                    self._progress(event)
                case events.StepFinished():
                    if event.summary:
                        self._console.print(event.summary, highlight=False, markup=False)
                case events.Message() if event.level != "debug":
                    self._console.print(event.text, style=_STYLES[event.level], highlight=False, markup=False)
                case _:
                    pass

    def _progress(self, event: events.Progress) -> None:
        key = (event.step, event.disk)
        if key not in self._tasks:
            title = event.disk or self._titles.get(event.step, event.step)
            self._tasks[key] = self._bars.add_task(title, total=event.total, figures="")
        self._bars.update(self._tasks[key], completed=event.done, total=event.total, figures=figures(event))


def figures(event: events.Progress) -> str:
    """``1.2 GiB of 8.0 GiB · 240 MB/s · 0:28 left · 512 MiB transferred``; parts that say nothing are left out."""
    parts = [f"{format_size(event.done)} of {format_size(event.total)}"]
    if event.rate:
        parts.append(format_rate(event.rate))
    if event.eta is not None and event.done < event.total:
        parts.append(f"{format_duration(event.eta)} left")
    for name in ("transferred", "written", "skipped"):
        if getattr(event, name):
            parts.append(f"{format_size(getattr(event, name))} {name}")
    if event.retries:
        parts.append(f"{event.retries} retries")
    if event.note:
        parts.append(event.note)
    return " · ".join(parts)
