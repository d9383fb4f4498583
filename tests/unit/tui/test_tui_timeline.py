"""Points as a timeline: days, hours, jumps, and what is typed to find a time."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recovery.errors import UsageError
from recovery.format.point import PointSummary
from recovery.tui.timeline import FOLD, Timeline
from recovery.tui.widgets.choice import HEADING
from recovery.when import parse_when
from tests.unit.tui.fake_world import make_point


@pytest.fixture(autouse=True)
def berlin(time_zone: Callable[[str], None]) -> None:
    time_zone("Europe/Berlin")


def at(text: str) -> float:
    """``2025-11-22 15:00`` in Berlin."""
    return datetime.strptime(text, "%Y-%m-%d %H:%M").astimezone().timestamp()


NOW = "2025-11-22 15:30"  # a Saturday


@pytest.mark.parametrize(
    ("typed", "last"),
    [
        ("14:00", "2025-11-22 14:00"),
        ("14.05", "2025-11-22 14:05"),
        ("14", "2025-11-22 14:00"),
        ("14h", "2025-11-22 14:00"),
        ("1405", "2025-11-22 14:05"),
        ("23:00", "2025-11-21 23:00"),  # the last one that has passed
        ("yesterday 14:00", "2025-11-21 14:00"),
        ("  Yesterday   14:00 ", "2025-11-21 14:00"),
        ("thu 8:30", "2025-11-20 08:30"),
        ("saturday 8:30", "2025-11-22 08:30"),
        ("2025-11-20 14:00", "2025-11-20 14:00"),
        ("2025-11-20T14:00", "2025-11-20 14:00"),
        ("2025-11-20T13:00Z", "2025-11-20 14:00"),
        ("2025-11-20 13:00 utc", "2025-11-20 14:00"),
        ("13:00 UTC", "2025-11-22 14:00"),
        ("11-20 14:00", "2025-11-20 14:00"),
        ("12-24 14:00", "2024-12-24 14:00"),
        ("2025-10-26 14:00", "2025-10-26 14:00"),
        ("2025-07-01 14:00", "2025-07-01 14:00"),  # summer time then, not now
    ],
)
def test_a_moment_means_everything_up_to_it(typed: str, last: str) -> None:
    when = parse_when(typed, datetime.fromtimestamp(at(NOW)).astimezone())
    assert when.first is None
    assert when.holds(at(last))
    assert when.holds(at(last) + 59)
    assert not when.holds(at(last) + 60)


def test_seconds_and_ago() -> None:
    now = datetime.fromtimestamp(at(NOW)).astimezone()
    assert not parse_when("14:00:05", now).holds(at("2025-11-22 14:00") + 6)
    assert parse_when("14:00:05", now).holds(at("2025-11-22 14:00") + 5)
    assert parse_when("3 hours ago", now).last == at("2025-11-22 12:30")
    assert parse_when("2d", now).last == at("2025-11-20 15:30")
    assert parse_when("30 min", now).last == at("2025-11-22 15:00")


@pytest.mark.parametrize(
    ("typed", "first", "hours"),
    [
        ("yesterday", "2025-11-21 00:00", 24),
        ("today", "2025-11-22 00:00", 24),
        ("thu", "2025-11-20 00:00", 24),
        ("2025-11-20", "2025-11-20 00:00", 24),
        ("2025-10-26", "2025-10-26 00:00", 25),  # the clock was put back
        ("2025-03-30", "2025-03-30 00:00", 23),
    ],
)
def test_a_day_means_that_day(typed: str, first: str, hours: int) -> None:
    when = parse_when(typed, datetime.fromtimestamp(at(NOW)).astimezone())
    assert when.first == at(first)
    assert not when.holds(at(first) - 1)
    assert when.holds(at(first) + hours * 3600 - 1)
    assert not when.holds(at(first) + hours * 3600)


@pytest.mark.parametrize(
    "typed",
    [
        "",
        "   ",
        "foo",
        "25:00",
        "14:61",
        "2025-13-01",
        "2025-02-30 14:00",
        "- 14:00",
        "9999999999 weeks ago",
        "0001-01-01",
        "9999-12-31",
    ],
)
def test_what_is_no_time_is_refused_with_examples(typed: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_when(typed, datetime.fromtimestamp(at(NOW)).astimezone())
    assert "yesterday 14:00" in error.value.hint


@given(st.text(max_size=20))
def test_nothing_typed_breaks_it(typed: str) -> None:
    with contextlib.suppress(UsageError):
        assert parse_when(typed, datetime(2025, 11, 22, 15, 30, tzinfo=UTC).astimezone()).last >= 0


def timeline(*times: str) -> Timeline:
    return Timeline.of([PointSummary(id=text, host="h", created=at(text)) for text in times], at(NOW))


def test_days_are_headings_and_the_newest_is_on_top() -> None:
    shown = timeline("2025-11-20 09:00", "2025-11-22 14:00", "2025-11-22 14:30", "2025-11-21 23:59")
    rows = shown.rows(60)
    ids = ["", "2025-11-22 14:30", "2025-11-22 14:00", "", "2025-11-21 23:59", "", "2025-11-20 09:00"]
    assert [id for id, _ in rows] == ids
    headings = [text for id, text in rows if id == HEADING]
    assert headings[0].startswith("── Sat 2025-11-22, today, 2 points ─")
    assert headings[1].startswith("── Fri 2025-11-21, yesterday, 1 point ─")
    assert headings[2].startswith("── Thu 2025-11-20, 2 days ago, 1 point ─")
    assert {len(text) for text in headings} == {60}


def test_the_hour_stands_on_its_newest_point_only() -> None:
    shown = timeline("2025-11-22 14:00", "2025-11-22 14:30", "2025-11-22 13:59", "2025-11-21 13:30")
    starts = [shown.row(id, {})[:13] for id, _ in shown.rows(60) if id]
    assert starts == ["14h 14:30 CET", "    14:00 CET", "13h 13:59 CET", "13h 13:30 CET"]
    assert "12:59 UTC" in shown.row("2025-11-22 13:59", {})


def test_points_of_one_minute_are_told_apart_by_seconds_and_columns_have_names() -> None:
    shown = timeline("2025-11-22 14:30", "2025-11-22 14:31")
    assert shown.head().split() == ["Time", "in", "UTC", "Age", "Consistency", "Changed"]
    twice = [PointSummary(id=str(n), host="h", created=at("2025-11-22 14:30") + 20 * n) for n in (0, 1, 5)]
    close = Timeline.of(twice, at(NOW))
    assert [close.row(id, {})[4:16] for id in ("5", "1", "0")] == ["14:31:40 CET", "14:30:20 CET", "14:30:00 CET"]
    point = make_point(1)
    for times in (shown, close):
        row = times.row(times.points[0].id, {times.points[0].id: point})
        assert row.index("filesystem") == times.head().index("Consistency")
        assert row.index("ago") > times.head().index("Age") > row.index("UTC")


def test_jumps() -> None:
    times = [f"2025-11-{day} {hour:02}:{minute}" for day in (20, 21, 22) for hour in (3, 9) for minute in ("00", "30")]
    shown = timeline(*times)
    assert shown.jump("2025-11-22 09:00", "day", -1) == "2025-11-21 09:30"
    assert shown.jump("2025-11-21 03:00", "day", -1) == "2025-11-20 09:30"
    assert shown.jump("2025-11-20 03:00", "day", 1) == "2025-11-21 09:30"
    assert shown.jump("2025-11-20 03:00", "day", -1) == "2025-11-20 03:00"  # there is none before
    assert shown.jump("2025-11-22 03:00", "day", 1) == "2025-11-22 09:30"  # none after: the newest of its own
    assert shown.jump("2025-11-22 09:30", "hour", -1) == "2025-11-22 03:30"
    assert shown.jump("2025-11-22 03:30", "hour", -1) == "2025-11-21 09:30"
    assert shown.jump("2025-11-21 09:30", "hour", 1) == "2025-11-22 03:30"
    assert shown.jump("not there", "hour", 1) == "not there"


def test_the_size_of_change_is_a_figure_and_a_bar() -> None:
    points = {(p := make_point(number)).id: p for number in (1, 2, 3, 4)}
    summaries = [PointSummary(id=p.id, host="h", created=p.header.created) for p in points.values()]
    shown = Timeline.of(summaries, at(NOW))
    rows = [shown.row(id, points) for id, _ in shown.rows(76) if id]
    assert "offline     +4.69 GiB ■■■■■■■■" in rows[0]
    assert "filesystem  +2.64 GiB ■■■■■" in rows[1]
    assert rows[3].endswith("filesystem  first, 100 GiB")
    assert shown.row(rows_id := next(id for id, _ in shown.rows(76) if id), {}).endswith("reading ...") and rows_id
    assert max(map(len, rows)) <= 76


def test_an_hour_full_of_minutes_is_two_rows_until_it_is_opened() -> None:
    minutes = [f"2025-11-22 14:{minute:02}" for minute in range(60)]
    shown = timeline(*minutes, "2025-11-22 13:00", "2025-11-22 13:30")
    rows = [id for id, _ in shown.rows(60) if id]
    assert rows == ["2025-11-22 14:59", FOLD + "2025-11-22 14:59", "2025-11-22 13:30", "2025-11-22 13:00"]
    assert shown.row(rows[1], {}).strip() == "59 more from 14:00 to 14:58: Enter shows every minute"
    opened = shown.open(rows[1])
    assert [id for id, _ in opened.rows(60) if id][:60] == minutes[::-1]
    assert shown.jump(rows[1], "hour", -1) == "2025-11-22 13:30"
    # A time that was typed: its minute is on top, and nothing after it is shown.
    until = Timeline.of(shown.points, at(NOW), parse_when("14:23", datetime.fromtimestamp(at(NOW)).astimezone()))
    assert [id for id, _ in until.rows(60) if id][:2] == ["2025-11-22 14:23", FOLD + "2025-11-22 14:23"]


def test_the_last_minutes_before_the_clock_goes_back_are_an_hour_of_their_own() -> None:
    begin = datetime(2025, 10, 26, 0, 0, tzinfo=UTC).timestamp()  # 2:00 in Berlin, twice
    points = [PointSummary(id=str(n), host="h", created=begin + 60 * n) for n in range(120)]
    rows = [id for id, _ in Timeline.of(points, begin + 9000).rows(60) if id]
    assert rows == ["119", FOLD + "119", "59", FOLD + "59"]


def test_ten_thousand_points_are_ready_at_once() -> None:
    begin = at(NOW)
    points = [PointSummary(id=str(n), host="h", created=begin - n * 60) for n in range(10_000)]
    start = time.process_time()
    shown = Timeline.of(points, begin)
    rows = shown.rows(76)
    assert time.process_time() - start < 0.5  # about 0.03 s; the machine may be busy
    hours = {datetime.fromtimestamp(p.created, UTC).strftime("%Y%m%d%H") for p in points}  # of a zone of whole hours
    assert len(rows) == 2 * len(hours) + len({(datetime.fromtimestamp(p.created)).date() for p in points})
    assert shown.jump("0", "day", -1) == next(
        p.id
        for p in points
        if datetime.fromtimestamp(p.created).date() == (datetime.fromtimestamp(begin).date() - timedelta(days=1))
    )
