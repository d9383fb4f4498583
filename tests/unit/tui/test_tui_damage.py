"""A restore that stops: why, how to go on, another copy of the repository, and zeros only when they are asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from recovery.errors import DeviceError, IntegrityError
from recovery.plan.model import Choices, Problem
from recovery.plan.vm import VmChoices
from recovery.tui.screens import point as point_screen
from tests.unit.tui.console import Console, console, run
from tests.unit.tui.fake_engine import FakeEngine
from tests.unit.tui.fake_world import BLANK, COPY, NOW
from tests.unit.tui.test_tui_screens import SIZES, look_at

LOST = IntegrityError(
    "No copy of the repository has the content of disk1 at byte 301989888.",
    hint="Choose another point, or give another copy of the repository.",
)
MISSING = Problem(severity="error", code="pack-missing", what="2 of 9 packs of the point are missing.",
                  why="The content of disk1 would not be complete.", todo="Give another copy.")  # fmt: skip


@pytest.fixture(autouse=True)
def fixed_time(monkeypatch: pytest.MonkeyPatch, time_zone: Callable[[str], None]) -> None:
    """Berlin, three hours after the newest point."""
    time_zone("Europe/Berlin")
    monkeypatch.setattr(point_screen, "now", lambda: NOW - 86400 + 3 * 3600)


async def until_it_fails(c: Console) -> None:
    await c.to("Confirm")
    await c.type(BLANK.serial)
    await c.press("enter", "left", "enter")
    await c.on("Result")
    await c.shows("In a shell (F2)")


def choices_of(engine: FakeEngine) -> Choices:
    plan = engine.state().plan
    assert plan is not None
    return plan.choices


@SIZES
def test_the_screens_of_damage(size: tuple[int, int]) -> None:
    async def test() -> None:
        engine = FakeEngine(address=True)
        engine.fail_with = LOST
        async with console(engine, size) as c:
            await until_it_fails(c)
            await look_at(c, "Result (damaged)")
            c.app.screen.query_one("#skip").focus()
            await c.press("enter")
            await c.shows("Put zeros in what is lost?")
            await c.shows("[>No<]")
            await look_at(c, "Result (zeros)")
            await c.press("escape")
            c.app.screen.query_one("#copy").focus()
            await c.press("enter")
            await c.on("Another copy")
            await c.shows("Disk sdb1")
            await look_at(c, "Another copy")

    run(test)


@pytest.mark.slow
def test_another_copy_and_retry() -> None:
    async def test() -> None:
        engine = FakeEngine(address=True)
        engine.fail_with = LOST
        async with console(engine) as c:
            await until_it_fails(c)
            await c.shows("nvme0n1 is not complete: without partition table")
            c.app.screen.query_one("#copy").focus()
            await c.press("enter")
            await c.on("Another copy")
            await c.shows("Disk sdb1")
            c.app.screen.query_one("#places").focus()
            await c.press("end", "enter", "enter")
            await c.on("Result")
            await c.shows(f"Asked too from now on: {COPY}")
            assert [call[1].path for call in engine.calls if call[0] == "add_copy"] == ["/run/rekindle/usb/sdb1"]  # type: ignore[attr-defined]
            await c.shows("[>Retry<]")
            await c.press("enter")
            await c.shows("The restore is complete")
            assert not (await asyncio.to_thread(choices_of, engine)).skip_damaged

    run(test)


def test_zeros_are_not_the_default_and_are_told() -> None:
    async def test() -> None:
        engine = FakeEngine(address=True)
        engine.fail_with = LOST
        async with console(engine) as c:
            await until_it_fails(c)
            for answer in ("enter", "escape"):  # the harmless answer is the first
                c.app.screen.query_one("#skip").focus()
                await c.press("enter")
                await c.shows("Put zeros in what is lost?")
                await c.press(answer)
                await c.on("Result")
            assert [call[0] for call in engine.calls].count("start") == 1
            c.app.screen.query_one("#skip").focus()
            await c.press("enter")
            await c.shows("Put zeros in what is lost?")
            await c.press("right", "enter")
            await c.shows("complete except for what was lost")
            await c.shows("lost: byte 1048576: 4096 bytes")
            assert (await asyncio.to_thread(choices_of, engine)).skip_damaged

    run(test)


@pytest.mark.slow
def test_what_has_nothing_to_do_with_damage_offers_neither() -> None:
    async def test() -> None:
        engine = FakeEngine(address=True)
        engine.fail_with = DeviceError("/dev/nvme0n1 returned an error.", hint="Look at its SMART data, or retry.")
        async with console(engine) as c:
            await until_it_fails(c)
            await c.shows("Look at its SMART data")
            await c.shows("[>Retry<]")
            await c.gone("Another copy")
            await c.shows("rekindle restore")
            await c.press("escape")
            await c.on("Plan")

    run(test)


def test_the_plan_offers_both_where_content_is_missing() -> None:
    async def test() -> None:
        engine = FakeEngine(address=True)
        engine.plan_problems = (MISSING,)
        async with console(engine) as c:
            await c.to("Target disks")
            await c.press("enter")
            await c.on("Plan")
            await c.shows("The restore is refused")
            await c.shows("[ Another copy ] [ Skip damaged ]")
            c.app.screen.query_one("#skip").focus()
            await c.press("enter")
            await c.shows("Put zeros in what is lost?")
            await c.press("escape")
            await c.on("Plan")
            assert not c.app.session.choices().skip_damaged
            c.app.screen.query_one("#copy").focus()
            await c.press("enter")
            await c.on("Another copy")
            await c.shows("Disk sdb1")
            engine.plan_problems = ()
            c.app.screen.query_one("#places").focus()
            await c.press("end", "enter", "enter")
            await c.on("Plan")
            await c.shows("The restore is possible")
            await c.gone("Another copy")

    run(test)


@pytest.mark.slow
def test_a_vm_has_them_too() -> None:
    async def test() -> None:
        engine = FakeEngine(address=True)
        engine.fail_with = LOST
        async with console(engine, task="vm") as c:
            await c.sign_in()
            for screen in ("Host", "Point", "VM"):
                await c.on(screen)
                await c.press("enter")
            await c.on("Place")
            await c.press("enter", "enter", "enter")
            await c.on("Plan")
            await c.shows("[>Restore now<]")
            await c.press("enter")
            await c.on("Result")
            await c.shows("No file was left behind")
            c.app.screen.query_one("#skip").focus()
            await c.press("enter")
            await c.shows("Put zeros in what is lost?")
            await c.press("right", "enter")
            await c.shows("complete except for what was lost")
            planned = [call[1] for call in engine.calls if call[0] == "plan_vm"][-1]
            assert isinstance(planned, VmChoices)
            assert planned.skip_damaged

    run(test)
