"""The alert hook: a program is run when the lag passes its limit, and again when it is back below."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

from recovery.commands import run
from recovery.errors import RekindleError

log = logging.getLogger("rekindle.agent")

#: Seconds that the program has.
_PATIENCE = 60.0


class Alert:
    """Decides when to run the command; runs it beside everything else."""

    def __init__(self, command: Sequence[str], limit: float, host: str) -> None:
        self._command, self._limit, self._host = tuple(command), limit, host
        self.raised = False
        self._running: threading.Thread | None = None

    def look(self, lag: float) -> bool:
        """``lag`` is what would be lost now, seconds. Whether the alert is raised."""
        passed = lag > self._limit
        if passed != self.raised:
            self.raised = passed
            if passed:
                log.error("The newest point is %.0f s old, more than the %.0f s allowed.", lag, self._limit)
            else:
                log.info("The newest point is young enough again.")
            self._run("late" if passed else "recovered", lag)
        return self.raised

    def _run(self, what: str, lag: float) -> None:
        if not self._command:
            return

        def call() -> None:
            environment = {"REKINDLE_ALERT": what, "REKINDLE_HOST": self._host, "REKINDLE_LAG": f"{lag:.0f}"}
            try:
                run(list(self._command), env=environment, timeout=_PATIENCE)
            except RekindleError as error:
                log.error("The alert command failed: %s", error.message)

        self._running = threading.Thread(target=call, name="agent-alert", daemon=True)
        self._running.start()

    def wait(self) -> None:
        """Until the program that was run last has ended."""
        if self._running is not None:
            self._running.join()
