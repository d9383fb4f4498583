"""Which points of a host are kept: so many minutes, hours, days and weeks. Pure; times are UTC."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from recovery.errors import UsageError
from recovery.format.point import Retention

#: Tier -> seconds. Weeks begin on Monday: the epoch was a Thursday.
_TIERS = (("minutes", 60, 0), ("hours", 3600, 0), ("days", 86400, 0), ("weeks", 7 * 86400, 3 * 86400))


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A point of one host. ``created`` is seconds since the epoch; ``needs`` the ids of points that it builds on (the
    keyframe of a point with journals), wherever these are still there."""

    id: str
    created: float
    journal: bool = False
    needs: tuple[str, ...] = ()


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """``keep``: id -> why, in words such as ``newest`` and ``hour``; ``remove``: ids, the oldest first."""

    keep: dict[str, tuple[str, ...]]
    remove: tuple[str, ...]


def decide(points: Sequence[Candidate], tiers: Retention) -> Decision:
    """What to keep of one host's points.

    A tier of n keeps one point of each of the n newest minutes (hours ...) that have any, so a host that is not
    captured any more loses nothing. Of a minute that is its newest point; of an hour, a day and a week its newest
    keyframe, which needs no journals, or its newest point when it has none. The newest point is always kept, and
    whatever a point that is kept needs. Raises UsageError for tiers that keep nothing.
    """
    if not any((tiers.minutes, tiers.hours, tiers.days, tiers.weeks)):
        raise UsageError(
            "These tiers keep nothing but the newest point.", hint="Keep some minutes, hours, days or weeks."
        )
    newest_first = sorted(points, key=lambda point: (point.created, point.id), reverse=True)
    keep: dict[str, tuple[str, ...]] = {}

    def mark(id: str, why: str) -> None:
        if why not in keep.setdefault(id, ()):
            keep[id] = (*keep[id], why)

    for point in newest_first[:1]:
        mark(point.id, "newest")
    for tier, seconds, shift in _TIERS:
        periods: dict[int, Candidate] = {}
        for point in newest_first:
            period = int((point.created + shift) // seconds)
            best = periods.get(period)
            if best is None:
                if len(periods) == getattr(tiers, tier):
                    break
                periods[period] = point
            elif tier != "minutes" and best.journal and not point.journal:
                periods[period] = point
        for point in periods.values():
            mark(point.id, tier.removesuffix("s"))
    there = {point.id: point for point in points}
    waiting = list(keep)
    while waiting:
        for needed in there[waiting.pop()].needs:
            if needed in there:
                if needed not in keep:
                    waiting.append(needed)
                mark(needed, "needed")
    removed = [point.id for point in reversed(newest_first) if point.id not in keep]
    return Decision(keep=keep, remove=tuple(removed))
