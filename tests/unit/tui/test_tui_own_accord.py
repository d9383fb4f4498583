"""Screens that come up by themselves: what is pressed in that moment was meant for the screen before."""

from __future__ import annotations

import asyncio

import pytest
from textual import events

from recovery.engine.api import RunState
from recovery.errors import RekindleError
from recovery.events import RunFinished
from recovery.tui.screens import base
from recovery.tui.screens.restore import RestoreScreen
from tests.unit.tui.console import Console, console, run
from tests.unit.tui.fake_engine import FakeEngine
from tests.unit.tui.fake_world import BLANK


@pytest.fixture(autouse=True)
def look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Longer, so that a key of a busy machine comes early too."""
    monkeypatch.setattr(base, "LOOK_SECONDS", 3.0)


async def until_the_run_is_held(c: Console) -> None:
    """From the first screen to a run that waits in its middle, with the focus on 'Stop the restore'."""
    await c.to("Confirm")
    await c.type(BLANK.serial)
    await c.press("enter", "left", "enter")
    await c.on("Restore")
    await c.shows("[>Stop the restore<]")


def called(engine: FakeEngine, name: str) -> int:
    """How often."""
    return sum(call == name for call, _ in engine.calls)


def test_enter_for_stop_does_not_restart_a_machine_whose_restore_just_ended() -> None:
    async def test() -> None:
        engine = FakeEngine(address=True)
        engine.hold.clear()
        async with console(engine) as c:
            await until_the_run_is_held(c)
            engine.hold.set()
            await c.until(lambda: c.title == "Rekindle · Result", "the result")
            await c.shows("[>Restart<]")
            await c.press("enter", "space")
            assert "[>Restart<]" in c.text  # neither a question nor a word
            await c.on("Result")
            await c.press("enter")
            await c.shows("[>Stay<]")
            await c.press("enter")
            await c.shows("[>Restart<]")
            assert not called(engine, "reboot")
            # Typed ahead, while the console was at something else: what counts is when it was pressed.
            early = events.Key("enter", None)
            early.time -= 10
            c.app.post_message(early)
            await c.settle()
            assert "[>Restart<]" in c.text

    run(test)


def test_enter_for_stop_does_not_begin_a_failed_restore_again() -> None:
    async def test() -> None:
        engine = FakeEngine(address=True)
        engine.fail_with = RekindleError("It broke.")
        engine.hold.clear()
        async with console(engine) as c:
            await until_the_run_is_held(c)
            engine.hold.set()
            await c.shows("[>Retry<]")
            await c.press("enter")
            await c.shows("It broke.")
            assert called(engine, "start") == 1
            await c.on("Result")
            await c.press("enter")
            await c.on("Result")
            assert called(engine, "start") == 2

    run(test)


def test_keys_do_not_reach_the_screens_that_are_left_behind() -> None:
    """The way back to nothing goes by Confirm, whose button starts the restore."""

    async def test() -> None:
        engine = FakeEngine(address=True)
        engine.hold.clear()
        async with console(engine) as c:
            await until_the_run_is_held(c)
            screen = c.app.screen
            assert isinstance(screen, RestoreScreen)
            engine.hold.set()
            while c.title != "Rekindle · Result":
                if screen.model.finished is not None:
                    c.app.post_message(events.Key("enter", None))
                await asyncio.sleep(0)
            await c.on("Result")
            assert called(engine, "start") == 1
            assert not called(engine, "reboot")

    run(test)


def test_an_end_that_comes_before_the_question_is_not_stopped() -> None:
    async def test() -> None:
        engine = FakeEngine(address=True)
        engine.hold.clear()
        async with console(engine) as c:
            await until_the_run_is_held(c)
            screen = c.app.screen
            assert isinstance(screen, RestoreScreen)
            screen.model.apply(RunFinished(summary="done"))
            await c.press("enter")
            assert "[>Stop the restore<]" in c.text

    run(test)


def test_enter_for_stop_does_not_confirm_a_plan_when_the_engine_was_restarted() -> None:
    async def test() -> None:
        engine = FakeEngine(address=True)
        engine.hold.clear()
        async with console(engine) as c:
            await until_the_run_is_held(c)
            screen = c.app.screen
            assert isinstance(screen, RestoreScreen)
            engine._state = RunState()
            screen.attach()
            await c.until(lambda: c.title == "Rekindle · Plan", "the plan")
            await c.shows("[>Continue<]")
            await c.press("enter")
            assert c.title == "Rekindle · Plan"
            await c.on("Plan")
            await c.press("enter")
            await c.on("Confirm")

    run(test)
