"""Result: the honest report of a run that ended well, and the way out."""

from __future__ import annotations

from collections.abc import Iterable

from textual import work
from textual.app import ComposeResult
from textual.widget import Widget

from recovery.engine.api import Report
from recovery.plan.model import RestorePlan
from recovery.tui.describe import hang
from recovery.tui.qr import summary
from recovery.tui.report_text import before_start, report_text, verdict
from recovery.tui.screens.base import ConsoleScreen
from recovery.tui.widgets.controls import Action
from recovery.tui.widgets.panes import Lines, Pane
from recovery.tui.widgets.qr_dialog import QrDialog


class ResultScreen(ConsoleScreen):
    """What was done, with warnings first."""

    NAME = "Result"
    HELP = (
        "The run is complete. Read the warnings and do what is to be done before the\n"
        "host starts; then restart, without the medium.\n\n"
        "QR code      the summary for a phone: host, point, times, bytes, roots.\n"
        "Save log     writes report and log into the restored system\n"
        "             (/var/log/rekindle), or onto a USB volume.\n"
        "New task     begins again, with the same network and sign-in.\n"
        "A VM         what to do with its files stands below them.\n\n"
        "PgUp and PgDn scroll. F2 opens a shell."
    )
    HINTS = "PgUp/PgDn scroll  Enter select  F1 help  F2 shell  F10 power"

    def __init__(self) -> None:
        super().__init__()
        self._report: Report | None = None
        self._todo: list[str] = []

    def body(self) -> ComposeResult:
        """The verdict and the report."""
        yield Lines("", id="verdict", classes="heading")
        with Pane():
            yield Lines("Reading the report ...", id="report")

    def buttons(self) -> Iterable[Widget]:
        """Restart is what comes next."""
        return (
            Action("Restart", id="restart"),
            Action("Switch off", id="off"),
            Action("QR code", id="qr"),
            Action("Save log", id="save"),
            Action("New task", id="new"),
        )

    def on_mount(self) -> None:
        """Read the report."""
        self.came_by_itself()
        self.query_one("#restart").focus()
        self.read()

    def action_back(self) -> None:
        """A run that ended is no place to go back to."""
        self.status("It is complete. 'New task' begins again.")

    @work(exclusive=True, group="ask")
    async def read(self) -> None:
        """The report of the run."""
        state = await self.ask("Reading the report", self.session.engine.state)
        if state is None or state.report is None:
            self.query_one("#report", Lines).update("The engine has no report. F2 opens a shell.")
            return
        self._report = state.report
        plan = state.plan or state.vm_plan
        titles = {step.id: step.title for step in plan.steps} if plan else {}
        if state.vm_plan is not None:
            self.query_one("#new").focus()  # a host that is well needs no restart
        self._todo = before_start(plan.problems) if isinstance(plan, RestorePlan) else []
        if self._todo:
            self.query_one("#save").focus()
        line = self.query_one("#verdict", Lines)
        line.update(verdict(state.report, len(self._todo)))
        line.set_class(not (state.report.damaged or self._todo), "good")
        text = report_text(state.report, titles, self.size.width - 3, self._todo)
        self.query_one("#report", Lines).update(text)

    @work(exclusive=True, group="ask")
    async def press_restart(self) -> None:
        """Boot the restored host; what is to be done before is a question of its own (``may_restart``)."""
        if self._todo or await self._sure("Restart this machine?", "Restart now"):
            await self.console_app.power(off=False)

    async def may_restart(self) -> bool:
        """First, what has to be done before."""
        if not self._todo:
            return True
        text = "\n".join(hang(f"{number}. {each}", 74, 3) for number, each in enumerate(self._todo, 1))
        choices = [("stay", "Stay"), ("go", "It is done: restart")]
        return await self.choose("Before the host is started", text, choices) == "go"

    @work(exclusive=True, group="ask")
    async def press_off(self) -> None:
        """Switch off."""
        if await self._sure("Switch this machine off?", "Switch off now"):
            await self.console_app.power(off=True)

    async def _sure(self, title: str, label: str) -> bool:
        """Restart has the focus from the start, so one Enter alone must not do it."""
        text = "What is on the disks stays. A log that was not saved is gone with this medium's memory."
        return await self.choose(title, hang(text, 74), [("stay", "Stay"), ("go", label)]) == "go"

    @work(exclusive=True, group="ask")
    async def press_save(self) -> None:
        """Keep report and log."""
        path = await self.ask("Saving the log", self.session.engine.save_log)
        if path:
            self.status(f"Saved: {path}")

    def press_qr(self) -> None:
        """The summary for a phone's camera."""
        if self._report is not None:
            self.app.push_screen(QrDialog(summary(self._report)))

    def press_new(self) -> None:
        """Begin again."""
        self.session.forget_choices()
        self.console_app.start_tasks()
