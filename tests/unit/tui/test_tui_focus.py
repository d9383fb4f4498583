"""Where keys go is told in text too: colours are lost on a serial line, and to some eyes."""

from __future__ import annotations

import re

import pytest

from recovery.tui.glyphs import CHARSETS
from recovery.tui.screens.another_copy import AnotherCopyScreen
from recovery.tui.widgets.choice import CURRENT
from tests.unit.tui.console import Console, console, run
from tests.unit.tui.fake_engine import FakeEngine
from tests.unit.tui.snapshots import in_characters

#: A button, a check box, the row of a list or a field.
_MARK = re.compile(r"\[>|>\[[x ]\]|^ (?:│ )?> ", re.MULTILINE)


async def look_at_each_focus(c: Console, name: str) -> None:
    """Tab through the whole screen: one mark at each stop, and no stop looks like the one before, without colours."""
    stops = len(c.app.screen.focus_chain)
    assert stops > 1, name
    before = in_characters(c, "ascii")
    for _ in range(stops):
        await c.press("tab")
        focused = c.app.focused
        await c.until(lambda: len(_MARK.findall(c.text)) == 1, f"{name}: one mark, at {focused}")
        now = in_characters(c, "ascii")
        assert now != before, f"{name}: the focus on {focused} is not seen\n{now}"
        before = now


@pytest.mark.parametrize("name", ["Network", "Repository", "Host", "Point", "Target disks", "Plan", "Confirm"])
def test_a_restore(name: str) -> None:
    async def test() -> None:
        async with console(FakeEngine(address=True, disks=2)) as c:
            if name == "Network":
                await c.press("escape")
            elif name != "Repository":
                await c.to(name)
            await c.on(name)
            await look_at_each_focus(c, name)

    run(test)


def test_one_vm() -> None:
    async def test() -> None:
        async with console(FakeEngine(address=True), task="vm") as c:
            await c.sign_in()
            for here, there in (("Host", "Point"), ("Point", "VM"), ("VM", "Place")):
                await c.on(here)
                await c.press("enter")
                await c.on(there)
                await look_at_each_focus(c, there)

    run(test)


def test_repair_and_another_copy() -> None:
    async def test() -> None:
        async with console(FakeEngine(address=True), task="repair") as c:
            await c.on("Repair boot")
            await look_at_each_focus(c, "Repair boot")
            c.app.push_screen(AnotherCopyScreen())
            await c.on("Another copy")
            await look_at_each_focus(c, "Another copy")

    run(test)


def test_below_a_dialog_nothing_is_marked() -> None:
    async def test() -> None:
        async with console(FakeEngine(address=True), (160, 50)) as c:
            for widget in ("#places", "#user", "#connect"):
                c.app.screen.query_one(widget).focus()
                await c.press("f1")
                await c.shows("[>OK<]")
                await c.until(lambda: len(_MARK.findall(c.text)) == 1, "only the mark of the dialog")
                await c.press("escape")
                await c.until(lambda: len(_MARK.findall(c.text)) == 1, "the mark again")

    run(test)


def test_the_row_of_another_list_has_a_mark_of_its_own_everywhere() -> None:
    marks = {f"x{CURRENT}".translate(dict(table))[1:] for table in CHARSETS.values()}
    assert not marks & {">", "-", "*", " ", "?"}


def test_a_field_that_is_disabled_says_so() -> None:
    async def test() -> None:
        async with console(FakeEngine(address=True)) as c:
            await c.press("escape")
            await c.on("Network")
            await c.shows("(Gateway)")
            assert "(VLAN id)" not in c.text
            c.app.screen.query_one("#dhcp").focus()
            await c.press("space")
            await c.gone("(Gateway)")

    run(test)
