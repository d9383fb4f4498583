"""Drive the console by keys and read its screen as lines of text, in tests."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from rich.segment import Segment
from textual import events
from textual._context import visible_screen_stack
from textual.geometry import Region
from textual.keys import _character_to_key

from recovery.engine.api import EngineApi
from recovery.tui.app import ConsoleApp
from recovery.tui.screens.task import TASKS
from tests.unit.tui.fake_engine import FakeEngine
from tests.unit.tui.fake_world import PASSPHRASE, PASSWORD, USER


class Console:
    """A console under test."""

    def __init__(self, app: ConsoleApp) -> None:
        self.app = app

    async def press(self, *keys: str) -> None:
        """Press keys, each one after the console has dealt with the one before.

        Not ``Pilot.press``: it waits until the process uses no CPU, which takes a second a key on a busy machine.
        """
        for key in keys:
            self.app.post_message(events.Key(key, " " if key == "space" else None))
            await self.settle()

    async def type(self, text: str) -> None:
        """Type text, key by key, as fast as it goes."""
        for character in text:
            self.app.post_message(events.Key(_character_to_key(character), character))
        await self.settle()

    async def settle(self) -> None:
        """Let messages travel: a key bubbles from the widget in focus up to the app, and its effect back down."""
        for _ in range(2):
            for pump in (self.app, self.app.focused, self.app.screen, self.app):
                arrived = asyncio.Event()
                if pump is not None and pump.call_later(arrived.set):
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(arrived.wait(), timeout=0.5)
            for _ in range(20):
                await asyncio.sleep(0)

    def segments(self, *, filtered: bool = True) -> list[Segment]:
        """What is on the screen now with its styles, dialogs over screens; ``filtered``: as it is shown."""
        screen, below = self.app.screen, self.app._background_screens
        self.app.glyph_filter.enabled = filtered
        if not filtered:
            for shown in (*below, screen):
                for widget in (shown, *shown.query("*")):
                    widget._styles_cache.clear()
        update = screen._compositor.render_update(full=True, screen_stack=below)
        size = self.app.size
        options = self.app.console.options.update(width=size.width, height=size.height)
        segments = list(self.app.console.render(update, options))  # type: ignore[arg-type]
        self.app.glyph_filter.enabled = True
        return segments

    def lines(self, *, filtered: bool = True) -> list[str]:
        """The text of the screen, trailing blanks cut."""
        text = "".join(segment.text for segment in self.segments(filtered=filtered) if not segment.control)
        return [line.rstrip() for line in text.split("\n")][: self.app.size.height]

    @property
    def top(self) -> str:
        """The first line of ``lines``, without drawing the others: it is looked at in every step of every test."""
        screen = self.app.screen
        visible_screen_stack.set(self.app._background_screens)
        size = screen._compositor.size
        if not size:
            return ""
        first = screen._compositor._render_chops(Region(0, 0, size.width, 1), lambda y: y == 0)[0]
        return "".join(strip.text for strip in first.values() if strip is not None).rstrip()

    @property
    def title(self) -> str:
        """The left part of the title line."""
        return self.top.strip().split("   ")[0]

    @property
    def text(self) -> str:
        """The whole screen."""
        return "\n".join(self.lines())

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until something is so; fails with the screen after a generous while."""
        for _ in range(500):
            await self.settle()
            if condition():
                return
            await asyncio.sleep(0.01)
        raise AssertionError(f"never came: {what}\n{self.text}")

    async def on(self, screen: str) -> None:
        """Wait for a screen that is not busy, and whose buttons can be pressed."""
        await self.until(lambda: self.title == f"Rekindle · {screen}", screen)
        await self.until(lambda: not getattr(self.app.screen, "busy", False), f"{screen} at rest")
        await self.until(lambda: getattr(self.app.screen, "_pressed_from", 0.0) <= time.monotonic(), "its keys")

    async def shows(self, text: str) -> None:
        """Wait for a text."""
        await self.until(lambda: text in self.text, text)

    async def gone(self, text: str) -> None:
        """Wait until a text is not shown any more: what a screen drops can be drawn a frame after what it adds."""
        await self.until(lambda: text not in self.text, f"no {text}")

    async def task(self, *keys: str) -> None:
        """From the first screen on, with the task that ``keys`` lead to."""
        await self.on("Task")
        await self.press(*keys, "enter")

    async def sign_in(self) -> None:
        """From Repository to Host."""
        await self.on("Repository")
        await self.type(USER)
        await self.press("enter")
        await self.type(PASSWORD)
        await self.press("enter", "enter")
        await self.type(PASSPHRASE)
        await self.press("enter")
        await self.on("Host")

    async def to(self, screen: str) -> None:
        """The happy path by Enter, from Repository up to ``screen``."""
        await self.sign_in()
        for here, there in (
            ("Host", "Point"),
            ("Point", "Target disks"),
            ("Target disks", "Plan"),
            ("Plan", "Confirm"),
        ):
            if self.title.endswith(screen):
                return
            await self.on(here)
            if here == "Plan":
                await self.shows("Nothing was written yet")
            await self.press("enter")
            await self.on(there)


@asynccontextmanager
async def console(
    engine: FakeEngine, size: tuple[int, int] = (80, 25), *, task: str = "restore"
) -> AsyncIterator[Console]:
    """A console of ``size`` in front of ``engine``, behind the choice of ``task`` (empty: at it).

    An exception in it fails the test.
    """
    async with console_of(engine, size) as shown:
        if task and shown.title == "Rekindle · Task":
            rows = [id for id, *_ in TASKS]
            await shown.task(*["down"] * rows.index(task))
        yield shown
        engine.hold.set()


@asynccontextmanager
async def console_of(
    engine: EngineApi, size: tuple[int, int] = (80, 25), *, wait: bool = True
) -> AsyncIterator[Console]:
    """A console in front of any engine, at its first screen unless it shall not ``wait`` for one."""
    app = ConsoleApp(engine)
    async with app.run_test(size=size):
        shown = Console(app)
        if wait:
            await shown.until(lambda: shown.title not in ("Rekindle · Start", ""), "the first screen")
        yield shown


def run(test: Callable[[], object]) -> None:
    """Run an async test; no plugin needed."""
    asyncio.run(test())  # type: ignore[arg-type]
