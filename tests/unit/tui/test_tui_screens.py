"""Every screen at the sizes of real consoles: only characters of the console font, nothing important cut off, and
the same as the snapshot, in full colour, in CP437 and in ASCII (``REKINDLE_UPDATE_SNAPSHOTS=1`` writes them anew; look
at the difference)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import pytest
from textual.errors import NoWidget
from textual.widget import Widget

from recovery.engine.api import Medium, NetworkConfig, Unattended
from recovery.errors import DeviceError, UnreachableError
from recovery.machine.model import Machine
from recovery.plan.model import Problem
from recovery.tui.glyphs import DRAWABLE, GLYPHS
from recovery.tui.screens import host as host_screen
from recovery.tui.screens import point as point_screen
from recovery.tui.widgets.choice import ChoiceList
from recovery.tui.widgets.controls import Action, Field, Toggle
from recovery.tui.widgets.panes import Pane
from tests.unit.tui import snapshots
from tests.unit.tui.console import Console, console, console_of, run
from tests.unit.tui.fake_engine import FakeEngine
from tests.unit.tui.fake_world import BLANK, NOW, PASSPHRASE, PASSWORD, USED, USER

#: Sizes whose screens are kept; 80x24 is only looked at.
KEPT = [(80, 25), (160, 50)]
SIZES = pytest.mark.parametrize(
    "size",
    [(80, 25), *(pytest.param(size, marks=pytest.mark.slow) for size in ((160, 50), (80, 24)))],
    ids=lambda size: f"{size[0]}x{size[1]}",
)


@pytest.fixture(autouse=True)
def fixed_time(monkeypatch: pytest.MonkeyPatch, time_zone: Callable[[str], None]) -> None:
    """Berlin, three hours after the newest point."""
    time_zone("Europe/Berlin")
    for screen in (host_screen, point_screen):
        monkeypatch.setattr(screen, "now", lambda: NOW - 86400 + 3 * 3600)


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


async def look_at(c: Console, name: str) -> None:
    """``check_screen``, and the snapshot where the size has one."""
    await c.settle()
    for _ in range(100):
        # A busy machine may still be laying the screen out.
        with contextlib.suppress(AssertionError, NoWidget):
            check_screen(c, name)
            break
        await asyncio.sleep(0.1)
    else:
        check_screen(c, name)
    if (c.app.size.width, c.app.size.height) in KEPT:
        await snapshots.check(c, name)


@SIZES
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
                await look_at(c, name)

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
            await c.shows("no points")
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
            await c.press("left", "enter")
            await c.on("Restore")
            await c.shows("Asked again for pack")
            await look("Restore")
            await c.press("enter")
            await c.shows("Stop the restore?")
            await c.until(lambda: c.text.count("[>") == 1, "one focus on the screen")
            check_screen(c, "Restore (stop)")  # clocks show beside that dialog
            await c.press("escape")
            engine.hold.set()
            await c.on("Result")
            await c.shows("256 MiB of it read back as a sample")
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
            await c.shows("No restore is running")
            await look("Result (power)")

    run(test)


@pytest.mark.slow
@SIZES
def test_every_other_state(size: tuple[int, int]) -> None:
    """Dialogs, refusals and failures, and the tasks that are not a restore of all."""

    async def before_the_engine_answers() -> None:
        class Silent(FakeEngine):
            def medium(self) -> Medium:
                raise UnreachableError("The engine does not answer.", hint="F2 opens a shell; look at its journal.")

        async with console_of(Silent(), size, wait=False) as c:
            await c.shows("Trying again ...")
            await look_at(c, "Start")

    async def tasks() -> None:
        engine = FakeEngine(address=True)
        refused = Unattended(phase="refused", message="The disk is not there.", reasons=("No disk has S1.",))
        await asyncio.to_thread(engine.unattended, refused)
        async with console(engine, size, task="") as c:
            await c.on("Task")
            await look_at(c, "Task (unattended refused)")
            await c.press("f1")
            await c.shows("Help · Task")
            await look_at(c, "Task (help)")
            await c.press("escape", *["down"] * 5, "enter")
            await c.shows("SSH          off")
            await c.press("right", "enter")
            await c.shows("Turn SSH off")
            await c.press("right", "right", "enter")
            await c.shows("Turn page off")
            await look_at(c, "Task (remote access)")
            await c.press("escape", *["up"] * 1, "enter")
            await c.on("Repair boot")
            await look_at(c, "Repair")
            c.app.screen.query_one("#continue").focus()
            await c.press("enter")
            await c.on("Plan")
            await c.shows("The repair is possible")
            await look_at(c, "Plan (repair)")

    async def network() -> None:
        class Late(FakeEngine):
            def configure_network(self, config: NetworkConfig) -> Machine:
                raise DeviceError("enp4s0 got no address: the link is down.", hint="Check the cable.")

        async with console(Late(), size) as c:
            await c.on("Network")
            c.app.screen.query_one("#dhcp").focus()
            await c.press("enter", "tab")
            await c.type("192.168.1.20/24")
            await look_at(c, "Network (fixed address)")
            c.app.screen.query_one("#apply").focus()
            await c.press("enter")
            await c.shows("Check the cable")
            await look_at(c, "Network (error)")

    async def repository() -> None:
        engine = FakeEngine(address=True, trusted=False)
        async with console(engine, size) as c:
            await c.on("Repository")
            await c.shows("NOT TRUSTED")
            await c.shows("Disk sdb1")
            await c.type(USER)
            await c.press("enter")
            await c.type(PASSWORD)
            await c.press("enter", "enter")
            await c.type("wrong")
            await c.press("enter")
            await c.shows("Is this your server?")
            await look_at(c, "Repository (unknown certificate)")
            await c.press("right", "enter")
            await c.shows("mind Caps Lock")
            await look_at(c, "Repository (wrong passphrase)")
            await c.press("enter", *["backspace"] * 5)
            await c.type(PASSPHRASE)
            await c.press("enter")
            await c.on("Host")
            await c.press("enter")
            await c.on("Point")
            await c.until(lambda: "reading" not in c.text.lower(), "all details")
            c.app.screen.query_one("#details-button").focus()
            await c.press("enter")
            await c.shows("vda")
            await look_at(c, "Point (details)")

    async def refusals() -> None:
        engine = FakeEngine(address=True, disks=2)
        engine.plan_problems = (
            Problem(severity="error", code="pack-missing", what="2 of 9 packs of the point are missing.",
                    why="The content of disk1 would not be complete.", todo="Choose another point."),
        )  # fmt: skip
        async with console(engine, size) as c:
            await c.to("Target disks")
            c.app.screen.query_one("#sources").focus()
            await c.press("enter", "down", "down")
            await c.shows("Cannot be chosen: It holds a repository")
            await look_at(c, "Target disks (cannot be chosen)")
            await c.press("enter")
            await c.shows("Choose another disk.")
            await look_at(c, "Target disks (refused)")
            await c.press("enter")
            c.app.screen.query_one("#continue").focus()
            await c.press("enter")
            await c.on("Plan")
            await c.shows("The restore is refused")
            await look_at(c, "Plan (refused)")

    async def failure() -> None:
        engine = FakeEngine(address=True)
        engine.fail_with = DeviceError("/dev/nvme0n1 returned an error.", hint="Look at its SMART data, or retry.")
        async with console(engine, size) as c:
            await c.to("Confirm")
            await c.type("wrong")
            await c.press("enter")
            await c.shows("That is not the serial number")
            await look_at(c, "Confirm (wrong)")
            await c.press(*["backspace"] * 5)
            await c.type(BLANK.serial)
            await c.press("enter", "left", "enter")
            await c.shows("Look at its SMART data")
            await c.shows("In a shell (F2)")
            await look_at(c, "Result (failed)")

    async def test() -> None:
        for part in (before_the_engine_answers, tasks, network, repository, refusals, failure):
            await part()

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


def test_what_is_out_of_sight_is_said_in_words() -> None:
    """A scroll bar is a colour; 'Continue' has the focus while warnings may stand further down."""

    async def test() -> None:
        async with console(FakeEngine(address=True)) as c:
            await c.to("Plan")
            await c.shows("more lines below: PgDn")
            await c.press("pagedown")
            await c.gone("below: PgDn")
            await c.shows("Report what was done")
            await c.press("pageup")
            await c.shows("more lines below: PgDn")

    run(test)
