"""What the list of hosts says of their points, and that nobody has to wait for it."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from recovery.errors import NotFoundError, UnreachableError
from recovery.format.point import PointSummary
from recovery.tui.screens import host as host_screen
from recovery.tui.screens.host import points_words
from tests.unit.tui.console import console, run
from tests.unit.tui.fake_engine import FakeEngine
from tests.unit.tui.fake_world import HOST, NOW

OTHER = "hv2.example.org"


class Slow(FakeEngine):
    """Tells nothing of points until ``told`` is set; ``asked`` are the hosts in order."""

    def __init__(self) -> None:
        super().__init__(address=True)
        self.told = threading.Event()
        self.asked: list[str] = []

    def points(self, host: str) -> list[PointSummary]:
        self.asked.append(host)
        self.told.wait(20)
        return super().points(host)


def test_newest_point_and_number(monkeypatch: pytest.MonkeyPatch, time_zone: Callable[[str], None]) -> None:
    time_zone("Europe/Berlin")
    monkeypatch.setattr(host_screen, "now", lambda: NOW - 86400 + 3 * 3600)

    async def test() -> None:
        async with console(FakeEngine(address=True)) as c:
            await c.sign_in()
            await c.shows(f"> {HOST}  newest 3 hours ago, 2025-11-22 13:13 CET; 4 points")
            await c.shows(f"  {OTHER}  no points")

    run(test)


def test_a_host_is_chosen_before_its_points_are_told() -> None:
    async def test() -> None:
        engine = Slow()
        async with console(engine) as c:
            await c.sign_in()
            await c.until(lambda: engine.asked == [HOST], "the first is asked for")
            await c.press("enter")
            await c.shows(f"Reading the recovery points of {HOST} ...")
            engine.told.set()
            await c.on("Point")
            await c.press("escape")
            await c.on("Host")
            await c.shows("4 points")
            await c.shows("no points")

    run(test)


def test_a_server_that_does_not_answer_is_told_when_a_host_is_chosen() -> None:
    class Gone(FakeEngine):
        def points(self, host: str) -> list[PointSummary]:
            raise UnreachableError("The server does not answer.", hint="Check the cable.")

    async def test() -> None:
        async with console(Gone(address=True)) as c:
            await c.sign_in()
            await c.shows(f"> {HOST}")
            assert "does not answer" not in c.text
            await c.press("enter")
            await c.shows("The server does not answer.")

    run(test)


def test_a_host_without_points_as_the_engine_says_it() -> None:
    class Empty(FakeEngine):
        def points(self, host: str) -> list[PointSummary]:
            raise NotFoundError(f"There is no point of host '{host}'.")

    async def test() -> None:
        async with console(Empty(address=True)) as c:
            await c.sign_in()
            await c.shows(f"{OTHER}  no points")

    run(test)


def test_words() -> None:
    one = PointSummary(id="aa", host=HOST, created=NOW)
    assert points_words([one], NOW + 60).startswith("newest 1 minute ago, 20")
    assert points_words([one], NOW).endswith("; 1 point")
    assert "check the clock" in points_words([one], NOW - 3600)
