"""An object store that is written to no faster than a rate, on average."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from recovery.repository.protocols import ObjectStore


class Pacer:
    """Waits so long that ``rate`` bytes a second are not exceeded on average; 0: never. ``total`` bytes were sent.
    Thread-safe."""

    def __init__(self, rate: int, stop: threading.Event, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._stop, self._clock = rate, stop, clock
        self._lock = threading.Lock()
        self._free_at = 0.0
        self.total = 0

    def spent(self, size: int) -> None:
        """So many bytes were sent: wait until more may be, or ``stop`` is set."""
        with self._lock:
            self.total += size
            if not self._rate:
                return
            self._free_at = max(self._free_at, self._clock()) + size / self._rate
            wait = self._free_at - self._clock()
        self._stop.wait(max(0.0, wait))


class PacedStore:
    """The ObjectStore it wraps, everything it can included; what is stored is paced."""

    def __init__(self, store: ObjectStore, pacer: Pacer) -> None:
        self._store, self._pacer = store, pacer

    def put_if_absent(self, name: str, data: bytes | memoryview) -> bool:
        """See ObjectStore; then wait until more may be sent."""
        new = self._store.put_if_absent(name, data)
        self._pacer.spent(len(data))
        return new

    def __getattr__(self, name: str) -> Any:
        # Readers, look-ups, locks and attention are those of the store itself, also those that only some have.
        return getattr(self._store, name)
