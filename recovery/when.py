"""What an operator types to find a point in time: ``14:00``, ``yesterday 14:00``, ``2025-11-20``, ``3 hours ago``."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from recovery.errors import UsageError

_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_UNITS = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
#: The year 3000: what lies behind is a slip of the finger.
_LAST = 32_503_680_000
EXAMPLES = "14:00, yesterday 14:00, 2025-11-20, 3 hours ago"


@dataclass(frozen=True)
class When:
    """Points between ``first`` (None: from the beginning) and ``last``, seconds since the epoch, both included."""

    first: float | None
    last: float

    def holds(self, moment: float) -> bool:
        """Whether a point of that moment is meant."""
        return (self.first is None or self.first <= moment) and moment <= self.last


def parse_when(text: str, now: datetime) -> When:
    """See ``_parse``. Raises UsageError also for times that no clock has shown yet or no calendar holds."""
    with contextlib.suppress(OverflowError, ValueError, OSError):
        found = _parse(text, now)
        if 0 <= found.last < _LAST:
            return found
    raise _no_time(text)


def _no_time(text: str) -> UsageError:
    return UsageError(f"'{text.strip()}' is not a time.", hint=f"Type it like one of: {EXAMPLES}.")


def _parse(text: str, now: datetime) -> When:
    """A day means that day, a moment everything up to it. ``now`` is aware; what is typed is this machine's local
    time, unless it ends in Z or UTC.

    A time alone is the last one that has passed, a weekday the last such day. Raises UsageError.
    """
    words = re.sub(r"\s+", " ", text.strip().lower())
    ago = re.fullmatch(r"(\d+) ?(m|min|minutes?|h|hours?|d|days?|w|weeks?)( ago)?", words)
    if ago and (ago[3] or not words.endswith("h")):  # 14h is a time of the day
        return When(None, now.timestamp() - int(ago[1]) * _UNITS[ago[2][0]])
    in_utc = re.fullmatch(r"(.*?) ?(z|utc)", words)
    if in_utc:
        words, now = in_utc[1], now.astimezone(UTC)
    head, tail = _split(words)
    day = _day(head, now.date()) if head else None
    clock = _clock(tail) if tail else None
    if not words or (head and day is None) or (tail and clock is None):
        raise _no_time(text)
    if clock is None and day is not None:
        # By the zone's own rules: a day with a clock change has 23 or 25 hours.
        begin, end = (_moment(date, time(), in_utc is not None) for date in (day, day + timedelta(days=1)))
        return When(begin.timestamp(), end.timestamp() - 0.001)
    clock = clock or time()
    moment = _moment(day or now.date(), clock, in_utc is not None)
    if day is None and moment > now:
        moment = _moment(now.date() - timedelta(days=1), clock, in_utc is not None)
    # 14:00 means all of that minute, 14:00:05 that second.
    return When(None, moment.timestamp() + (0.999 if clock.second else 59.999))


def _split(words: str) -> tuple[str, str]:
    """The day and the time of it."""
    iso = re.fullmatch(r"(\d{4}-\d{2}-\d{2})t(.+)", words)
    if iso:
        return iso[1], iso[2]
    head, _, tail = words.rpartition(" ")
    return (head, tail) if _clock(tail) is not None else (words, "")


def _clock(text: str) -> time | None:
    """``14:00``, ``14:00:30``, ``14h``, ``14``, ``1400``."""
    found = re.fullmatch(r"(\d{1,2})(?:[:.](\d{2})(?::(\d{2}))?|h)?|(\d{2})(\d{2})", text)
    if not found:
        return None
    hour, minute = int(found[1] or found[4]), int(found[2] or found[5] or 0)
    second = int(found[3] or 0)
    return time(hour, minute, second) if hour < 24 and minute < 60 and second < 60 else None


def _day(text: str, today: date) -> date | None:
    if text in ("today", "yesterday"):
        return today - timedelta(days=text == "yesterday")
    if len(text) >= 2:
        for number, name in enumerate(_DAYS):
            if name.startswith(text):
                return today - timedelta(days=(today.weekday() - number) % 7)
    numbers = re.fullmatch(r"(\d{4})-(\d{1,2})-(\d{1,2})", text)
    if numbers:
        return _date(int(numbers[1]), int(numbers[2]), int(numbers[3]))
    short = re.fullmatch(r"(\d{1,2})-(\d{1,2})", text)
    if short:
        found = _date(today.year, int(short[1]), int(short[2]))
        return found if found is None or found <= today else found.replace(year=today.year - 1)
    return None


def _date(year: int, month: int, day: int) -> date | None:
    try:
        return date(year, month, day)
    except ValueError:
        return None


def _moment(day: date, clock: time, in_utc: bool) -> datetime:
    """That time of that day, in UTC or by the rules of this machine's zone (the offset may differ from today's)."""
    return datetime.combine(day, clock, UTC) if in_utc else datetime.combine(day, clock).astimezone()
