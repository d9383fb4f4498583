"""The list of points: an hour full of minutes is one row."""

from __future__ import annotations

from recovery.cli.points import fold_hours
from recovery.format.point import PointSummary


def test_the_newest_of_an_hour_stands_for_its_minutes() -> None:
    begin = 1_700_000_000 // 3600 * 3600.0
    minutes = [PointSummary(id=f"m{n}", host="h", created=begin + 60 * n) for n in range(60)]
    before = [PointSummary(id=f"b{n}", host="h", created=begin - 600 * n - 1) for n in range(3)]
    rows = fold_hours([*reversed(before), *minutes])
    assert [(point.id, folded) for point, folded in rows] == [("m59", 59), ("b0", 0), ("b1", 0), ("b2", 0)]
