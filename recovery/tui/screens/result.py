"""Result: the honest report of a run that ended well, and the way out."""

from __future__ import annotations

from collections.abc import Iterable

from rich.text import Text
from textual import work
from textual.app import ComposeResult
from textual.widget import Widget

from recovery.engine.api import Report
from recovery.tui.describe import hang, moment, short_name
from recovery.tui.glyphs import DONE, FAILED
from recovery.tui.qr import summary
from recovery.tui.screens.base import ConsoleScreen
from recovery.tui.widgets.controls import Action
from recovery.tui.widgets.panes import Lines, Pane
from recovery.tui.widgets.qr_dialog import QrDialog
from recovery.units import format_duration, format_rate, format_size


def report_text(report: Report, titles: dict[str, str], width: int) -> Text:
    """Warnings first; then disks, changes and times."""
    text = Text()
    for warning in report.warnings:
        text.append(hang(f"Warning: {warning}", width) + "\n", style="yellow")
    took = f"in {format_duration(report.finished - report.started)}, ended {moment(report.finished)}"
    what = f"{report.host} as of {moment(report.point_created)}" if report.point else "Boot of this machine's disks"
    text.append(hang(f"{what}, {took}", width) + "\n")
    if len(report.disks) > 1:
        sums = [sum(getattr(disk, name) for disk in report.disks) for name in ("logical", "transferred", "written")]
        whole, transferred, written = map(format_size, sums)
        text.append(f"{len(report.disks)} disks, {whole}: transferred {transferred}, written {written}\n")
    for disk in report.disks:
        rate = format_rate(disk.logical / disk.seconds) if disk.seconds > 0 else "-"
        text.append(f"\n{disk.disk} → {short_name(disk.target)}: {format_size(disk.logical)}, {rate}\n", style="bold")
        text.append(
            f"  transferred {format_size(disk.transferred)}, written {format_size(disk.written)}, "
            f"zeroed {format_size(disk.zeroed)}, skipped {format_size(disk.skipped)}\n"
        )
        good = disk.verified and not disk.damaged
        text.append(hang(f"  {disk.verdict()}", width) + "\n", style="green" if good else "yellow")
        for damage in disk.damaged:
            text.append(hang(f"  lost: {damage.place()}", width) + "\n", style="red")
        if disk.root and not disk.root_matched and not disk.damaged:
            text.append(f"  root {disk.root[:16]}... as signed, not compared with the disk\n")
    if report.changes:
        text.append("\nChanged so that it boots here\n", style="bold")
        for change in report.changes:
            text.append(hang(f"  {change}", width) + "\n")
    if report.steps:
        text.append("\nSteps\n", style="bold")
        for step, seconds in report.steps:
            text.append(f"  {format_duration(seconds):>7}  {titles.get(step, step)}\n")
    if report.log_path:
        text.append(f"\nLog: {report.log_path}\n")
    return text


def verdict(report: Report) -> str:
    """One sentence: complete or not, and how many warnings."""
    what = "restore" if report.point else "repair"
    but = " except for what was lost" if any(disk.damaged for disk in report.disks) else ""
    count = len(report.warnings)
    warnings = f", with {count} warning{'' if count == 1 else 's'}" if count else ""
    return f"{FAILED if but else DONE} The {what} is complete{but}{warnings}."


class ResultScreen(ConsoleScreen):
    """What was done, with warnings first."""

    NAME = "Result"
    HELP = (
        "The run is complete. Read the warnings, then restart; take the medium out\n"
        "or let the firmware boot from the disk.\n\n"
        "QR code      the summary for a phone: host, point, times, bytes, roots.\n"
        "Save log     writes report and log into the restored system\n"
        "             (/var/log/rekindle), or onto a USB volume.\n"
        "New task     begins again, with the same network and sign-in.\n\n"
        "PgUp and PgDn scroll. F2 opens a shell."
    )
    HINTS = "PgUp/PgDn scroll  Enter select  F1 help  F2 shell  F10 power"

    def __init__(self) -> None:
        super().__init__()
        self._report: Report | None = None

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
        titles = {step.id: step.title for step in state.plan.steps} if state.plan else {}
        line = self.query_one("#verdict", Lines)
        line.update(verdict(state.report))
        line.set_class(not any(disk.damaged for disk in state.report.disks), "good")
        self.query_one("#report", Lines).update(report_text(state.report, titles, self.size.width - 3))

    @work(exclusive=True, group="ask")
    async def press_restart(self) -> None:
        """Boot the restored host."""
        await self.console_app.power(off=False)

    @work(exclusive=True, group="ask")
    async def press_off(self) -> None:
        """Switch off."""
        await self.console_app.power(off=True)

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
