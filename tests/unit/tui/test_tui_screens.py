"""Every screen at the sizes of real consoles: only characters of the console font, nothing important cut off, and
the same lines of text as the snapshot (``REKINDLE_UPDATE_SNAPSHOTS=1`` writes them anew; look at the difference)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from textual.widget import Widget

from recovery.plan.model import Problem
from recovery.tui.glyphs import DRAWABLE, GLYPHS
from recovery.tui.screens import point as point_screen
from recovery.tui.widgets.choice import ChoiceList
from recovery.tui.widgets.controls import Action, Field, Toggle
from recovery.tui.widgets.panes import Pane
from tests.unit.tui.console import Console, console, run
from tests.unit.tui.fake_engine import BLANK, NOW, USED, FakeEngine

SNAPSHOTS = Path(__file__).parent / "snapshots"
UPDATE = bool(os.environ.get("REKINDLE_UPDATE_SNAPSHOTS"))


@pytest.fixture(autouse=True)
def fixed_time(monkeypatch: pytest.MonkeyPatch, time_zone: Callable[[str], None]) -> None:
    """Berlin, three hours after the newest point."""
    time_zone("Europe/Berlin")
    monkeypatch.setattr(point_screen, "now", lambda: NOW - 86400 + 3 * 3600)


def check_screen(c: Console, name: str) -> None:
    """Title, hints and characters; every control that is shown lies within the screen, or in a pane that scrolls."""
    lines = c.lines(filtered=False)
    drawn = set("".join(lines))
    assert drawn <= DRAWABLE, f"{name}: {sorted(drawn - DRAWABLE)} would not be in the font"
    screen = c.app.screen
    if not screen.is_modal:
        assert lines[0].startswith(f" Rekindle · {name.split(' (')[0]}"), name
        assert "F1 help" in lines[-1], name
        assert "F2 shell" in lines[-1], name
    controls: list[Widget] = [w for kind in (Action, Field, Toggle, ChoiceList) for w in screen.query(kind)]
    for control in controls:
        if not all(node.display for node in (control, *control.ancestors) if isinstance(node, Widget)):
            continue
        if any(isinstance(node, Pane) for node in control.ancestors):
            continue
        geometry = screen.find_widget(control)
        assert geometry.region.area > 0, f"{name}: {control} has no room"
        assert geometry.visible_region == geometry.region, f"{name}: {control} is cut off"
        if isinstance(control, Action):
            assert control.label in lines[geometry.region.y], f"{name}: button {control.label}"


async def check_snapshot(c: Console, name: str) -> None:
    """The same text as last time; clocks of the log, and how long it has taken, do not count. A busy machine may still
    be drawing, so it is given a while to come to that text."""

    def text() -> str:
        shown = re.sub(r"\b\d\d:\d\d:\d\d\b", "00:00:00", c.text)
        shown = re.sub(r"^ (Rate|most) .*$", r" \1", shown, flags=re.MULTILINE)  # depends on the machine's pace
        return re.sub(r"running, \d:\d\d", "running, 0:00", shown) + "\n"

    path = SNAPSHOTS / f"{re.sub(r'[^a-z]+', '-', name.lower()).strip('-')}.txt"
    if UPDATE:
        await asyncio.sleep(1)
        path.parent.mkdir(exist_ok=True)
        path.write_text(text())
    assert path.is_file(), f"no snapshot of {name}; make it with REKINDLE_UPDATE_SNAPSHOTS=1"
    wanted = path.read_text()
    with contextlib.suppress(AssertionError):
        await c.until(lambda: text() == wanted, name)
    assert text() == wanted, f"{name} looks different; if that is meant, REKINDLE_UPDATE_SNAPSHOTS=1"


@pytest.mark.parametrize("size", [(80, 25), (80, 24), (160, 50)], ids=lambda size: f"{size[0]}x{size[1]}")
def test_every_screen(size: tuple[int, int]) -> None:
    async def test() -> None:
        engine = FakeEngine(disks=2)
        engine.plan_problems = (
            Problem(
                severity="warning",
                code="other-firmware",
                what="The host booted by BIOS, this machine by UEFI.",
                why="The boot loader of the other kind is not on its disk.",
                todo="Switch the firmware's setup to legacy boot, or go on and see.",
            ),
        )
        async with console(engine, size, task="") as c:

            async def look(name: str) -> None:
                await c.settle()
                check_screen(c, name)
                if size == (80, 25) and name != "Restore (stop)":  # clocks show beside that dialog
                    await check_snapshot(c, name)

            await c.on("Task")
            await look("Task")
            await c.task()
            await c.on("Network")
            await look("Network")
            await c.press("enter")
            await c.shows("[>Continue<]")
            await c.press("enter")
            await c.on("Repository")
            await c.shows("Disk sdb1")
            await c.shows("B0:F0:0A:08")
            await look("Repository")
            await c.sign_in()
            await look("Host")
            await c.press("enter")
            await c.on("Point")
            await c.until(lambda: "reading" not in c.text.lower(), "all details")
            await look("Point")
            await c.press("enter")
            await c.on("Target disks")
            await c.shows("Suggested:")
            await look("Target disks")
            await c.press("enter")
            await c.on("Plan")
            await c.shows("1 warning.")
            await look("Plan")
            await c.press("enter")
            await c.on("Confirm")
            await look("Confirm")
            await c.type(BLANK.serial)
            await c.press("enter")
            await c.type(USED.serial)
            await c.press("enter")
            engine.hold.clear()
            await c.press("enter")
            await c.on("Restore")
            await c.shows("Asked again for pack")
            await look("Restore")
            await c.press("enter")
            await c.shows("Stop the restore?")
            assert c.text.count("[>") == 1  # one focus on the screen
            await look("Restore (stop)")
            await c.press("escape")
            engine.hold.set()
            await c.on("Result")
            await c.shows("256 MiB read back and right")
            await look("Result")
            c.app.screen.query_one("#qr").focus()
            await c.press("enter")
            await c.shows("It says")
            await look("Result (QR code)")
            await c.press("escape")
            c.app.screen.query_one("#restart").focus()
            await c.press("f1")
            await c.shows("Help · Result")
            await look("Result (help)")
            await c.press("escape", "f10")
            await c.shows("Leave console")
            await look("Result (power)")

    run(test)


def test_characters_the_font_lacks_become_question_marks() -> None:
    async def test() -> None:
        engine = FakeEngine(address=True)
        engine.machine_now = type(engine.machine_now)(nics=engine.machine_now.nics)
        async with console(engine) as c:
            await c.on("Repository")
            c.app.screen.status("диск 日本 ok")  # type: ignore[attr-defined]
            await c.shows("???? ???? ok")  # four letters; two wide characters

    run(test)


def test_the_font_has_room() -> None:
    assert len(GLYPHS) == len(set(GLYPHS))
    assert len(DRAWABLE) <= 512
    assert not any(character.isspace() or not character.isprintable() for character in GLYPHS)
