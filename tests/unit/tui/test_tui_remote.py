"""Remote access from every screen (F8), and what of it stands on Restore."""

from __future__ import annotations

import asyncio

import pytest

from recovery.engine.api import RemoteAccess
from recovery.tui.app import ConsoleApp
from recovery.tui.remote import remote_line
from recovery.tui.screens.restore import RESTARTED
from tests.unit.tui.console import Console, console, run
from tests.unit.tui.fake_engine import FakeEngine
from tests.unit.tui.fake_world import USER
from tests.unit.tui.test_tui_refusals import plan_of
from tests.unit.tui.test_tui_screens import look_at

PASSWORD = "8Q2K-7Z0M-4TXA"
LINE = "Remote access (F8): ssh root@192.168.1.20"


@pytest.mark.parametrize("size", [(80, 25), pytest.param((80, 24), marks=pytest.mark.slow)])
def test_it_is_turned_on_while_a_restore_runs(size: tuple[int, int]) -> None:
    async def test() -> None:
        engine = FakeEngine(address=True)
        engine.hold.clear()
        await asyncio.to_thread(plan_of, engine)
        async with console(engine, size) as c:
            await c.on("Restore")
            await c.shows("F8 remote")
            await c.shows("Asked again for pack")
            assert LINE not in c.text
            await c.press("f8")
            await c.shows("SSH          off")
            await c.press("f8")  # not one more over it
            await c.press("right", "enter")
            await c.shows(PASSWORD)
            await c.press("escape")
            await c.on("Restore")
            await c.shows(LINE)
            assert PASSWORD not in c.text
            await look_at(c, "Restore (remote access)")
            await c.press("f8")
            await c.shows(PASSWORD)
            await c.press("right", "enter")
            await c.shows("SSH          off")
            await c.press("enter")
            await c.gone(LINE)

    run(test)


def test_a_console_that_comes_back_to_a_restore_says_why() -> None:
    async def test() -> None:
        engine = FakeEngine(address=True)
        await asyncio.to_thread(engine.remote_access, ssh=True, status=True)
        engine.hold.clear()
        await asyncio.to_thread(plan_of, engine)
        app = ConsoleApp(engine)
        app.session.crash = "The console ended by a bug."
        async with app.run_test(size=(80, 24)):
            c = Console(app)
            await c.on("Restore")
            await c.shows(RESTARTED)
            await c.shows(f"{LINE}, status page")
            engine.hold.set()

    run(test)


def test_what_is_typed_stays_where_the_dialog_was_over_it() -> None:
    async def over(c: Console, screen: str) -> None:
        await c.on(screen)
        await c.press("f8")
        await c.shows("Turn SSH on")
        await c.press("escape")
        await c.on(screen)

    async def test() -> None:
        async with console(FakeEngine(), task="") as c:
            await over(c, "Task")
            await c.press("enter")
            await over(c, "Network")
            await c.press("enter")
            await c.shows("[>Continue<]")
            await c.press("enter")
            await c.on("Repository")
            await c.type(USER)
            await over(c, "Repository")
            await c.shows(f"> User                {USER}")

    run(test)


def test_not_while_the_screen_awaits_an_answer_nor_over_a_dialog() -> None:
    async def test() -> None:
        engine = FakeEngine(address=True)
        async with console(engine, task="") as c:
            await c.on("Task")
            c.app.screen.busy = True  # type: ignore[attr-defined]
            await c.press("f8")
            assert c.title == "Rekindle · Task"
            c.app.screen.busy = False  # type: ignore[attr-defined]
            await c.press("f1", "f8")
            await c.shows("Help · Task")
            assert "SSH          off" not in c.text

    run(test)


def test_the_line() -> None:
    assert remote_line(RemoteAccess()) == ""
    both = RemoteAccess(ssh=True, addresses=("2001:db8::7", "192.0.2.7"), status=("http://x/CODE",), password="PW")
    assert remote_line(both) == "Remote access (F8): ssh root@192.0.2.7, status page"
    assert remote_line(RemoteAccess(ssh=True)) == "Remote access (F8): SSH, no address yet"
    assert remote_line(RemoteAccess(ssh=True, addresses=("2001:db8::7",))).endswith("ssh root@2001:db8::7")
