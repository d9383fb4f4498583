"""The figures of a running capture and the events that tell them."""

from __future__ import annotations

import threading

from recovery.events import Listener, Progress
from recovery.repository.attention import RetryTeller
from recovery.units import RateMeter

#: Seconds between two Progress events.
INTERVAL = 0.5
STEP = "capture"


class Figures:
    """Counts logical bytes looked at (``done``), bytes sent in packs and logical bytes in them, and bytes that needed
    no sending (holes, zeros, chunks that the repository has)."""

    def __init__(self, total: int, listener: Listener, retries: RetryTeller) -> None:
        self._retries = retries
        self._total = total
        self._listener = listener
        self._lock = threading.Lock()
        self._meter = RateMeter()
        self._done = self._transferred = self._written = self._skipped = 0
        self.note = ""

    def look_at(self, count: int) -> None:
        """``count`` logical bytes were read, or are a hole."""
        with self._lock:
            self._done += count

    def skip(self, count: int) -> None:
        """``count`` logical bytes need not be stored."""
        with self._lock:
            self._skipped += count

    def transfer(self, sent: int, plain: int) -> None:
        """A pack of ``sent`` bytes with ``plain`` logical bytes was stored."""
        self._retries.over()
        with self._lock:
            self._transferred += sent
            self._written += plain

    def tell(self) -> None:
        """Emit a Progress event."""
        with self._lock:
            rate = self._meter.update(self._done)
            event = Progress(
                step=STEP,
                done=self._done,
                total=self._total,
                transferred=self._transferred,
                written=self._written,
                skipped=self._skipped,
                rate=rate,
                eta=self._meter.eta(self._total - self._done),
                retries=self._retries.total,
                note=self._retries.note() or self.note,
            )
        self._listener(event)

    def tell_until(self, stop: threading.Event) -> None:
        """Emit events now and then until ``stop``."""
        while not stop.wait(INTERVAL):
            self.tell()

    @property
    def transferred(self) -> int:
        """Bytes of packs sent so far."""
        return self._transferred

    @property
    def skipped(self) -> int:
        """Logical bytes that needed no sending."""
        return self._skipped
