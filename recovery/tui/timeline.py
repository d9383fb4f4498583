"""The points of a host as a timeline: days, hours, the minutes inside, consistency, how much changed. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from itertools import groupby

from recovery.format.point import Point, PointSummary
from recovery.tui.describe import age
from recovery.tui.glyphs import AMOUNT
from recovery.tui.widgets.choice import HEADING
from recovery.units import format_count, format_size
from recovery.when import When

#: Cells of the bar that shows how much changed.
_BAR = 8
#: An hour with more points than these shows its newest, and a row that opens the others.
_FOLDED_FROM = 6
#: The id of such a row is this, and the id of the hour's newest point.
FOLD = "hour:"


def changed(point: Point) -> int:
    """Bytes that differ from the point before."""
    return sum(disk.changed for disk in point.body.disks)


@dataclass(frozen=True)
class Timeline:
    """The points shown, newest first. Times are those of this machine's zone."""

    points: tuple[PointSummary, ...]
    now: float
    opened: frozenset[str] = frozenset()
    """The newest points of hours that are shown minute by minute."""

    @classmethod
    def of(cls, points: Sequence[PointSummary], now: float, when: When | None = None) -> Timeline:
        """All points, or those that ``when`` means."""
        meant = [point for point in points if when is None or when.holds(point.created)]
        return cls(tuple(sorted(meant, key=lambda point: -point.created)), now)

    def rows(self, width: int) -> list[tuple[str, str]]:
        """Headings of days, and an empty text for each point: ``row`` makes it when it comes into sight."""
        found: list[tuple[str, str]] = []
        for day, group in groupby(self.points, key=lambda point: _here(point.created).date()):
            ids = [point.id for point in group]
            count = format_count(len(ids), "point")
            past = (_here(self.now).date() - day).days
            name = {0: ", today", 1: ", yesterday"}.get(past, f", {past} days ago" if past > 0 else "")
            found.append((HEADING, f"── {day:%a %Y-%m-%d}{name}, {count} ".ljust(width, "─")))
            for hour in self._hours(ids):
                folded = len(hour) > _FOLDED_FROM and hour[0] not in self.opened
                found += [(hour[0], ""), (FOLD + hour[0], "")] if folded else [(id, "") for id in hour]
        return found

    def _hours(self, ids: Sequence[str]) -> list[list[str]]:
        """Ids of one day, newest first, by hour."""
        by_hour = groupby(ids, key=lambda id: _key(self.points[self._places[id]].created, "hour"))
        return [list(group) for _, group in by_hour]

    def open(self, fold: str) -> Timeline:
        """The same with the hour of this row shown minute by minute."""
        return replace(self, opened=self.opened | {fold.removeprefix(FOLD)})

    def hidden(self, fold: str) -> tuple[PointSummary, ...]:
        """The points that a row like this stands for, newest first."""
        first = self._places[fold.removeprefix(FOLD)]
        hour = _key(self.points[first].created, "hour")
        end = first + 1
        while end < len(self.points) and _key(self.points[end].created, "hour") == hour:
            end += 1
        return self.points[first + 1 : end]

    def row(self, id: str, details: Mapping[str, Point], unreadable: Collection[str] = ()) -> str:
        """Below ``head``: hour (on its newest point), time here and in UTC, age, consistency, change and note; or what
        Enter opens."""
        if id.startswith(FOLD):
            hidden = self.hidden(id)
            first, last = _here(hidden[-1].created), _here(hidden[0].created)
            return f"    {len(hidden)} more from {first:%H:%M} to {last:%H:%M}: Enter shows every minute"
        index = self._places[id]
        summary = self.points[index]
        here, there = _here(summary.created), datetime.fromtimestamp(summary.created, UTC)
        before = _here(self.points[index - 1].created) if index else None
        same_hour = before is not None and (before.date(), before.hour) == (here.date(), here.hour)
        hour = "   " if same_hour else f"{here:%H}h"
        # The same cells for another day: "Thu 23:13".
        utc = f"{there:%H:%M} UTC" if here.date() == there.date() else f"{there:%a %H:%M}"
        utc = f"{utc:<10}" if self._shifted else ""
        text = f"{hour} {here:{self._clock}} {utc}{age(summary.created, self.now):<14}"
        if id in details:
            return f"{text} {self._facts(details[id], details)}".rstrip()
        return f"{text} {'cannot be read' if id in unreadable else 'reading ...'}"

    def _facts(self, point: Point, details: Mapping[str, Point]) -> str:
        if not point.header.parent:
            change = f"first, {format_size(point.size)}"
        else:
            most = max((changed(other) for other in details.values() if other.header.parent), default=0)
            cells = -(-changed(point) * _BAR // most) if most else 0
            change = f"+{format_size(changed(point))} {AMOUNT * cells}"
        return f"{point.body.consistency:<11} {change:<18} {point.body.note}"

    def head(self) -> str:
        """What stands over the columns of ``row``."""
        here = _here(self.points[0].created if self.points else self.now)
        utc = f"{'in UTC':<10}" if self._shifted else ""
        return f"    {'Time':<{len(f'{here:{self._clock}}')}} {utc}{'Age':<14} {'Consistency':<11} Changed"

    @cached_property
    def _clock(self) -> str:
        """With seconds where two points share a minute."""
        minutes = [point.created // 60 for point in self.points]
        return "%H:%M:%S %Z" if len(set(minutes)) < len(minutes) else "%H:%M %Z"

    @property
    def _shifted(self) -> bool:
        """Whether local time is another than UTC, at the newest or the oldest point."""
        return any(_here(point.created).utcoffset() for point in self.points[:: max(1, len(self.points) - 1)])

    @cached_property
    def _places(self) -> dict[str, int]:
        return {point.id: index for index, point in enumerate(self.points)}

    def jump(self, id: str, unit: str, direction: int) -> str:
        """The newest point of the next ``day`` or ``hour`` that has one: ``direction`` -1 back in time, 1 forth."""
        index = self._places.get(id.removeprefix(FOLD))
        if index is None:
            return id
        keys = [_key(point.created, unit) for point in self.points]
        if direction < 0:
            return next((p.id for p, key in zip(self.points, keys, strict=True) if key < keys[index]), id)
        later = [key for key in keys if key > keys[index]]
        return self.points[keys.index(min(later))].id if later else self.points[keys.index(keys[index])].id


def _key(created: float, unit: str) -> tuple[int, ...]:
    here = _here(created)
    if unit == "day":
        return (here.toordinal(),)
    # In UTC, which keeps the two hours apart that a clock change gives one name; some zones begin them at half past.
    offset = here.utcoffset()
    return (here.toordinal(), int((created + (offset.total_seconds() if offset else 0) % 3600) // 3600))


def _here(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds).astimezone()
