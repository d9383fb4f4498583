"""Sizes, rates, durations and the estimate of the time left."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recovery.errors import UsageError
from recovery.units import GIB, MIB, RateMeter, format_duration, format_rate, format_size, parse_size


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1536, "1.50 KiB"),
        (10 * MIB, "10.0 MiB"),
        (120 * GIB, "120 GiB"),
        (20 * 1024 * GIB, "20.0 TiB"),
    ],
)
def test_sizes_are_written_with_three_figures(size: int, text: str) -> None:
    assert format_size(size) == text


@pytest.mark.parametrize(
    ("text", "size"), [("64 MiB", 64 * MIB), ("64M", 64 * MIB), ("20GB", 20 * 10**9), ("4096", 4096), ("1.5k", 1536)]
)
def test_sizes_are_read_as_people_write_them(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "MiB", "12 parsecs", "-3M", "0x10"])
def test_a_bad_size_says_how_to_write_one(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_size(text)
    assert "64MiB" in caught.value.hint


@given(st.integers(min_value=0, max_value=2**63))
def test_what_is_written_can_be_read_within_rounding(size: int) -> None:
    assert parse_size(format_size(size)) == pytest.approx(size, rel=0.01)


def test_durations_and_rates() -> None:
    assert format_duration(75) == "1:15"
    assert format_duration(3675) == "1:01:15"
    assert format_rate(1.2e9) == "1200 MB/s"
    assert format_rate(3.4e6) == "3.4 MB/s"


def test_the_meter_follows_a_steady_stream_and_knows_the_rest() -> None:
    now = 0.0
    meter = RateMeter(half_life=1.0, clock=lambda: now)
    for second in range(1, 20):
        now = float(second)
        rate = meter.update(second * 100)
    assert rate == pytest.approx(100)
    assert meter.eta(500) == pytest.approx(5)


def test_the_meter_knows_nothing_before_it_saw_anything() -> None:
    assert RateMeter().eta(100) is None
