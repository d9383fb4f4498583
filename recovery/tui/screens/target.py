"""Target disks: which disk of this machine takes each disk of the point."""

from __future__ import annotations

from collections.abc import Iterable

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.widget import Widget

from recovery.errors import ErrorReport
from recovery.format.point import PointDisk
from recovery.machine.model import Disk
from recovery.plan.suggest import is_captured_disk
from recovery.tui.describe import disk_contents, disk_row, hang, holds, short_name, unavailable
from recovery.tui.drivers_text import controllers_text
from recovery.tui.picture import after_on, labelled, now_on
from recovery.tui.screens.base import ConsoleScreen
from recovery.tui.screens.plan import PlanScreen
from recovery.tui.widgets.choice import ChoiceList
from recovery.tui.widgets.controls import Action, Toggle
from recovery.tui.widgets.panes import Lines, Notice, Pane
from recovery.units import format_size

#: The row that leaves a disk of the point out.
NONE = "none"


class TargetScreen(ConsoleScreen):
    """Above the disks of the point, below the disks of this machine, then what lies on the highlighted one."""

    NAME = "Target disks"
    HELP = (
        "Above: the disks of the recovery point and where each will go. Enter on one\n"
        "goes down to this machine's disks; Enter there chooses.\n\n"
        "A suggestion is made already; look at it before you continue. The pictures\n"
        "show the partitions of the highlighted disk now, which will all be lost,\n"
        "and after the restore. PgDn scrolls, when the focus is on the button.\n"
        "'-' marks disks that cannot be chosen: the boot medium, mounted disks,\n"
        "disks with a repository. The reason is shown. 'Not seen' names a controller\n"
        "that lacks a driver or firmware: a medium of '--firmware all' may have it.\n\n"
        "Make it boot here  adapts the restored system to this machine.\n"
        "Grow               the last partition takes the room of a larger disk."
    )

    def body(self) -> ComposeResult:
        """Sources, targets, details, options."""
        heading = {
            "some": "Choose the disks to restore; those without a target stay as they are",
            "rollback": "Disks of the recovery point and this machine's own disks that go back to it",
        }.get(self.session.mode, "Disks of the recovery point and where they go")
        yield Lines(heading, classes="heading")
        yield ChoiceList(id="sources")
        yield Lines("", id="targets-heading", classes="heading")
        yield ChoiceList(id="targets")
        yield Notice(controllers_text(self.session.machine), id="not-seen", classes="lost")
        with Pane(id="details"):
            yield Lines("", id="detail-text")
        with Horizontal(classes="row"):
            yield Toggle("Make it boot here", self.session.toggles.get("adapt", True), id="adapt")
            yield Toggle("Grow onto larger disks", self.session.toggles.get("grow", True), id="grow")

    def buttons(self) -> Iterable[Widget]:
        """Continue."""
        return (Action("Continue", id="continue"),)

    def on_mount(self) -> None:
        """Take the suggestions; the focus is on Continue when each disk has a target."""
        session = self.session
        for suggestion in session.suggestions:
            disk = session.machine.disk(suggestion.target) if suggestion.target else None
            if disk is None or unavailable(disk) or suggestion.disk in session.targets:
                continue
            if session.mode == "restore" or (session.mode == "rollback" and self._is_own(suggestion.disk, disk)):
                session.targets[suggestion.disk] = disk.id
        self._show()
        complete = all(source.name in session.targets for source in self._sources())
        self.query_one("#continue" if complete else "#sources").focus()

    def _is_own(self, name: str, disk: Disk) -> bool:
        """The very disk that was captured: only that one is rolled back without being chosen."""
        return any(source.name == name and is_captured_disk(source, disk) for source in self._sources())

    def _sources(self) -> tuple[PointDisk, ...]:
        return self.session.point.body.disks if self.session.point else ()

    def _source(self) -> PointDisk | None:
        name = self.query_one("#sources", ChoiceList).selected
        return next((disk for disk in self._sources() if disk.name == name), None)

    def _show(self) -> None:
        self.query_one("#sources", ChoiceList).set_rows(
            [(disk.name, self._source_row(disk)) for disk in self._sources()]
        )
        self._show_targets()

    def _source_row(self, source: PointDisk) -> str:
        target = self.session.machine.disk(self.session.targets.get(source.name, ""))
        goes = f"{short_name(target.path)}, {format_size(target.size)} {target.model}" if target else "not restored"
        return f"{source.name:<8} {format_size(source.size):>8} {short_name(source.device):<9.9} → {goes}"

    def _show_targets(self) -> None:
        source = self._source()
        chosen = self.session.targets.get(source.name, "") if source else ""
        rows = []
        for disk in self.session.machine.disks:
            mark = "*" if disk.id == chosen else "-" if unavailable(disk) else " "
            rows.append((disk.id, f"{mark} {disk_row(disk)} {holds(disk)}"))
        rows.append((NONE, f"{' ' if chosen else '*'} (do not restore this disk)"))
        self.query_one("#targets-heading", Lines).update(
            f"Disks of this machine for {source.name if source else '?'}   (* chosen, - cannot be chosen)"
        )
        targets = self.query_one("#targets", ChoiceList)
        targets.set_rows(rows, "" if targets.has_focus else chosen or NONE)
        self._show_details()

    def _show_details(self) -> None:
        """Of the highlighted target, or of the chosen one while the focus is elsewhere."""
        source = self._source()
        choice = self.query_one("#targets", ChoiceList)
        chosen = self.session.targets.get(source.name, NONE) if source else NONE
        id = choice.selected if choice.has_focus else chosen
        self.query_one("#detail-text", Lines).update(self._details(source, self.session.machine.disk(id)))

    def _details(self, source: PointDisk | None, disk: Disk | None) -> Text:
        width = self.size.width - 3
        text = Text()
        if source is None or self.session.point is None:
            return text.append("The point has no disks.")
        suggestion = next((s for s in self.session.suggestions if s.disk == source.name), None)
        reason = suggestion.reason if suggestion else ""
        if disk is None:
            if self.session.mode == "rollback":
                reason = f"The disk that {source.name} was captured from is not here, or cannot be chosen."
            elif suggestion and suggestion.target:
                reason = f"Enter on {source.name} above, then on a disk, chooses one."
            return text.append(hang(f"{source.name} will not be restored.\n{reason}", width))
        why = unavailable(disk)
        if why:
            text.append(hang(f"Cannot be chosen: {why}", width) + "\n", style="red")
        elif disk.size < source.size:
            small = f"Smaller than {source.name} ({format_size(source.size)}): the plan shows whether it fits."
            text.append(hang(small, width) + "\n", style="red")
        elif suggestion and suggestion.target in (disk.id, disk.path) and reason:
            text.append(hang(f"Suggested: {reason}", width) + "\n")
        if not (why or disk.blank):
            name = short_name(disk.path)
            lost = f"everything that is on {name} now"
            if self.session.mode == "rollback":
                lost = f"what differs on {name} from the point"
            text.append(f"WILL BE LOST, {lost}:\n", style="yellow")
        text.append("\n".join(labelled("Now", now_on(disk, self.session.machine), width)) + "\n",
                    style="" if why or disk.blank else "yellow")  # fmt: skip
        if not why and disk.size >= source.size:
            grow = self.session.toggles.get("grow", True) and self.session.toggles.get("adapt", True)
            after = after_on(source, self.session.point, disk, grow=grow)
            text.append("\n".join(labelled("After", after, width)) + "\n", style="green")
        if self.session.mode == "restore" and not self.session.toggles.get("adapt", True):
            words = "It will not be made to boot here ('Make it boot here' is off), and nothing grows: byte for byte."
            text.append(hang(words, width) + "\n", style="yellow")
        text.append(hang("\n".join(disk_contents(disk)), width))
        return text

    def on_choice_list_highlighted(self, event: ChoiceList.Highlighted) -> None:
        """The lower parts follow the upper ones."""
        if event.choice.id == "sources":
            self._show_targets()
        else:
            self._show_details()

    def on_descendant_focus(self) -> None:
        """Details show the highlighted target while the targets have the focus, else the chosen one."""
        self._show_details()

    def on_choice_list_chosen(self, event: ChoiceList.Chosen) -> None:
        """Enter above goes down to the target in use; Enter below chooses, if that is allowed."""
        source = self._source()
        if source is None:
            return
        targets = self.query_one("#targets", ChoiceList)
        if event.choice.id == "sources":
            suggested = next((s.target for s in self.session.suggestions if s.disk == source.name), "")
            disk = self.session.machine.disk(self.session.targets.get(source.name, suggested))
            targets.focus()
            targets.set_rows(targets.rows, disk.id if disk is not None else targets.rows[0][0])
        else:
            self._choose(source, targets.selected)

    def _choose(self, source: PointDisk, id: str) -> None:
        disk = self.session.machine.disk(id)
        if disk is not None and (why := unavailable(disk)):
            self.show_error(
                ErrorReport(
                    "UnsafeTargetError", f"{short_name(disk.path)} cannot be chosen. {why}", "Choose another disk."
                )
            )
            return
        targets = self.session.targets
        if disk is None:
            targets.pop(source.name, None)
        else:
            for other in [name for name, target in targets.items() if target == disk.id]:
                del targets[other]  # one disk takes one disk: the one chosen last
            targets[source.name] = disk.id
        self._show()
        missing = [disk.name for disk in self._sources() if disk.name not in targets and disk.name != source.name]
        if missing and disk is not None:
            sources = self.query_one("#sources", ChoiceList)
            sources.set_rows(sources.rows, missing[0])
            sources.focus()
        else:
            self.query_one("#continue").focus()

    def toggle_changed(self, id: str, value: bool) -> None:
        """What grows is in the picture."""
        super().toggle_changed(id, value)
        self._show_details()

    def press_continue(self) -> None:
        """On to the plan."""
        if not self.session.targets:
            self.show_error(
                ErrorReport("UsageError", "No disk has a target.", "Choose a target for at least one disk.")
            )
            return
        self.console_app.go(PlanScreen())
