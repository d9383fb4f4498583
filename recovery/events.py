"""Typed progress events: what an engine says while it works. CLI, TUI, JSON lines and the log are equal listeners.

Each event is a tagged msgspec Struct, so ``msgspec.json.encode(event)`` is one line of the ``--json`` contract
and of the engine's socket: ``{"type":"progress", ...}``. Times are seconds since the epoch (UTC).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

import msgspec

from recovery.errors import ErrorReport

Level = Literal["debug", "info", "warning", "error"]


class _Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    at: float = msgspec.field(default_factory=time.time)


class StepStarted(_Event, frozen=True, kw_only=True, tag="step-started"):
    """A named step begins. ``number`` of ``of`` counts from 1; 0 of 0 where the count is not known."""

    step: str
    title: str
    number: int = 0
    of: int = 0


class StepFinished(_Event, frozen=True, kw_only=True, tag="step-finished"):
    """The step ended well; ``summary`` is one line that says what it did."""

    step: str
    summary: str = ""
    seconds: float = 0.0


class Progress(_Event, frozen=True, kw_only=True, tag="progress"):
    """How far a step is. All figures are bytes since the start of the step.

    ``done``/``total`` are logical bytes of the whole (or of disk ``disk`` if it is not empty); ``transferred``
    came from or went to the repository, ``written`` was written to the disk (or stored), ``skipped`` needed no
    work. ``rate`` is logical bytes per second, ``eta`` seconds left or None. ``retries`` counts repeated requests.
    """

    step: str
    done: int
    total: int
    disk: str = ""
    transferred: int = 0
    written: int = 0
    skipped: int = 0
    rate: float = 0.0
    eta: float | None = None
    retries: int = 0
    note: str = ""


class Message(_Event, frozen=True, kw_only=True, tag="message"):
    """Something worth telling: a retry, a thing changed by adaptation, a warning."""

    text: str
    level: Level = "info"
    step: str = ""


class RunFinished(_Event, frozen=True, kw_only=True, tag="run-finished"):
    """The whole run ended. ``error`` is None when it ended well."""

    error: ErrorReport | None = None
    summary: str = ""


Event = StepStarted | StepFinished | Progress | Message | RunFinished

#: What engines are given: call it with each event. It must return quickly and never raise.
Listener = Callable[[Event], None]


def ignore(event: Event) -> None:
    """The listener that hears nothing."""


def tee(*listeners: Listener) -> Listener:
    """One listener that tells several."""

    def tell(event: Event) -> None:
        for listener in listeners:
            listener(event)

    return tell


def encode(event: Event) -> bytes:
    """One JSON line, without the newline."""
    return msgspec.json.encode(event)


_decoder = msgspec.json.Decoder(Event)


def decode(line: bytes | str) -> Event:
    """The event of a JSON line. Raises msgspec.ValidationError."""
    event: Event = _decoder.decode(line)
    return event
