"""Which points are kept, for any points and tiers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recovery.errors import UsageError
from recovery.format.point import Retention
from recovery.repository.retention import Candidate, Decision, decide

MINUTE, HOUR, DAY, WEEK = 60, 3600, 86400, 7 * 86400
START = 1_790_000_000.0

tiers = st.builds(
    Retention,
    minutes=st.integers(0, 120), hours=st.integers(0, 48), days=st.integers(0, 14), weeks=st.integers(0, 8),
).filter(lambda kept: kept != Retention())  # fmt: skip


@st.composite
def histories(draw: st.DrawFn) -> list[Candidate]:
    """Keyframes, and between them points with journals, each of which needs the keyframe before it; in any order."""
    made: list[Candidate] = []
    created, keyframe = START, ""
    for number in range(draw(st.integers(0, 60))):
        created += draw(st.sampled_from([1.0, 20.0, 61.0, 1800.0, 3601.0, 40_000.0, 90_000.0, 700_000.0]))
        journal = bool(keyframe) and draw(st.booleans())
        made.append(
            Candidate(id=f"{number:04}", created=created, journal=journal, needs=(keyframe,) if journal else ())
        )
        keyframe = keyframe if journal else f"{number:04}"
    return draw(st.permutations(made))


@given(histories(), tiers)
def test_what_is_kept_is_whole(points: list[Candidate], kept: Retention) -> None:
    decision = decide(points, kept)
    ids = {point.id for point in points}
    assert set(decision.keep) | set(decision.remove) == ids
    assert not set(decision.keep) & set(decision.remove)
    assert len(set(decision.remove)) == len(decision.remove)
    by_id = {point.id: point for point in points}
    if points:
        newest = max(points, key=lambda point: point.created)
        assert "newest" in decision.keep[newest.id]
    for id in decision.keep:
        # Never a keyframe that a kept journal needs, never a point that another kept one needs.
        assert set(by_id[id].needs) <= set(decision.keep)
    created = [by_id[id].created for id in decision.remove]
    assert created == sorted(created)


@given(histories(), tiers)
def test_every_period_that_a_tier_promises_has_a_point(points: list[Candidate], kept: Retention) -> None:
    decision = decide(points, kept)
    for seconds, shift, count in (
        (MINUTE, 0, kept.minutes), (HOUR, 0, kept.hours), (DAY, 0, kept.days), (WEEK, 3 * DAY, kept.weeks),
    ):  # fmt: skip
        periods = sorted({(point.created + shift) // seconds for point in points}, reverse=True)[:count]
        there = {(point.created + shift) // seconds for point in points if point.id in decision.keep}
        assert set(periods) <= there


@given(histories(), tiers)
def test_pruning_again_removes_nothing_more(points: list[Candidate], kept: Retention) -> None:
    first = decide(points, kept)
    left = [point for point in points if point.id in first.keep]
    assert decide(left, kept).remove == ()


@given(histories(), tiers, st.integers(0, 59))
def test_a_new_point_never_brings_one_back_into_danger(points: list[Candidate], kept: Retention, more: int) -> None:
    """Tiers count periods that have points: without new points, time alone removes nothing."""
    if not points:
        return
    newest = max(points, key=lambda point: point.created)
    later = Candidate(id="later", created=newest.created + more + 1)
    decision = decide([*points, later], kept)
    assert "later" in decision.keep


def test_an_hour_keeps_its_keyframe_and_a_minute_its_newest_point() -> None:
    start = START // HOUR * HOUR
    points = [Candidate(id="key", created=start + 1)]
    points += [Candidate(id=f"j{n}", created=start + 60 * n, journal=True, needs=("key",)) for n in range(1, 50)]
    assert decide(points, Retention(hours=5)).keep == {"j49": ("newest",), "key": ("hour", "needed")}
    decision = decide(points, Retention(minutes=3))
    assert set(decision.keep) == {"j49", "j48", "j47", "key"}
    assert decision.keep["j49"] == ("newest", "minute")
    other = decide([point for point in points if point.id != "key"], Retention(days=1))
    assert other.keep == {"j49": ("newest", "day")}


def test_nothing_to_keep_is_refused() -> None:
    with pytest.raises(UsageError, match="keep nothing"):
        decide([Candidate(id="a", created=START)], Retention())
    assert decide([], Retention(days=1)) == Decision(keep={}, remove=())
