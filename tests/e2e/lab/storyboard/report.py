"""The story's report: what was done, how long it took, what was moved, and what held."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec


class Phase(msgspec.Struct):
    """One phase; ``seconds`` of wall clock. ``figures`` are bytes and counts that belong to it."""

    name: str
    title: str
    seconds: float = 0.0
    ok: bool = False
    error: str = ""
    figures: dict[str, float | int | str] = {}


class Check(msgspec.Struct):
    """Something that had to be true of the restored host. ``detail`` is what was seen."""

    name: str
    what: str
    held: bool
    detail: str = ""


class DemoReport(msgspec.Struct):
    """The JSON report. ``ok`` is the exit code's truth: every phase ended and every check held."""

    firmware: str
    accelerator: str = ""
    started: float = msgspec.field(default_factory=time.time)
    seconds: float = 0.0
    ok: bool = False
    source: dict[str, str] = {}
    target: dict[str, str] = {}
    phases: list[Phase] = []
    checks: list[Check] = []
    screenshots: list[str] = []
    restore: dict[str, str] = {}
    error: str = ""

    def check(self, name: str, what: str, held: bool, detail: str = "") -> bool:
        """Note a check; returns ``held``."""
        self.checks.append(Check(name, what, held, detail.strip()[-2000:]))
        return held

    def judge(self) -> bool:
        """Every phase ended well, there were checks, and all of them held."""
        self.ok = (
            not self.error
            and bool(self.phases)
            and all(phase.ok for phase in self.phases)
            and bool(self.checks)
            and all(check.held for check in self.checks)
        )
        return self.ok

    def write(self, path: Path) -> None:
        """As indented JSON."""
        path.write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n")
