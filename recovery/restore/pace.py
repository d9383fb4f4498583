"""How many reads go on at once: as many as make the restore faster, fewer again where more make it slower.

A USB disk wants one reader, a LAN a few, a far store many. Fetching and decoding are limited apart from each other, so
reads go on while the cores are busy, and the cores do not wait while a far store does.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

from recovery.errors import CancelledError

#: What a trial must bring to be kept: bytes a second vary by themselves.
_BRINGS = 1.06
#: After a trial in vain so many periods pass until the next one, then twice as many, up to these.
_PATIENCE, _LONGEST_PATIENCE = 8, 128
#: Decoders that are busy for this share of the time have enough to do.
_FED = 0.85
#: A period has so many reads of each reader, so many in all, and takes so many seconds, at least: fewer say nothing.
_READS, _ALL_READS, _PERIOD = 2, 8, 0.5
_TICK = 0.2


class Tuner:
    """Decides how many readers there should be, by trial. Pure: one ``step`` for each period.

    While decoders starve it doubles the readers as long as that brings more, and later tries a few more or a few fewer
    now and then; what did not bring more is taken back.
    """

    def __init__(self, first: int, most: int, least: int = 1) -> None:
        self.level = min(max(first, least), most)
        self._least, self._most = least, most
        self._before: tuple[int, float] | None = None
        self._growing = True
        self._up = True
        self._left = 0
        self._patience = _PATIENCE

    def step(self, rate: float, starved: bool) -> int:
        """A period has ended in which ``rate`` bytes a second arrived, and decoders ``starved`` or did not. Returns
        how many readers there should be now."""
        if self._before is not None:
            self._judge(*self._before, rate, starved)
        elif self._left:
            self._left -= 1
        elif starved and rate > 0:
            self._try(rate)
        return self.level

    def _judge(self, level: int, before: float, rate: float, starved: bool) -> None:
        self._before = None
        more = self.level > level
        if rate >= before * _BRINGS:
            self._patience = _PATIENCE
            self._up = more
            if self._growing and starved:
                self._try(rate)
            return
        self.level = level
        self._growing = False
        self._up = not more
        self._left, self._patience = self._patience, min(2 * self._patience, _LONGEST_PATIENCE)

    def _try(self, rate: float) -> None:
        change = self.level if self._growing else max(1, self.level // 3)
        level = min(self._most, self.level + change) if self._up else max(self._least, self.level - change)
        if level == self.level:
            self._growing, self._up = False, not self._up
            return
        self._before, self.level = (self.level, rate), level


class Gate:
    """Lets ``limit`` threads through at once, which may change."""

    def __init__(self, limit: int, stop: threading.Event) -> None:
        self._stop = stop
        self._condition = threading.Condition()
        self._limit = limit
        self._inside = 0
        self._busy = 0.0
        self._since = time.monotonic()

    @property
    def limit(self) -> int:
        """How many at once."""
        return self._limit

    @limit.setter
    def limit(self, limit: int) -> None:
        with self._condition:
            self._limit = limit
            self._condition.notify_all()

    def busy(self) -> float:
        """Seconds that threads have been inside, all together."""
        with self._condition:
            self._count(0)
            return self._busy

    def _count(self, change: int) -> None:
        now = time.monotonic()
        self._busy += (now - self._since) * self._inside
        self._since = now
        self._inside += change

    @contextlib.contextmanager
    def passed(self) -> Iterator[None]:
        """For the block this thread is inside. Raises CancelledError when the restore stops while it waits."""
        with self._condition:
            while self._inside >= self._limit:
                if self._stop.is_set():
                    raise CancelledError("The restore was stopped.")
                self._condition.wait(_TICK)
            self._count(1)
        try:
            yield
        finally:
            with self._condition:
                self._count(-1)
                self._condition.notify()


class Pace:
    """The gates that workers pass with each range: ``reading`` while they fetch it, ``decoding`` after that.

    ``threads`` is how many workers there must be for both gates to be full. Thread-safe.
    """

    def __init__(self, readers: int, decoders: int, stop: threading.Event, *, most: int = 0) -> None:
        """``most`` readers; 0: always ``readers``. A source that is not begun with one reader has always two: while
        the one's request travels, the other's bytes come."""
        self._tuner = Tuner(readers, most, min(readers, 2, most)) if most else None
        self.reading = Gate(self._tuner.level if self._tuner else readers, stop)
        self.decoding = Gate(decoders, stop)
        self._lock = threading.Lock()
        self._begin, self._busy = time.monotonic(), 0.0
        self._reads = self._bytes = 0

    @property
    def threads(self) -> int:
        """Workers wanted now."""
        return self.reading.limit + self.decoding.limit if self._tuner else self.decoding.limit

    def arrived(self, length: int) -> None:
        """A read of so many bytes has ended; now and then the number of readers is changed after it.

        Only reads that end begin and end periods: with few of them the rate is still right.
        """
        if self._tuner is None:
            return
        with self._lock:
            now = time.monotonic()
            self._reads += 1
            self._bytes += length
            seconds = now - self._begin
            if seconds < _PERIOD or self._reads < max(_ALL_READS, _READS * self.reading.limit):
                return
            busy = self.decoding.busy()
            fed = (busy - self._busy) / (seconds * self.decoding.limit)
            level = self._tuner.step(self._bytes / seconds, fed < _FED)
            self._begin, self._busy, self._reads, self._bytes = now, busy, 0, 0
            if level != self.reading.limit:
                self.reading.limit = level
