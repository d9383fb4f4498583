"""Sends what waits in the spool, in order, for as long as it takes; knows whether the server is there."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from recovery.agent.spool import Spool, Waiting
from recovery.errors import BusyError, CancelledError, IntegrityError, NotFoundError, RekindleError
from recovery.format.names import parse_name
from recovery.format.point import PointHeader, decode_header
from recovery.repository.repository import Repository

log = logging.getLogger("rekindle.agent")

_FIRST_WAIT, _LONGEST_WAIT = 1.0, 30.0
_TICK = 1.0
#: What a server says of bytes that were damaged on their way, and of ones that it will never take: after some tries
#: it is the latter.
_REFUSALS = (IntegrityError, NotFoundError)
_TRIES = 4


class Sender(threading.Thread):
    """The thread that empties the spool. ``online``: the last that was asked of the server was answered; ``trouble``
    what it said, or why it did not."""

    def __init__(
        self,
        repository: Repository,
        spool: Spool,
        stop: threading.Event,
        committed: Callable[[str, PointHeader, int], None],
        rejected: Callable[[str], None],
    ) -> None:
        """``committed`` hears of each point that is in the repository now (id, header, bytes sent since the one
        before); ``rejected`` that the repository will never take what waited, which was thrown away, and why."""
        super().__init__(name="agent-sender", daemon=True)
        self._repository, self._spool, self._ending = repository, spool, stop
        self._committed, self._rejected = committed, rejected
        self._sent = 0
        self.online = True
        self.trouble = ""

    def run(self) -> None:
        """Send until told to stop."""
        wait, refusals = _FIRST_WAIT, 0
        while not self._ending.is_set():
            try:
                self._step()
                self._answered()
                wait, refusals = _FIRST_WAIT, 0
            except CancelledError:
                return
            except RekindleError as error:
                refusals += isinstance(error, _REFUSALS)
                if isinstance(error, BusyError) or refusals >= _TRIES:
                    self._reject(error)
                    refusals = 0
                    continue
                self.away(error)
                self._ending.wait(wait)
                wait = min(2 * wait, _LONGEST_WAIT)
            except Exception:
                log.exception("Bug: sending failed unexpectedly; it is tried again")
                self._ending.wait(wait)
                wait = min(2 * wait, _LONGEST_WAIT)

    def away(self, error: RekindleError) -> None:
        """The server did not answer, or refused for now."""
        if self.online or self.trouble != error.message:
            log.warning("Points wait in the spool: %s", error.message)
        self.online, self.trouble = False, error.message

    def _answered(self) -> None:
        if not self.online:
            log.info("The server answers again; %d objects wait.", self._spool.count)
        self.online, self.trouble = True, ""

    def _step(self) -> None:
        waiting = self._spool.first(_TICK)
        if waiting is not None:
            self._send(waiting)
        elif not self.online:
            # Nothing to send: is it there again?
            self._repository.store.size("repo.json")

    def _send(self, waiting: Waiting) -> None:
        parsed = parse_name(waiting.name)
        if parsed is not None and parsed.kind == "point":
            self._repository.commit_made(waiting.name, waiting.data)
            self._spool.done(waiting.number)
            sent, self._sent = self._sent + len(waiting.data), 0
            self._committed(parsed.digest, decode_header(waiting.data), sent)
            return
        self._repository.store.put_if_absent(waiting.name, waiting.data)
        self._sent += len(waiting.data)
        self._spool.done(waiting.number)

    def _reject(self, error: RekindleError) -> None:
        count = self._spool.clear()
        log.error(
            "%s What waited (%d objects) is thrown away; the next point is a full compare.", error.message, count
        )
        self._sent = 0
        self._rejected(error.message)
