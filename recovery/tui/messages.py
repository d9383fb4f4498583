"""Messages from the thread that listens to the engine to the screen that shows the run."""

from __future__ import annotations

from textual.message import Message

from recovery.errors import ErrorReport
from recovery.events import Event


class EngineEvents(Message):
    """Events of the run, in order."""

    def __init__(self, events: list[Event]) -> None:
        super().__init__()
        self.events = events


class StreamLost(Message):
    """The engine stopped answering; the run may go on without us."""

    def __init__(self, error: ErrorReport) -> None:
        super().__init__()
        self.error = error
