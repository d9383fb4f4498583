"""Sizes, rates and durations as people read them, and an estimate of the time left.

Sizes are binary (KiB = 1024 bytes), rates are decimal (MB/s = 10^6 bytes per second), as disks and links are sold.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from recovery.errors import UsageError

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
TIB = 1024 * GIB

_SUFFIXES = {
    "": 1,
    "B": 1,
    "K": KIB,
    "KIB": KIB,
    "M": MIB,
    "MIB": MIB,
    "G": GIB,
    "GIB": GIB,
    "T": TIB,
    "TIB": TIB,
}
_DECIMAL = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


def format_size(size: int) -> str:
    """``1536`` -> ``"1.5 KiB"``; three significant figures at most."""
    value = float(size)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(value) < 1024 or unit == "TiB":
            break
        value /= 1024
    if unit == "B":
        return f"{size} B"
    return (
        f"{value:.2f} {unit}"
        if abs(value) < 10
        else f"{value:.1f} {unit}"
        if abs(value) < 100
        else f"{value:.0f} {unit}"
    )


def format_count(count: int, noun: str, plural: str = "") -> str:
    """``1, "disk"`` -> ``"1 disk"``, ``2, "disk"`` -> ``"2 disks"``."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def parse_size(text: str) -> int:
    """``"64 MiB"``, ``"64M"``, ``"20GB"`` or ``"4096"`` -> bytes. Raises UsageError."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    unit = match.group(2).upper() if match else ""
    factor = _SUFFIXES.get(unit) or _DECIMAL.get(unit)
    if not match or not factor:
        raise UsageError(f"'{text}' is not a size.", hint="Write a number with a unit, such as 64MiB, 20GB or 4096.")
    return int(float(match.group(1)) * factor)


def format_rate(bytes_per_second: float) -> str:
    """``1.2e9`` -> ``"1200 MB/s"``."""
    if bytes_per_second < 1e6:
        return f"{bytes_per_second / 1e3:.0f} kB/s"
    return f"{bytes_per_second / 1e6:.0f} MB/s" if bytes_per_second >= 1e7 else f"{bytes_per_second / 1e6:.1f} MB/s"


def format_duration(seconds: float) -> str:
    """``75`` -> ``"1:15"``, ``3675`` -> ``"1:01:15"``."""
    whole = max(0, round(seconds))
    hours, rest = divmod(whole, 3600)
    minutes, secs = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{secs:02}" if hours else f"{minutes}:{secs:02}"


class RateMeter:
    """An exponentially weighted rate and the time left.

    ``half_life`` seconds: the weight of a sample halves in that time, so the figure neither jumps nor lags.
    """

    def __init__(self, half_life: float = 5.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._half_life = half_life
        self._clock = clock
        self._last_time = clock()
        self._last_value = 0
        self._rate: float | None = None

    def update(self, value: int) -> float:
        """Tell the meter the total so far; returns the rate in units per second."""
        now = self._clock()
        elapsed = now - self._last_time
        if elapsed < 0.05:
            return self._rate or 0.0
        sample = max(0, value - self._last_value) / elapsed
        weight = 0.5 ** (elapsed / self._half_life)
        self._rate = sample if self._rate is None else self._rate * weight + sample * (1 - weight)
        self._last_time, self._last_value = now, value
        return self._rate

    def eta(self, remaining: int) -> float | None:
        """Seconds until ``remaining`` more units are done, or None while nothing is known."""
        return remaining / self._rate if self._rate else None
