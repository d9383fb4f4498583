"""Nothing blocks: while the engine thinks, and with ten thousand points, the console answers to keys."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from recovery.format.point import PointSummary
from recovery.machine.model import Machine
from recovery.tui.screens.point import PointScreen
from recovery.tui.widgets.choice import ChoiceList
from tests.unit.tui.console import Console, console, console_of, run
from tests.unit.tui.fake_engine import FakeEngine
from tests.unit.tui.fake_world import BLANK

#: Seconds that the loop may work without looking at keys.
LIMIT = 0.1
#: Seconds that the slow engine takes for each answer; a call of it in the loop would be seen at once.
SLOW = 0.4


class SlowEngine(FakeEngine):
    """Every question takes ``SLOW`` seconds."""

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name in (
            "machine",
            "identify",
            "connect",
            "points",
            "point",
            "suggest",
            "plan",
            "start",
            "state",
            "cancel",
        ):

            def slowly(*args: object, **kwargs: object) -> object:
                time.sleep(SLOW)
                return found(*args, **kwargs)

            return slowly
        return found


class Lag:
    """How long the loop was busy at most between two looks at keys, in CPU time: other programs on the machine do
    not count. (A call that blocks the loop costs none: ``held`` below finds it.)"""

    def __init__(self) -> None:
        self.cpu = 0.0

    async def watch(self) -> None:
        while True:
            cpu = time.thread_time()
            await asyncio.sleep(0)
            self.cpu = max(self.cpu, time.thread_time() - cpu)
            await asyncio.sleep(0.005)


@asynccontextmanager
async def watched() -> AsyncIterator[Lag]:
    lag = Lag()
    task = asyncio.create_task(lag.watch())
    yield lag
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def through(c: Console, wait: Callable[[str], Any]) -> None:
    """The whole way by Enter."""
    for screen in ("Point", "Target disks"):
        await wait(screen)
        await c.press("enter")
    await wait("Plan")
    await c.shows("Nothing was written yet")
    await c.press("enter")
    await wait("Confirm")
    await c.type(BLANK.serial)
    await c.press("enter", "left", "enter")
    await wait("Result")


@pytest.mark.slow
def test_a_slow_engine_does_not_freeze_the_keys() -> None:
    async def test() -> None:
        engine, answer = SlowEngine(address=True), threading.Event()
        points = engine.points

        def held(host: str) -> list[PointSummary]:
            assert answer.wait(60), "the console does nothing else meanwhile"
            return points(host)

        engine.points = held  # type: ignore[method-assign]
        async with console(engine) as c, watched() as lag:

            async def wait(screen: str) -> None:
                await c.until(lambda: c.title == f"Rekindle · {screen}", screen)
                await c.until(lambda: not getattr(c.app.screen, "busy", False), f"{screen} at rest")

            await c.sign_in()
            # While it asks for the points help opens, and the answer comes behind it.
            await c.press("enter", "f1")
            await c.shows("Help · Host")
            answer.set()
            await c.press("escape")
            await wait("Point")
            await through(c, wait)
            assert lag.cpu < LIMIT * 3, f"the loop worked {lag.cpu:.3f} s without looking at keys"

    run(test)


def test_ten_thousand_points_do_not_slow_the_keys_down() -> None:
    async def test() -> None:
        engine = FakeEngine(address=True)
        now = time.time()
        many = [
            PointSummary(id=f"{n:064x}", host="hv1.example.org", created=now - (10_000 - n) * 60)
            for n in range(10_000)
        ]
        asked: list[str] = []

        def point(host: str, id: str) -> object:
            asked.append(id)
            return engine.all_points[1]

        engine.points = lambda host: many  # type: ignore[method-assign]
        engine.point = point  # type: ignore[method-assign, assignment]
        async with console(engine) as c:
            await c.sign_in()
            await c.press("enter")
            await c.on("Point")
            await c.shows("today")
            async with watched() as lag:
                for key in ("down", "pagedown", "left", "minus", "end", "home", "plus", "right"):
                    await c.press(key)
            assert lag.cpu < LIMIT, f"a key took {lag.cpu:.3f} s"
            # Only what came into sight was read, not ten thousand points.
            assert len(set(asked)) < 200
            async with watched() as lag:
                await c.type("yesterday 14:00")
                await c.press("enter")
                await c.until(lambda: c.app.focused is c.app.screen.query_one("#points"), "the list")
            assert lag.cpu < LIMIT * 2, f"the way to a time took {lag.cpu:.3f} s"
            screen = c.app.screen
            assert isinstance(screen, PointScreen)
            selected = screen.query_one("#points", ChoiceList).selected
            assert 0 < int(selected, 16) < 9_999

    run(test)


def test_systemd_is_told_when_the_first_screen_stands_and_not_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The medium's start is over then, and consoles on serial lines go on."""
    told, answer, engine = str(tmp_path / "notify"), threading.Event(), FakeEngine()
    machine = engine.machine

    def held(refresh: bool = False) -> Machine:
        assert answer.wait(60)
        return machine(refresh)

    engine.machine = held  # type: ignore[method-assign]
    monkeypatch.setenv("NOTIFY_SOCKET", told)

    async def test() -> None:
        async with console_of(engine, wait=False) as c:
            await c.shows("Looking at this machine")
            with pytest.raises(BlockingIOError):
                listener.recv(100)
            answer.set()
            await c.on("Task")
            heard: list[bytes] = []
            await c.until(lambda: bool(heard) or _heard(listener, heard), "systemd to be told")
            assert heard == [b"READY=1"]

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(told)
        listener.setblocking(False)
        run(test)


def _heard(listener: socket.socket, heard: list[bytes]) -> bool:
    with contextlib.suppress(BlockingIOError):
        heard.append(listener.recv(100))
    return bool(heard)


def test_the_first_screen_imports_no_later_ones() -> None:
    code = (
        "import sys, recovery.tui.app as app\n"
        "later = ('plan', 'restore', 'result', 'repository', 'network', 'repair')\n"
        "early = [name for name in later if f'recovery.tui.screens.{name}' in sys.modules]\n"
        "assert not early, early\n"
        "__import__(app.LATER)\n"
        "assert 'recovery.tui.screens.result' in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_double_refuses_a_call_that_would_freeze_the_console() -> None:
    """So every test with it proves, for the calls that it makes, that they are made in a thread."""
    engine = FakeEngine(address=True)
    assert engine.state().phase == "idle"

    async def test() -> None:
        async with console(engine) as c:
            c.app.call_later(engine.state)
            await c.settle()

    with pytest.raises(AssertionError, match="state of the engine was called in the thread of the event loop"):
        run(test)
