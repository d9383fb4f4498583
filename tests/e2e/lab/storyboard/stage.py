"""Where the story plays: its folder, its report, and what a person sees of it while it runs."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.status import Status

from recovery.units import format_duration
from tests.e2e.lab.storyboard.report import DemoReport, Phase


class Stage:
    """``folder`` gets everything; ``console`` shows one line a phase and a spinner for the present one."""

    def __init__(self, folder: Path, report: DemoReport, console: Console) -> None:
        self.folder = folder
        self.report = report
        self.console = console
        self._status: Status | None = None
        self._title = ""
        self._began = time.monotonic()

    @contextlib.contextmanager
    def phase(self, name: str, title: str) -> Iterator[Phase]:
        """Time a phase, show it, note how it ended. Errors go through."""
        phase = Phase(name, title, figures={})
        self.report.phases.append(phase)
        start = time.monotonic()
        self._title = title
        if not self.console.is_terminal:
            self.console.print(f"[dim]{self._clock()}[/]   {title} ...", highlight=False)
        try:
            with self.console.status(title) as self._status:
                yield phase
            phase.ok = True
        except BaseException as error:
            phase.error = f"{type(error).__name__}: {error}"[:4000]
            raise
        finally:
            phase.seconds = round(time.monotonic() - start, 2)
            mark = "[green]ok    [/]" if phase.ok else "[red]FAILED[/]"
            figures = ", ".join(f"{key} {value}" for key, value in phase.figures.items())
            self.console.print(
                f"[dim]{self._clock()}[/] {mark} {escape(title)} [dim]({format_duration(phase.seconds)})"
                f"{' ' + escape(figures) if figures else ''}[/]",
                highlight=False,
            )
            self._status = None

    def say(self, text: str) -> None:
        """What is happening right now."""
        if self._status is not None:
            self._status.update(f"{escape(self._title)}  [dim]{escape(text.strip()[:90])}[/]")

    def verdict(self, what: str, held: bool) -> None:
        """A check's outcome."""
        self.console.print(f"        {'[green]√[/]' if held else '[red]×[/]'} {escape(what)}", highlight=False)

    def _clock(self) -> str:
        return f"{format_duration(time.monotonic() - self._began):>7}"
