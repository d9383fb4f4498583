"""What is said of a clock that is wrong: by how much, and what to do."""

from __future__ import annotations

import email.utils
import time
from collections.abc import Callable

import pytest

from recovery.repository.clock import difference, lag, server_time, why_not_valid

NOW = 1_790_000_000.0
YEAR = 365.2425 * 86400


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (10 * YEAR, "10.0 years behind the server's"),
        (-10 * YEAR, "10.0 years ahead of the server's"),
        (40 * 86400, "40 days behind the server's"),
        (-7200, "2 hours ahead of the server's"),
        (300, "5 minutes behind the server's"),
    ],
)
def test_a_difference_in_words(seconds: float, text: str) -> None:
    assert difference(seconds) == text


def test_a_clock_that_is_wrong_can_be_set_from_the_hint() -> None:
    said, hint = why_not_valid(NOW - 10 * YEAR, NOW)
    assert "10.0 years behind" in said
    assert "date -u -s '2026-09-21 14:13:20'" in hint
    assert "--ca" in hint


def test_a_certificate_that_is_out_of_date_is_not_blamed_on_the_clock() -> None:
    said, hint = why_not_valid(NOW + 30, NOW)
    assert "clock is right" in said
    assert "Restart 'rekindle serve'" in hint


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/New_York"])
def test_the_servers_clock_wherever_this_machine_is(zone: str, time_zone: Callable[[str], None]) -> None:
    time_zone(zone)
    assert server_time(email.utils.formatdate(NOW, usegmt=True)) == NOW
    assert [server_time(text) for text in (None, "", "yesterday", "Mon, 99 Foo 2026 99:00:00 GMT")] == [None] * 4
    assert lag(email.utils.formatdate(time.time() + 5)) == 0
    assert lag(None) == 0
    assert abs(lag(email.utils.formatdate(time.time() - YEAR)) + YEAR) < 5
