"""Growth on the Plan screen: what could get the room of a larger disk is offered, and what is chosen is planned."""

from __future__ import annotations

from functools import partial

import msgspec

from recovery.layout import GrowPlace
from recovery.plan.model import Choices, GrowthCandidate, Problem, RestorePlan
from recovery.tui.session import Session
from recovery.tui.widgets.grow_dialog import rows, take
from recovery.units import GIB
from tests.unit.tui.console import Console, console, run
from tests.unit.tui.fake_engine import FakeEngine


def candidate(name: str, disk: str = "disk1", *, usual: bool = False) -> GrowthCandidate:
    places = (GrowPlace(disk=disk, number=2, volume=f"vg0{name}"),)
    return GrowthCandidate(
        name=name, what=f"ext4, volume vg0{name}", before=8 * GIB, after=72 * GIB, places=places, usual=usual
    )


class Larger(FakeEngine):
    """Plans for a larger disk."""

    def plan(self, choices: Choices) -> RestorePlan:
        found = (candidate("/root", usual=True), candidate("/var"))
        growth = tuple(msgspec.structs.replace(one, chosen=one.name in choices.grow_to) for one in found)
        self._plan = msgspec.structs.replace(super().plan(choices), growth=growth)
        return self._plan


def planned(console: Console) -> Choices:
    """What the console's newest plan was made for."""
    plan = console.app.session.plan
    assert isinstance(plan, RestorePlan)
    return plan.choices


def test_what_grows_is_chosen_on_the_plan() -> None:
    async def test() -> None:
        async with console(Larger(address=True)) as c:
            await c.to("Target disks")
            await c.press("enter")
            await c.on("Plan")
            await c.shows("[ Growth ]")
            c.app.screen.query_one("#growth").focus()
            await c.press("enter")
            await c.shows("> * As usual: /root")
            await c.shows("/var  8.00 GiB → 72.0 GiB  (ext4, volume vg0/var)")
            await c.press("down", "down", "enter")
            await c.on("Plan")
            await c.until(lambda: bool(planned(c) and planned(c).grow_to), "a plan")
            assert planned(c).grow_to == ("/var",) and planned(c).grow
            c.app.screen.query_one("#growth").focus()
            await c.press("enter")
            await c.shows("> * /var")
            await c.press("escape")
            assert c.app.session.grow_to == ("/var",)
            c.app.screen.query_one("#growth").focus()
            await c.press("enter")
            await c.shows("Nothing: the rest stays unused")
            await c.press("end", "enter")
            await c.until(lambda: not c.app.session.choices().grow, "the choice")
            assert c.app.session.choices().grow_to == ()

    run(test)


def test_without_a_larger_disk_nothing_is_offered() -> None:
    async def test() -> None:
        async with console(FakeEngine(address=True)) as c:
            await c.to("Target disks")
            await c.press("enter")
            await c.on("Plan")
            await c.shows("[>Continue<]")
            await c.gone("Growth")

    run(test)


def test_a_choice_for_another_disk_stays() -> None:
    session = Session(FakeEngine())
    found = (candidate("/"), candidate("/var"), candidate("/srv", "disk2"))
    for name, kept in (("/", ("/",)), ("/srv", ("/", "/srv")), ("/var", ("/srv", "/var")), ("none", ())):
        take(session, name, found)
        assert session.grow_to == kept
    assert session.toggles["grow"] is False
    plan = msgspec.structs.replace(empty_plan(), growth=found)
    assert [id for id, _ in rows(plan)] == ["usual", "/", "/var", "/srv", "none"]


def is_for_gpt(c: Console, wanted: bool) -> bool:
    return c.app.session.plan is not None and planned(c).to_gpt == wanted


def test_a_gpt_is_offered_where_an_mbr_does_not_reach_all_and_is_taken_back() -> None:
    class Huge(FakeEngine):
        def plan(self, choices: Choices) -> RestorePlan:
            code = "gpt-converted" if choices.to_gpt else "mbr-limit"
            self.plan_problems = (Problem(severity="info", code=code, what="1.00 TiB stay unused."),)
            return super().plan(choices)

    async def test() -> None:
        async with console(Huge(address=True)) as c:
            await c.to("Target disks")
            await c.press("enter")
            await c.on("Plan")
            for wanted in (True, False):
                await c.shows("[ Growth ]")
                c.app.screen.query_one("#growth").focus()
                await c.press("enter")
                await c.shows("A GPT instead of the MBR")
                await (c.gone if wanted else c.shows)("* A GPT")
                await c.press("end", "enter")
                await c.on("Plan")
                await c.until(partial(is_for_gpt, c, wanted), "a plan")
                assert c.app.session.choices().grow and not c.app.session.grow_to

    run(test)


def empty_plan() -> RestorePlan:
    choices = Choices(host="h", point="p", targets={})
    return RestorePlan(id="", choices=choices, assignments=(), steps=(), problems=(), logical=0, used=0)
