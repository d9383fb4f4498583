"""Result of a run that did not come to its end: what happened, how things are, and every way to go on."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from textual import work
from textual.app import ComposeResult
from textual.widget import Widget

from recovery.tui.failure_text import damaged, failure_text, failure_verdict
from recovery.tui.run_model import RunModel
from recovery.tui.screens.another_copy import AnotherCopyScreen, ask_for_zeros
from recovery.tui.screens.base import ConsoleScreen
from recovery.tui.widgets.controls import Action
from recovery.tui.widgets.panes import Lines, Pane


class FailedScreen(ConsoleScreen):
    """Above the Restore screen that showed the run; ``again`` shows the next one there."""

    NAME = "Result"
    HELP = (
        "The run did not come to its end. Nothing is written until you choose.\n\n"
        "Retry         plans again with the same choices and goes on. What was typed\n"
        "              for the same disks still holds.\n"
        "Another copy  where stored content is damaged: a second copy of the same\n"
        "              repository, on a disk here or on a server, is asked for what\n"
        "              the first lacks.\n"
        "Skip damaged  where no copy has the content: zeros lie there afterwards, and\n"
        "              the report lists each place. It is asked before.\n"
        "Save log      writes report and log onto a USB volume.\n\n"
        "PgUp and PgDn scroll. Esc goes to the plan."
    )
    HINTS = "PgUp/PgDn scroll  Enter select  Esc plan  F1 help  F2 shell  F10 power"

    def __init__(self, model: RunModel, again: Callable[[], None]) -> None:
        super().__init__()
        self._model = model
        self._again = again

    def body(self) -> ComposeResult:
        """The verdict, why, and how to go on."""
        yield Lines(failure_verdict(self._model), id="verdict", classes="error")
        with Pane():
            yield Lines(failure_text(self._model, None, self.app.size.width - 3), id="report")

    def buttons(self) -> Iterable[Widget]:
        """What the text explains."""
        yield Action("Retry", id="retry")
        if damaged(self._model):
            yield Action("Another copy", id="copy")
            yield Action("Skip damaged", id="skip")
        yield Action("Change the plan", id="plan")
        yield Action("Save log", id="save")

    def on_mount(self) -> None:
        """Read the report."""
        self.came_by_itself()
        self.query_one("#retry").focus()
        self.read()

    def action_back(self) -> None:
        """To the plan."""
        self.console_app.back_to_plan()

    @work(exclusive=True, group="ask")
    async def read(self) -> None:
        """The report of what was done so far."""
        state = await self.ask("Reading the report", self.session.engine.state)
        report = state.report if state is not None else None
        self.query_one("#report", Lines).update(failure_text(self._model, report, self.size.width - 3))

    def on_screen_resume(self) -> None:
        """Back from another copy: it is asked in the next attempt."""
        if self.session.copies:
            self.status(f"Asked too from now on: {self.session.copies[-1]}. Retry goes on with it.")

    def press_plan(self) -> None:
        """Choose differently."""
        self.console_app.back_to_plan()

    def press_copy(self) -> None:
        """Where is the other copy?"""
        self.query_one("#retry").focus()
        self.console_app.go(AnotherCopyScreen())

    @work(exclusive=True, group="ask")
    async def press_skip(self) -> None:
        """Zeros in what is lost, if the operator says so."""
        if await ask_for_zeros(self):
            await self._start_again(skip_damaged=True)

    @work(exclusive=True, group="ask")
    async def press_retry(self) -> None:
        """Plan and start again with the same choices."""
        await self._start_again()

    async def _start_again(self, *, skip_damaged: bool = False) -> None:
        """What was typed for the same disks still holds; where something is missing, the plan is shown."""
        session, plan = self.session, self._model.plan
        # Another window made the plan: this one has neither its choices nor its confirmations.
        if plan is None or session.plan is None or session.plan.choices != plan.choices:
            self.console_app.back_to_plan()
            return
        session.toggles["skip_damaged"] = skip_damaged or session.toggles.get("skip_damaged", False)
        new = await self.ask("Planning and checking", session.make_plan)
        if new is None:
            return
        session.take_plan(new)
        if not (new.allowed and session.confirmed()):
            self.console_app.back_to_plan()
            return
        if await self.ask("Starting", session.start):
            self.console_app.go_back()
            self._again()

    @work(exclusive=True, group="ask")
    async def press_save(self) -> None:
        """Keep the log where it survives the medium."""
        path = await self.ask("Saving the log", self.session.engine.save_log)
        if path:
            self.status(f"Saved: {path}")
