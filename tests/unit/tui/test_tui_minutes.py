"""Minutes inside hours: an hour full of points is opened by Enter, and only then a point of it is chosen."""

from __future__ import annotations

from recovery.format.point import PointSummary
from recovery.tui.screens.point import PointScreen
from recovery.tui.timeline import FOLD
from recovery.tui.widgets.choice import ChoiceList
from tests.unit.tui.console import console, run
from tests.unit.tui.fake_engine import FakeEngine
from tests.unit.tui.fake_world import HOST, NOW


def test_enter_opens_the_hour_and_then_chooses_the_minute() -> None:
    async def test() -> None:
        engine = FakeEngine(address=True)
        hour = NOW // 3600 * 3600
        minutes = [PointSummary(id=f"{n:064x}", host=HOST, created=hour + 60 * n) for n in range(40)]
        engine.points = lambda host: minutes  # type: ignore[method-assign]
        engine.point = lambda host, point: engine.all_points[1]  # type: ignore[method-assign]
        async with console(engine) as c:
            await c.sign_in()
            await c.press("enter")
            await c.on("Point")
            await c.shows("39 more from")
            choice = c.app.screen.query_one("#points", ChoiceList)
            assert len([id for id, _ in choice.rows if id]) == 2
            await c.press("down")
            assert choice.selected == FOLD + minutes[-1].id
            await c.shows("minute by minute")
            await c.press("enter")
            await c.until(lambda: len([id for id, _ in choice.rows if id]) == 40, "all minutes")
            assert isinstance(c.app.screen, PointScreen) and choice.selected == minutes[-2].id
            await c.press("down", "enter")
            await c.on("Target disks")

    run(test)
