"""Place: where the files of a VM go. A filesystem on a disk of this machine, or a directory that is there already."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from textual import work
from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.widget import Widget

from recovery.errors import ErrorReport
from recovery.machine.place import LARGEST_FILE, Place
from recovery.tui.describe import hang, short_name
from recovery.tui.drivers_text import controllers_text
from recovery.tui.screens.base import ConsoleScreen
from recovery.tui.screens.plan import PlanScreen
from recovery.tui.widgets.choice import ChoiceList
from recovery.tui.widgets.controls import Action, Field, Row, Toggle
from recovery.tui.widgets.panes import Lines, Notice, Pane
from recovery.units import format_size

#: The row for a directory.
DIRECTORY = "directory"


class PlaceScreen(ConsoleScreen):
    """The filesystems of this machine with their free room, a directory, and the folder in it."""

    NAME = "Place"
    HELP = (
        "Choose the filesystem that gets the files; Enter goes down to the folder.\n"
        "Only this one is mounted for writing, when the restore begins, and it is\n"
        "unmounted at its end: a USB disk can be taken out then.\n\n"
        "'-' marks filesystems that cannot be chosen; the reason is shown. One that\n"
        "is encrypted: F2, cryptsetup open, exit, then 'Look again'.\n\n"
        "A directory   one that is there already on this running system: mounted in\n"
        "              a shell (F2), NFS for example. Type its whole path.\n"
        "Overwrite     replaces files of the same names. The VM's name is typed then."
    )
    HINTS = "Arrows move  Enter choose  Tab on  Esc back  F1 help  F2 shell"

    def body(self) -> ComposeResult:
        """The list, what it says, the folder."""
        yield Lines(f"Where shall the disks of {self.session.vm} go?   (- cannot be chosen)", classes="heading")
        yield ChoiceList(id="places-to-write")
        yield Notice(controllers_text(self.session.machine), id="not-seen", classes="lost")
        with Pane(id="details"):
            yield Lines("", id="detail-text")
        with Horizontal(id="folder-row"):
            yield Row("Folder on it", Field(self.session.fields.setdefault("folder", self._own()), id="folder"))
        with Horizontal(id="directory-row"):
            directory = self.session.fields.get("directory", "")
            yield Row("Directory", Field(directory, id="directory", placeholder="e.g. /mnt/vms"))
        with Horizontal(classes="row"):
            yield Toggle(
                "Overwrite files that are there", self.session.toggles.get("overwrite", False), id="overwrite"
            )

    def buttons(self) -> Iterable[Widget]:
        """Continue; another look, for a disk that was plugged in."""
        return (Action("Continue", id="continue"), Action("Look again", id="again"))

    def on_mount(self) -> None:
        """The place chosen before, or the likely one."""
        self._show(self.session.place)
        self.query_one("#places-to-write").focus()

    def _own(self) -> str:
        """A folder that nothing else has: the VM and the moment."""
        created = self.session.point.header.created if self.session.point else 0.0
        when = datetime.fromtimestamp(created, UTC).strftime("%Y%m%d-%H%M")
        return f"{re.sub(r'[^A-Za-z0-9._-]+', '-', self.session.vm).lstrip('.') or 'vm'}-{when}"

    def _show(self, highlight: str) -> None:
        places = self.session.places
        rows = [(place.device, f"{'-' if place.unavailable else ' '} {place_row(place)}") for place in places]
        rows.append((DIRECTORY, "  (a directory of this running system)"))
        self.query_one("#places-to-write", ChoiceList).set_rows(rows, highlight or likely(places))
        self._show_details()

    def _selected(self) -> Place | None:
        device = self.query_one("#places-to-write", ChoiceList).selected
        return next((place for place in self.session.places if place.device == device), None)

    def _show_details(self) -> None:
        place = self._selected()
        self.query_one("#folder-row").set_class(place is None, "hidden")
        self.query_one("#directory-row").set_class(place is not None, "hidden")
        width = self.size.width - 3
        if place is None:
            text = (
                "Type the whole path of a directory that is there already. On the medium itself it must be something "
                "that you mounted (F2): what lies in the medium's own folders is gone at the next start."
            )
        else:
            text = "\n".join(place_lines(place))
        self.query_one("#detail-text", Lines).update(hang(text, width))

    def on_choice_list_highlighted(self, event: ChoiceList.Highlighted) -> None:
        """Details and the field follow the highlight."""
        self._show_details()

    def on_choice_list_chosen(self, event: ChoiceList.Chosen) -> None:
        """Enter goes down to the folder, if the place can be chosen."""
        place = self._selected()
        if place is not None and place.unavailable:
            self._refuse(place)
            return
        self.query_one("#folder" if place else "#directory").focus()

    def _refuse(self, place: Place) -> None:
        what = f"{short_name(place.device)} cannot be chosen. {place.unavailable}"
        self.show_error(ErrorReport("UnsafeTargetError", what, "Choose another place."))

    def field_done(self, id: str) -> None:
        """Enter in the folder goes on."""
        self.query_one("#continue").focus()

    @work(exclusive=True, group="ask")
    async def press_again(self) -> None:
        """A disk was plugged in, or opened."""
        places = await self.ask("Looking at the filesystems of this machine", self.session.engine.places)
        if places is not None:
            self.session.places = places
            self._show("")
            self.query_one("#places-to-write").focus()

    def press_continue(self) -> None:
        """On to the plan."""
        place = self._selected()
        if place is not None and place.unavailable:
            self._refuse(place)
            return
        self.session.place = place.device if place else ""
        if place is None and not self.session.fields.get("directory", "").strip():
            self.show_error(ErrorReport("UsageError", "No directory is typed.", "Type its whole path, like /mnt/vms."))
            self.query_one("#directory").focus()
            return
        self.console_app.go(PlanScreen())


def likely(places: Sequence[Place]) -> str:
    """The row that is highlighted first: no system on it, and the most room."""
    usable = [place for place in places if not place.unavailable]
    best = min(usable, key=lambda place: (bool(place.system), -(place.free or 0)), default=None)
    return best.device if best else DIRECTORY


def place_row(place: Place) -> str:
    """``sdb1  ext4  'BACKUP'  1.79 TiB free of 1.82 TiB  WDC Elements``."""
    free = f"{format_size(place.free)} free of " if place.free is not None else ""
    label = f"'{place.label}'" if place.label else ""
    return (
        f"{short_name(place.device):<10.10} {place.kind:<11.11} {label:<14.14} "
        f"{free + format_size(place.size):>22} {place.model}"
    )


def place_lines(place: Place) -> list[str]:
    """What helps to decide, in lines."""
    on = f" on {short_name(place.disk)}, {' '.join(filter(None, (place.bus, place.model)))}" if place.disk else ""
    lines = [f"{place.device}, {place.kind}{on}"]
    if place.unavailable:
        return [*lines, f"Cannot be chosen: {place.unavailable}"]
    if place.system:
        lines.append(f"Found on it: {place.system}. It stays as it is; files are added.")
    if place.path:
        lines.append(f"Mounted already on {place.path}; it stays mounted.")
    else:
        lines.append("Mounted for writing when the restore begins, unmounted at its end.")
    if place.kind in LARGEST_FILE:
        lines.append(f"A file on it has at most {format_size(LARGEST_FILE[place.kind])}.")
    if not place.holes:
        lines.append("It keeps no holes: each file takes its whole size.")
    return lines
