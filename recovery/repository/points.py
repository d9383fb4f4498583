"""The points of a host: listed by their names, which needs no keys, and chosen by id or by time."""

from __future__ import annotations

import contextlib
import datetime
import re
from collections.abc import Sequence

from recovery.errors import NotFoundError, UsageError
from recovery.format.names import check_host, parse_name
from recovery.format.point import PointSummary
from recovery.repository.protocols import ObjectStore
from recovery.when import EXAMPLES, parse_when

MIN_PREFIX = 4


def list_hosts(store: ObjectStore) -> list[str]:
    """The names of all hosts with a point, sorted; needs no keys."""
    return sorted({parsed.host for info in store.list("points/") if (parsed := parse_name(info.name))})


def list_points(store: ObjectStore, host: str) -> list[PointSummary]:
    """All points of a host, newest last, from their names alone; needs no keys."""
    names = (parse_name(info.name) for info in store.list(f"points/{check_host(host)}/"))
    found = [PointSummary(id=n.digest, host=n.host, created=n.created / 1e6) for n in names if n is not None]
    return sorted(found, key=lambda summary: summary.created)


def choose_point(points: Sequence[PointSummary], text: str) -> PointSummary:
    """The one of a host's points, newest last, that ``text`` means; see ``Repository.point``.

    Raises NotFoundError, UsageError (ambiguous).
    """
    if text == "latest":
        return points[-1]
    if re.fullmatch(rf"[0-9a-fA-F]{{{MIN_PREFIX},64}}", text):
        matching = [point for point in points if point.id.startswith(text.lower())]
        if len(matching) == 1:
            return matching[0]
        if matching:
            raise UsageError(
                f"'{text}' names {len(matching)} points of '{points[0].host}'.", hint="Type more of the id."
            )
    else:
        with contextlib.suppress(UsageError):
            return newest_at(points, parse_when(text, datetime.datetime.now().astimezone()).last)
    raise NotFoundError(
        f"Host '{points[0].host}' has no point '{text}'.",
        hint=f"It has {len(points)}, the newest is {points[-1].id[:12]}; 'latest' means that one, and a time like "
        f"{EXAMPLES} the last one before it.",
    )


def newest_at(points: Sequence[PointSummary], moment: float) -> PointSummary:
    """Of a host's points, newest last, the newest at or before ``moment``: each one is consistent, or it would not
    have been committed. Raises NotFoundError."""
    found = [point for point in points if point.created <= moment]
    if not found:
        oldest = datetime.datetime.fromtimestamp(points[0].created).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")
        raise NotFoundError(
            f"'{points[0].host}' has no point of that time or before it.",
            hint=f"The oldest one is of {oldest.strip()}.",
        )
    return found[-1]
