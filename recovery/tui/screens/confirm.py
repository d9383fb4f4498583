"""Confirm: the serial number (or size) of each target disk is typed before it is overwritten."""

from __future__ import annotations

from collections.abc import Iterable

from textual import work
from textual.app import ComposeResult
from textual.widget import Widget

from recovery.errors import ErrorReport
from recovery.machine.model import Disk
from recovery.plan.model import DiskAssignment, RestorePlan
from recovery.tui.describe import disk_row, hang, moment, short_name
from recovery.tui.glyphs import DONE
from recovery.tui.picture import labelled, now_on
from recovery.tui.screens.base import ConsoleScreen
from recovery.tui.screens.restore import RestoreScreen
from recovery.tui.widgets.controls import Action, Field, Row
from recovery.tui.widgets.panes import Lines, Pane
from recovery.units import format_size

#: Disks that are named as not touched; of the others there is a count, so that the fields stay in sight.
_NAMED = 4


def unit(assignment: DiskAssignment) -> str:
    """What has to be typed for this disk."""
    return "serial number" if assignment.target.serial else "size in bytes"


def _words(disk: Disk) -> list[str]:
    """What a disk that nothing happens to is known by."""
    return [format_size(disk.size), disk.serial or "no serial", *(["holds a repository"] if disk.repository else [])]


class ConfirmScreen(ConsoleScreen):
    """The last screen before the first write. Nothing is confirmed by waiting."""

    NAME = "Confirm"
    HELP = (
        "After 'Restore now' everything on these disks is lost; after 'Repair now'\n"
        "the host's files on them are changed.\n\n"
        "Type for each disk its serial number as shown (a disk without one: its size\n"
        "in bytes), capital letters as they are. Read it from the label of the disk\n"
        "if you can. Enter goes to the next disk, then to 'Back': going on takes one\n"
        "more step, to the left."
    )

    def body(self) -> ComposeResult:
        """One block a disk."""
        repair = self.session.mode == "repair"
        what = {
            "repair": "These disks will be changed",
            "rollback": "What differs on these disks from the point will be overwritten",
        }.get(self.session.mode, "Everything on these disks will be overwritten")
        yield Lines(f"{what}. Type what is asked for each.", classes="heading")
        yield Lines("\n".join(self._around()), id="around")
        with Pane(id="disks-to-confirm"):
            for index, assignment in enumerate(self._assignments()):
                disk = assignment.target
                goes = "" if repair else f"{assignment.source.name} → "
                yield Lines(f"{goes}{disk_row(disk)}", classes="gap")
                if not disk.blank:
                    picture = labelled("Now", now_on(disk, self.session.machine), self.app.size.width - 3)
                    yield Lines("\n".join(picture), classes="" if repair else "lost")
                for loss in assignment.losses:
                    yield Lines(hang(f"  lost: {loss}", self.app.size.width - 3))
                if disk.blank:
                    yield Lines("  Blank: no partition table and no filesystem found.")
                yield Lines(f"  Type its {unit(assignment)}: {disk.confirmation}")
                yield Row(
                    short_name(disk.path), Field(self.session.confirmations.get(disk.id, ""), id=f"confirm-{index}")
                )
                yield Lines("", id=f"verdict-{index}", classes="error")

    def buttons(self) -> Iterable[Widget]:
        """Restore now, or back."""
        return (
            Action("Repair now" if self.session.mode == "repair" else "Restore now", id="start"),
            Action("Back", id="back"),
        )

    def on_mount(self) -> None:
        """The first field."""
        self.query(Field).first().focus()

    def _assignments(self) -> tuple[DiskAssignment, ...]:
        return self.session.plan.assignments if isinstance(self.session.plan, RestorePlan) else ()

    def _around(self) -> list[str]:
        """What comes back, and the disks that nothing happens to."""
        session, lines = self.session, []
        if session.point is not None and session.mode != "repair":
            lines.append(f"{session.point.header.host} as of {moment(session.point.header.created)} comes back.")
        chosen = {assignment.target.id for assignment in self._assignments()}
        others = [disk for disk in session.machine.disks if disk.id not in chosen and not disk.boot_medium]
        named = [f"{short_name(d.path)} ({', '.join(_words(d))})" for d in others[:_NAMED]]
        if more := others[_NAMED:]:
            named.append(f"{len(more)} more")
        lines += [f"Not touched: {', '.join(named)}."] if named else []
        return [hang(line, self.app.size.width - 3) for line in lines]

    def field_changed(self, id: str, value: str) -> None:
        """Remember it with the disk, not with the place on the screen."""
        index = int(id.rsplit("-", 1)[1])
        self.session.confirmations[self._assignments()[index].target.id] = value.strip()
        self.query_one(f"#verdict-{index}", Lines).update("")

    def field_done(self, id: str) -> None:
        """Enter: to the next disk, after the last one to the buttons; a wrong text is said at once."""
        index = int(id.rsplit("-", 1)[1])
        if self._check(index):
            last = index + 1 == len(self._assignments())
            # Not the button that overwrites: a second Enter must not be enough.
            self.set_focus(self.query_one("#back" if last else f"#confirm-{index + 1}"))

    def _check(self, index: int) -> bool:
        assignment = self._assignments()[index]
        right = self.session.confirmations.get(assignment.target.id, "") == assignment.target.confirmation
        line = self.query_one(f"#verdict-{index}", Lines)
        disk = short_name(assignment.target.path)
        line.update(f"  {DONE} {disk} is confirmed." if right else f"  That is not the {unit(assignment)} of {disk}.")
        line.set_class(right, "good")
        line.set_class(not right, "error")
        return right

    def press_back(self) -> None:
        """To the plan."""
        self.action_back()

    @work(exclusive=True, group="ask")
    async def press_start(self) -> None:
        """Start, if every disk was confirmed; the engine checks it again."""
        wrong = [index for index in range(len(self._assignments())) if not self._check(index)]
        if wrong:
            assignment = self._assignments()[wrong[0]]
            self.show_error(
                ErrorReport(
                    "UnsafeTargetError",
                    f"{short_name(assignment.target.path)} was not confirmed: the text is not its {unit(assignment)}. "
                    "Nothing was written.",
                    f"Type {assignment.target.confirmation}, or go back with Esc and choose another disk.",
                )
            )
            self.query_one(f"#confirm-{wrong[0]}").focus()
            return
        if await self.ask("Starting", self.session.start):
            self.console_app.go(RestoreScreen())
