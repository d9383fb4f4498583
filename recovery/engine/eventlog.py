"""The numbered events of one run, kept in memory so that any number of windows can read them from any number on."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from recovery.events import Event, Progress, RunFinished


class EventLog:
    """Events with their numbers, counted from 0. Of the progress of a step (and disk) only the newest is kept, so
    the log stays small in a run of many hours; the numbers of what was dropped are not used again.
    """

    def __init__(self) -> None:
        self._events: dict[int, Event] = {}
        self._newest_progress: dict[tuple[str, str], int] = {}
        self._next = 0
        self._finished = False
        self._changed = threading.Condition()

    @property
    def count(self) -> int:
        """How many events were added so far: the number of the next one."""
        with self._changed:
            return self._next

    @property
    def finished(self) -> bool:
        """RunFinished was added; nothing follows."""
        with self._changed:
            return self._finished

    def add(self, event: Event) -> None:
        """Append; ignored after RunFinished, which is the last by contract."""
        with self._changed:
            if self._finished:
                return
            if isinstance(event, Progress):
                key = (event.step, event.disk)
                self._events.pop(self._newest_progress.get(key, -1), None)
                self._newest_progress[key] = self._next
            self._events[self._next] = event
            self._next += 1
            self._finished = isinstance(event, RunFinished)
            self._changed.notify_all()

    def read(self, since: int, timeout: float | None = None) -> list[tuple[int, Event]]:
        """Events numbered ``since`` and up, in order; waits up to ``timeout`` seconds for the first of them.

        Empty when there was none in that time, or none will come.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._next > since or self._finished, timeout)
            found = []
            for number in reversed(self._events):
                if number < since:
                    break
                found.append((number, self._events[number]))
        found.reverse()
        return found

    def follow(self, since: int = 0) -> Iterator[Event]:
        """Every event from ``since`` on, waiting for new ones; ends after RunFinished."""
        while True:
            for number, event in self.read(since):
                since = number + 1
                yield event
            if self.finished and since >= self.count:
                return
