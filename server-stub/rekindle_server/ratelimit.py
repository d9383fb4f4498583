"""Slows down guessing: after a few failures each further attempt has to wait, twice as long every time."""

from __future__ import annotations

import ipaddress
import threading
import time
from collections.abc import Callable

#: Failures that cost nothing: a person mistypes.
FREE_FAILURES = 5
#: The longest wait in seconds, for an address and for a user. A user's is short: guessing must not lock people out.
MAX_DELAY_ADDRESS = 900.0
MAX_DELAY_USER = 30.0
#: A key is forgotten after this many seconds without a failure.
FORGET_AFTER = 3600.0
_MAX_KEYS = 10_000


class RateLimiter:
    """Counts failed attempts by key. Thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        #: key -> (failures, time of the newest, seconds to wait after it)
        self._failures: dict[str, tuple[int, float, float]] = {}

    def wait_time(self, *keys: str) -> float:
        """Seconds until an attempt under all of these keys is allowed; 0.0 when it is allowed now."""
        now = self._clock()
        with self._lock:
            waits = [at + delay - now for _, at, delay in map(self._failures.get, keys, [(0, now, 0.0)] * len(keys))]
        return max(0.0, *waits)

    def failed(self, *keys: str) -> None:
        """An attempt under these keys failed."""
        now = self._clock()
        with self._lock:
            if len(self._failures) >= _MAX_KEYS:
                self._forget(now)
            for key in keys:
                count, at, _ = self._failures.get(key, (0, now, 0.0))
                count = 1 if now - at > FORGET_AFTER else count + 1
                longest = MAX_DELAY_USER if key.startswith("user:") else MAX_DELAY_ADDRESS
                delay = min(longest, 2.0 ** min(30, count - FREE_FAILURES)) if count >= FREE_FAILURES else 0.0
                self._failures[key] = (count, now, delay)

    def succeeded(self, *keys: str) -> None:
        """An attempt under these keys succeeded. A user's failures are forgotten; an address gets just this attempt
        back and may go on at once, or one valid account would make guessing at all others free."""
        with self._lock:
            for key in keys:
                count, at, _ = self._failures.pop(key, (0, 0.0, 0.0))
                if not key.startswith("user:") and count > 1:
                    self._failures[key] = (count - 1, at, 0.0)

    def _forget(self, now: float) -> None:
        """Keep the table bounded: what is old goes, and if that is not half of it, the oldest."""
        newest_first = sorted(self._failures.items(), key=lambda item: item[1][1], reverse=True)
        self._failures = {k: v for k, v in newest_first[: _MAX_KEYS // 2] if now - v[1] < FORGET_AFTER}


def address_key(address: str) -> str:
    """The key of a client address. IPv6 counts by /64: one machine owns a whole one."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return f"address:{address}"
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return f"address:{ip.ipv4_mapped}"
        return f"address:{ipaddress.ip_network((ip, 64), strict=False)}"
    return f"address:{ip}"


def user_key(user: str) -> str:
    """The key of a user name."""
    return f"user:{user}"
