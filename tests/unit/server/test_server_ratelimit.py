"""Guessing gets slower; people are not locked out."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from rekindle_server.ratelimit import (
    FORGET_AFTER,
    FREE_FAILURES,
    MAX_DELAY_ADDRESS,
    MAX_DELAY_USER,
    RateLimiter,
    address_key,
    user_key,
)


class Clock:
    """A clock that stands until it is moved."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_delays_double_after_the_free_failures() -> None:
    clock = Clock()
    limiter = RateLimiter(clock)
    for _ in range(FREE_FAILURES - 1):
        limiter.failed("address:a")
        assert limiter.wait_time("address:a") == 0
    waits = []
    for _ in range(4):
        limiter.failed("address:a")
        waits.append(limiter.wait_time("address:a"))
        clock.now += waits[-1]
        assert limiter.wait_time("address:a") == 0
    assert waits == [1, 2, 4, 8]
    assert limiter.wait_time("address:b") == 0


def test_success_and_time_forget() -> None:
    clock = Clock()
    limiter = RateLimiter(clock)
    for _ in range(8):
        limiter.failed("address:a", "user:u")
    assert limiter.wait_time("user:u") == limiter.wait_time("address:other", "user:u") == 8
    limiter.succeeded("address:a", "user:u")
    assert limiter.wait_time("address:a", "user:u") == 0
    limiter.failed("user:u")
    assert limiter.wait_time("user:u") == 0
    limiter.failed("address:a")
    assert limiter.wait_time("address:a") == 8, "one valid account must not make guessing at others free"
    clock.now += FORGET_AFTER + 1
    limiter.failed("address:a")
    assert limiter.wait_time("address:a") == 0


@given(st.integers(min_value=0, max_value=2000))
def test_delays_are_bounded(failures: int) -> None:
    limiter = RateLimiter(Clock())
    for _ in range(failures):
        limiter.failed("address:a", user_key("u"))
    assert limiter.wait_time("address:a") <= MAX_DELAY_ADDRESS
    assert limiter.wait_time(user_key("u")) <= MAX_DELAY_USER


def test_the_table_of_failures_is_bounded() -> None:
    clock = Clock()
    limiter = RateLimiter(clock)
    for i in range(30_000):
        clock.now += 0.001
        limiter.failed(f"address:{i}")
    assert len(limiter._failures) <= 10_000
    for _ in range(FREE_FAILURES - 1):
        limiter.failed("address:29999")
    assert limiter.wait_time("address:29999") > 0, "the newest are kept"


def test_addresses_that_one_machine_owns_count_as_one() -> None:
    assert address_key("2001:db8::1") == address_key("2001:db8::ffff:2") != address_key("2001:db8:0:1::1")
    assert address_key("::ffff:192.0.2.7") == address_key("192.0.2.7") != address_key("192.0.2.8")
