"""Point: the moment to go back to. A timeline, newest first; details are read while the operator looks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from time import time as now

from textual import work
from textual.app import ComposeResult
from textual.binding import Binding
from textual.widget import Widget

from recovery.errors import ErrorReport, RekindleError, UsageError
from recovery.tui.describe import hang, moment, point_lines
from recovery.tui.screens.base import ConsoleScreen
from recovery.tui.screens.target import TargetScreen
from recovery.tui.screens.vm import VmScreen
from recovery.tui.timeline import FOLD, Timeline
from recovery.tui.widgets.choice import ChoiceList
from recovery.tui.widgets.controls import Action, Field, Row
from recovery.tui.widgets.dialogs import DIALOG_WIDTH, Dialog
from recovery.tui.widgets.panes import Lines, Pane
from recovery.tui.work import in_thread
from recovery.units import format_count
from recovery.when import EXAMPLES, When, parse_when

#: Seconds between two looks for points that came into sight.
READ_SECONDS = 0.5


class PointScreen(ConsoleScreen):
    """All points of the host as a timeline, and what the highlighted one holds."""

    NAME = "Point"
    HELP = (
        "Choose the moment the host shall go back to; the newest is on top.\n\n"
        "← →    a day back, a day forth          - +   an hour back, an hour forth\n"
        "An hour with many points shows the newest; Enter on the row below opens it.\n"
        "Type a time to see the points up to it (14:00, yesterday 14:00,\n"
        "2025-11-20T14:00Z), or a day to see that day's; nothing shows all again.\n\n"
        "Consistency  application: databases were told before the snapshot\n"
        "             filesystem: filesystems were frozen; offline: was shut down\n"
        "             crash: like after a power cut; journals repair it at boot\n"
        "+size, bar   what changed since the point before. After an attack one\n"
        "             point with much more than the others may be the one; choose\n"
        "             one from before it.\n"
        "Details      all disks and VMs of the point."
    )
    HINTS = "Arrows move  ←→ day  -/+ hour  Enter choose  Esc back  F1 help  F2 shell"
    BINDINGS = [
        Binding("left", "jump('day', -1)", show=False),
        Binding("right", "jump('day', 1)", show=False),
        Binding("minus", "jump('hour', -1)", show=False),
        Binding("plus", "jump('hour', 1)", show=False),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._timeline = Timeline.of((), 0.0)
        self._reading = False

    def body(self) -> ComposeResult:
        """The way to a time, the list and the details."""
        host = self.session.fields.get("host", "")
        vm = f"From which moment shall the VM of {host} come back?"
        yield Lines(vm if self.session.mode == "vm" else f"To which moment shall {host} go back?", classes="heading")
        yield Row("Go to time", Field(self.session.fields.get("when", ""), id="when", placeholder=f"e.g. {EXAMPLES}"))
        yield Lines("", id="points-head")
        yield ChoiceList(id="points", text_of=self._row)
        with Pane(id="details"):
            yield Lines("", id="detail-text")

    def buttons(self) -> Iterable[Widget]:
        """Continue; everything about the point."""
        return (Action("Continue", id="continue"), Action("Details", id="details-button"))

    def on_mount(self) -> None:
        """Highlight the point chosen before, or the newest."""
        self._show(self._when(), self.session.point.id if self.session.point else "")
        self.query_one("#points").focus()
        self.set_interval(READ_SECONDS, self.read_details)

    def _row(self, id: str) -> str:
        return self._timeline.row(id, self.session.details, self.session.unreadable)

    def _show(self, when: When | None, highlight: str = "") -> None:
        """The points that ``when`` means."""
        opened = self._timeline.opened
        self._timeline = replace(Timeline.of(self.session.points, now(), when), opened=opened)
        for row in [id for id, _ in self._timeline.rows(1) if id.startswith(FOLD)] if highlight else ():
            if any(point.id == highlight for point in self._timeline.hidden(row)):
                self._timeline = self._timeline.open(row)
        self.query_one("#points-head", Lines).update(f"  {self._timeline.head()}")
        self.query_one("#points", ChoiceList).set_rows(self._timeline.rows(self.size.width - 2), highlight)
        self._show_details()

    def _show_details(self) -> None:
        selected = self.query_one("#points", ChoiceList).selected
        point = self.session.details.get(selected)
        text = "Reading the details ..."
        if selected.startswith(FOLD):
            text = "Enter shows the points of this hour minute by minute."
        elif selected in self.session.unreadable:
            text = "This point cannot be read. Choose another one; Enter tries again and says why."
        elif point is not None:
            text = hang("\n".join(point_lines(point, now())), self.size.width - 3, 15)
        self.query_one("#detail-text", Lines).update(text)

    def on_choice_list_highlighted(self, event: ChoiceList.Highlighted) -> None:
        """Details follow the highlight."""
        self._show_details()
        self.read_details()

    @work(group="details")
    async def read_details(self) -> None:
        """Read the points in sight that were not read yet, the highlighted one first."""
        choice = self.query_one("#points", ChoiceList)
        if self._reading or not self.is_current:
            return
        self._reading = True
        try:
            while id := next((id for id in (choice.selected, *choice.in_sight) if self._unread(id)), ""):
                try:
                    self.session.details[id] = await in_thread(
                        self.session.engine.point, self.session.fields.get("host", ""), id
                    )
                except RekindleError as error:
                    self.session.unreadable.add(id)
                    self.status(f"The point {id[:12]} cannot be read: {error.message}")
                choice.refresh()
                if id == choice.selected:
                    self._show_details()
        finally:
            self._reading = False

    def _unread(self, id: str) -> bool:
        return (
            bool(id)
            and not id.startswith(FOLD)
            and id not in self.session.details
            and id not in self.session.unreadable
        )

    # --- the way to a time ------------------------------------------------------------------------------------

    def action_jump(self, unit: str, direction: int) -> None:
        """To the next day or hour that has a point."""
        choice = self.query_one("#points", ChoiceList)
        choice.highlight(self._timeline.jump(choice.selected, unit, direction))

    def type_ahead(self, character: str) -> bool:
        """Typing in the list goes to the time field."""
        if not (character.isalnum() and self.focused is self.query_one("#points")):
            return False
        field = self.query_one("#when", Field)
        field.value = ""
        self.set_focus(field)  # Widget.focus would do it after the keys that have come already
        field.insert_text_at_cursor(character)
        return True

    def _when(self) -> When | None:
        """What was typed; None for nothing, or what is no time."""
        try:
            text = self.session.fields.get("when", "").strip()
            return parse_when(text, datetime.fromtimestamp(now()).astimezone()) if text else None
        except UsageError:
            return None

    def field_changed(self, id: str, value: str) -> None:
        """Say what Enter would show."""
        super().field_changed(id, value)
        when = self._when()
        if when is not None:
            count = sum(when.holds(point.created) for point in self.session.points)
            which = f"up to {moment(when.last)}" if when.first is None else f"of the day from {moment(when.first)} on"
            self.status(f"Enter: {format_count(count, 'point')} {which}")
        else:
            self.status(f"Not a time yet. Like {EXAMPLES}" if value.strip() else "Enter: all points")

    def field_done(self, id: str) -> None:
        """Show the points that were meant; say so when there are none."""
        text, when = self.session.fields.get("when", "").strip(), self._when()
        if text and when is None:
            self.show_error(ErrorReport("UsageError", f"'{text}' is not a time.", f"Type it like one of: {EXAMPLES}."))
            return
        if when is not None and not any(when.holds(point.created) for point in self.session.points):
            oldest, newest = self.session.points[-1].created, self.session.points[0].created
            self.show_error(
                ErrorReport(
                    "NotFoundError",
                    f"There is no point then. The oldest is of {moment(oldest)}, the newest of {moment(newest)}.",
                    "Type another time.",
                )
            )
            return
        self.status("")
        self._show(when)
        self.query_one("#points").focus()

    # --- on ---------------------------------------------------------------------------------------------------

    def on_choice_list_chosen(self, event: ChoiceList.Chosen) -> None:
        """Enter."""
        if self._opened_hour():
            return
        if not self.busy:
            self.press_continue()

    def _opened_hour(self) -> bool:
        """Whether the highlighted row stood for an hour's minutes, which are shown now."""
        choice = self.query_one("#points", ChoiceList)
        fold = choice.selected
        if not fold.startswith(FOLD):
            return False
        first = self._timeline.hidden(fold)[0].id
        self._timeline = self._timeline.open(fold)
        choice.set_rows(self._timeline.rows(self.size.width - 2), first)
        self._show_details()
        return True

    def press_details_button(self) -> None:
        """All of what the point holds, in a box that can be paged."""
        point = self.session.details.get(self.query_one("#points", ChoiceList).selected)
        if point is not None:
            text = hang("\n".join(point_lines(point, now())), min(self.size.width, DIALOG_WIDTH) - 5, 15)
            self.app.push_screen(Dialog(f"Point {point.id[:12]}", text, [("ok", "OK")]))

    @work(exclusive=True, group="ask")
    async def press_continue(self) -> None:
        """Make sure the point can be read; look at this machine's disks; on."""
        if self._opened_hour():
            return
        id = self.query_one("#points", ChoiceList).selected
        summary = next((point for point in self.session.points if point.id == id), None)
        if summary is None:
            return
        engine = self.session.engine
        point = self.session.details.get(id) or await self.ask(
            "Reading the point", engine.point, summary.host, summary.id
        )
        if point is None:
            return
        self.session.details[id] = point
        self.session.choose_point(point)
        if self.session.mode == "vm":
            self.console_app.go(VmScreen())
            return
        machine = await self.ask("Looking at the disks of this machine", engine.machine, refresh=True)
        if machine is None:
            return
        self.session.machine = machine
        suggestions = await self.ask("Choosing target disks", engine.suggest, summary.host, summary.id)
        if suggestions is None:
            return
        self.session.suggestions = suggestions
        self.console_app.go(TargetScreen())
