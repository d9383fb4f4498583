"""Outages are told, and waiting in one can be stopped: between a store that tries again and the run that uses it."""

from __future__ import annotations

import contextlib
import math
import queue
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

from recovery.errors import CancelledError
from recovery.events import Listener, Message

#: Seconds without any progress after which a server counts as gone; a reboot of the server fits in.
DEFAULT_PATIENCE = 300.0
T = TypeVar("T")
_TICK = 0.1
#: All threads meet the same outage: it is told once in this many seconds.
_QUIET = 1.0
#: An attempt that has gone on for so many seconds is no longer told as one: it has got an answer, or a stalled one.
_LINGERS = 15.0

#: Told before each new attempt: why, its number (from 1), and the seconds until then.
RetryListener = Callable[[str, int, float], None]


class Attentive(Protocol):
    """A store that tries again by itself, and lets a run hear of it. ``HttpStore`` is one."""

    def attended(
        self, on_retry: RetryListener, cancel: threading.Event, patience: float | None = None
    ) -> AbstractContextManager[None]:
        """For the block: tell ``on_retry``, stop waiting on ``cancel``, go on trying for ``patience`` seconds."""


def attended(
    store: object, on_retry: RetryListener, cancel: threading.Event, patience: float | None = None
) -> AbstractContextManager[object]:
    """``store.attended(...)``, of each copy where there are several; nothing for a store that never tries again."""
    stack = contextlib.ExitStack()
    for copy in getattr(store, "copies", (store,)):
        attend = getattr(copy, "attended", None)
        if attend is not None:
            stack.enter_context(attend(on_retry, cancel, patience))
    return stack


def retry_text(why: str, attempt: int, pause: float) -> str:
    """One sentence for people: what went wrong, and when it is tried again."""
    when = f"in {max(1, round(pause))} s" if pause else "at once"
    return f"{why} Trying again {when} (attempt {attempt})."


class RetryTeller:
    """A RetryListener that counts each retry (``total``, and by calling ``count``) and tells of outages in Messages
    of ``step``. Thread-safe.

    An attempt without a pause is a debug message: mostly an idle connection was closed. ``note`` is for the progress:
    what is waited for right now, until ``over``.
    """

    def __init__(self, listener: Listener, step: str, count: Callable[[], None] | None = None) -> None:
        self._listener = listener
        self._step = step
        self._count = count
        self.total = 0
        self._lock = threading.Lock()
        self._last: tuple[str, bool] = ("", False)
        self._next = 0.0
        self._attempt = 0
        self._due = 0.0

    def note(self) -> str:
        """``reconnecting, attempt 3, next in 8 s`` while an outage lasts; else empty."""
        with self._lock:
            attempt, left = self._attempt, self._due - time.monotonic()
        if not attempt or left < -_LINGERS:
            return ""
        return f"reconnecting, attempt {attempt}" + (f", next in {math.ceil(left)} s" if left > 0 else "")

    def over(self) -> None:
        """Bytes arrive (again)."""
        with self._lock:
            self._attempt = 0

    def __call__(self, why: str, attempt: int, pause: float) -> None:
        if self._count is not None:
            self._count()
        now = time.monotonic()
        with self._lock:
            self.total += 1
            self._attempt, self._due = attempt, now + pause
            if (why, pause > 0) == self._last and now < self._next:
                return
            self._last, self._next = (why, pause > 0), now + _QUIET
        text = retry_text(why, attempt, pause)
        self._listener(Message(level="warning" if pause else "debug", text=text, step=self._step))


class Aside:
    """Runs calls one at a time in a thread of its own, which keeps its connection; a call that hangs (in a system
    call that nothing ends: DNS, a stalled socket, NFS) can be left to itself. Only for what changes nothing."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        threading.Thread(target=_serve, args=(self._calls,), name="aside", daemon=True).start()
        weakref.finalize(self, self._calls.put, None)

    def call(self, read: Callable[[], T], stop: threading.Event) -> T:
        """What ``read`` returns or raises; CancelledError as soon as ``stop`` is set. No more calls after that."""
        future: Future[T] = Future()
        self._calls.put((future, read))
        while True:
            with contextlib.suppress(TimeoutError):
                future.exception(_TICK)
            if future.done():
                return future.result()
            if stop.is_set():
                raise CancelledError("Stopped while waiting for the repository.")


def _serve(calls: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None]) -> None:
    while (call := calls.get()) is not None:
        future, read = call
        try:
            future.set_result(read())
        except BaseException as error:
            future.set_exception(error)
        del call, future, read
