"""Threads that stop together: the first error (or the operator) stops all, and nobody waits for ever."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from recovery.errors import CancelledError

T = TypeVar("T")
_TICK = 0.1
#: Seconds that what is on its way has to be stored after the operator asked to stop.
_GRACE = 1.5


class Stopped(Exception):
    """Raised in a thread whose crew is stopping; never shown."""


class Crew:
    """A group of threads. ``cancel`` is the operator's wish to stop."""

    def __init__(self, cancel: threading.Event) -> None:
        self._cancel = cancel
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._error: BaseException | None = None

    def start(self, name: str, work: Callable[[], None]) -> threading.Thread:
        """Run ``work`` in a thread of its own, which can be joined."""

        def body() -> None:
            try:
                work()
            except (Stopped, CancelledError):
                pass
            except BaseException as error:
                self.fail(error)

        thread = threading.Thread(target=body, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()
        return thread

    def fail(self, error: BaseException) -> None:
        """Stop all because of ``error``; only the first one counts."""
        with self._lock:
            self._error = self._error or error
        self._stop.set()

    def check(self) -> None:
        """Raises Stopped when this thread should end."""
        if self._stop.is_set() or self._cancel.is_set():
            raise Stopped

    def join(self, thread: threading.Thread) -> None:
        """Wait for the end of a thread. Raises Stopped."""
        while thread.is_alive():
            self.check()
            thread.join(_TICK)

    def finish(self) -> None:
        """Wait for all threads; raise the first error, or CancelledError.

        After ``cancel`` a thread that hangs in a request is left to itself: it only stores what is never referred to.
        """
        end: float | None = None
        for thread in self._threads:
            while thread.is_alive() and (end is None or time.monotonic() < end):
                thread.join(_TICK)
                if end is None and self._cancel.is_set():
                    end = time.monotonic() + _GRACE
        if self._error is not None:
            raise self._error
        if self._cancel.is_set() or self._stop.is_set():
            raise CancelledError(
                "The capture was stopped; nothing of it is visible.",
                hint="Run it again: what was stored already is found and not sent again.",
            )


class Channel(Generic[T]):
    """A bounded queue between threads of a crew; full and empty waits end when the crew stops."""

    def __init__(self, crew: Crew, size: int, items: Sequence[T] = ()) -> None:
        self._crew = crew
        self._queue: queue.Queue[T | None] = queue.Queue(size)
        for item in items:
            self._queue.put_nowait(item)

    def put(self, item: T | None) -> None:
        """Add an item, waiting for room. Raises Stopped."""
        while True:
            self._crew.check()
            try:
                return self._queue.put(item, timeout=_TICK)
            except queue.Full:
                continue

    def get(self) -> T | None:
        """The next item, or None when the channel was closed. Raises Stopped."""
        while True:
            self._crew.check()
            try:
                item = self._queue.get(timeout=_TICK)
            except queue.Empty:
                continue
            if item is None:
                # For the other readers.
                self._queue.put(None)
            return item

    def close(self) -> None:
        """No more items come: each reader gets None after the last one. Raises Stopped."""
        self.put(None)
