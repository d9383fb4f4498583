"""Threads that work a list of tasks off together; the first error, or the operator, stops them all."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import TypeVar

from recovery.errors import CancelledError

_TICK = 0.25
#: More threads than anybody wants; the pool starts one only for a loop that finds no idle thread.
_MOST = 256

T = TypeVar("T")


def work_off(
    tasks: Iterable[T],
    count: int,
    make_worker: Callable[[], Callable[[T], None]],
    stop: threading.Event,
    cancel: threading.Event,
    tick: Callable[[], None],
    wanted: Callable[[], int] | None = None,
) -> None:
    """Have ``count`` threads do all ``tasks``; ``make_worker`` is called once in each of them. ``tick`` is called
    a few times a second, and after it as many threads join as ``wanted`` says there should be by now.

    ``stop`` is set as soon as one fails; workers look at it and end. Raises what the first one raised, and
    CancelledError when ``cancel`` was set.
    """
    waiting, lock = iter(tasks), threading.Lock()

    def loop() -> None:
        try:
            work = make_worker()
            while not stop.is_set():
                with lock:
                    task = next(waiting, None)
                if task is None:
                    return
                work(task)
        except BaseException:
            stop.set()
            raise

    with ThreadPoolExecutor(_MOST) as pool:
        futures = [pool.submit(loop) for _ in range(count)]
        pending = set(futures)
        try:
            while pending:
                _, pending = wait(pending, timeout=_TICK, return_when=FIRST_EXCEPTION)
                if cancel.is_set():
                    stop.set()
                tick()
                if wanted is not None and pending and not stop.is_set():
                    more = [pool.submit(loop) for _ in range(wanted() - len(futures))]
                    futures += more
                    pending |= set(more)
        except BaseException:  # of the listener, or Ctrl-C: the pool would else write on to the end first
            stop.set()
            raise
    errors = [error for future in futures if (error := future.exception()) is not None]
    # What stopped the first worker is the cause; the others only say that they were stopped.
    causes = [error for error in errors if not isinstance(error, CancelledError)]
    if causes:
        raise causes[0]
    if cancel.is_set() or errors:
        raise CancelledError(
            "The restore was stopped; the disk is not complete and will not boot.",
            hint="Restore it again to complete it: what is right already is not fetched again.",
        )
