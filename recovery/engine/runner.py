"""The one run that the engine may have at a time: its thread, its state for the windows, its numbered events."""

from __future__ import annotations

import contextvars
import logging
import threading
from collections.abc import Callable
from typing import Protocol

import msgspec

from recovery.engine import report
from recovery.engine.api import Report, RunPhase, RunState
from recovery.engine.eventlog import EventLog
from recovery.engine.journal import Journal
from recovery.errors import BusyError, CancelledError, ErrorReport, RekindleError
from recovery.events import Event, Listener, RunFinished, StepStarted, tee

log = logging.getLogger("rekindle.engine")


class Job(Protocol):
    """What is run."""

    def execute(self) -> Report:
        """All of it. Raises what stops it."""

    def report(self) -> Report:
        """What was done so far."""


class Runner:
    """Runs plans, one after another. Thread-safe; its lock is never held for long."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._lock = threading.Lock()
        self._state = RunState()
        self._cancel = threading.Event()
        self._thread: threading.Thread | None = None
        self.events = EventLog()

    @property
    def running(self) -> bool:
        """A run goes on."""
        with self._lock:
            return self._state.phase == "running"

    def refuse_while_running(self, what: str) -> None:
        """Raises BusyError when a run goes on; ``what`` is what can't be done then."""
        if self.running:
            raise BusyError(f"{what} while a restore is running.", hint="Wait for its end, or stop it first.")

    def begin(self, state: RunState, make: Callable[[Listener, threading.Event, str], Job]) -> None:
        """Run in a thread what ``make`` makes of a listener, the event that stops it, and the log's path; ``state`` is
        how the run begins. Raises BusyError when one runs."""
        with self._lock:
            if self._state.phase == "running":
                raise BusyError("A restore is running.", hint="Watch it, or stop it first.")
            if self.events.finished:
                self.events = EventLog()
            self._cancel = threading.Event()
            self._state = msgspec.structs.replace(state, phase="running")
            job = make(tee(self._hear, self._journal.hear), self._cancel, str(self._journal.path))
            context = contextvars.copy_context()
            # Not a daemon: a CLI that ends early must not kill a disk in the middle of its last write.
            self._thread = threading.Thread(target=context.run, args=(self._execute, job), name="run")
            self._thread.start()

    def _execute(self, job: Job) -> None:
        phase: RunPhase = "finished"
        error: ErrorReport | None = None
        try:
            job.execute()
        except CancelledError as stopped:
            phase, error = "cancelled", stopped.report()
        except RekindleError as failed:
            phase, error = "failed", failed.report()
        except Exception:
            log.exception("bug in the run")
            phase, error = "failed", ErrorReport(
                "RekindleError", "The run met an unexpected error.", f"See the log in {self._journal.path}.", 70
            )  # fmt: skip
        found = job.report()
        report.write(found, error, self._journal.directory)
        with self._lock:
            self._state = msgspec.structs.replace(self._state, phase=phase, error=error, report=found)
            repair = self._state.plan is not None and not self._state.plan.choices.restore
        summary = _summary(found, repair=repair) if error is None else ""
        # Last, so that who waits for it finds the state as it is in the end.
        tee(self._hear, self._journal.hear)(RunFinished(error=error, summary=summary))

    def _hear(self, event: Event) -> None:
        if isinstance(event, StepStarted):
            with self._lock:
                self._state = msgspec.structs.replace(self._state, step=event.step)
        self.events.add(event)

    def cancel(self) -> None:
        """What runs stops at the next safe place; a finished run stays finished."""
        self._cancel.set()

    def state(self) -> RunState:
        """See EngineApi."""
        with self._lock:
            return msgspec.structs.replace(self._state, events=self.events.count)

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the run has ended."""
        if self._thread is not None:
            self._thread.join(timeout)


def _summary(found: Report, *, repair: bool) -> str:
    if repair:
        return "The host on these disks starts on this machine."
    what = f"The disks of {found.vm.name} were" if found.vm else f"{found.host} was"
    return f"{what} restored except for what no copy of the repository has." if found.damaged else f"{what} restored."
