"""Repair: the disks of a host that is here already and shall start on this machine."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.widget import Widget

from recovery.errors import ErrorReport
from recovery.machine.model import Disk
from recovery.tui.describe import disk_contents, disk_row, hang, holds, short_name, unavailable
from recovery.tui.drivers_text import controllers_text
from recovery.tui.picture import labelled, now_on
from recovery.tui.screens.base import ConsoleScreen
from recovery.tui.screens.plan import PlanScreen
from recovery.tui.widgets.choice import ChoiceList
from recovery.tui.widgets.controls import Action, Toggle
from recovery.tui.widgets.panes import Lines, Notice, Pane

#: What has the same UUID on several disks of one host (blkid's names): the members of a set, and ESPs that are kept
#: equal. A physical volume has one of its own.
_SHARED = ("linux_raid_member", "btrfs", "zfs_member", "bcache", "vfat")


def likely(disk: Disk) -> bool:
    """A system was found on it, and it may be chosen."""
    return bool(disk.systems) and not unavailable(disk)


def copies(disks: Sequence[Disk]) -> list[Disk]:
    """Those of the disks that hold a filesystem or physical volume with the UUID of one on another."""
    found: dict[str, set[str]] = {}
    for disk in disks:
        for content in (disk.content, *(part.content for part in disk.table.partitions)):
            if content.uuid and content.kind and content.kind not in _SHARED:
                found.setdefault(content.uuid, set()).add(disk.id)
    twice = {id for ids in found.values() if len(ids) > 1 for id in ids}
    return [disk for disk in disks if disk.id in twice]


class RepairScreen(ConsoleScreen):
    """Every disk that the host starts from is chosen; nothing on them is overwritten."""

    NAME = "Repair boot"
    HELP = (
        "Choose every disk that the host starts from: with its root, /boot and EFI\n"
        "partition. Enter or Space chooses a disk and takes it back.\n\n"
        "'-' marks disks that cannot be chosen; the reason is shown.\n\n"
        "What will be adapted: initramfs, fstab, network cards, boot loader. Files\n"
        "that are changed are kept beside the new ones. Nothing is restored: content\n"
        "that is damaged stays damaged.\n\n"
        "Grow   the last partition takes the room of a larger disk."
    )
    HINTS = "Arrows move  Enter/Space choose  Tab on  Esc back  F1 help  F2 shell"

    def __init__(self) -> None:
        super().__init__()
        self._copies: list[Disk] = []

    def body(self) -> ComposeResult:
        """The disks and what lies on the highlighted one."""
        yield Lines(
            "Which disks hold the host? Files there are changed.  ([x] chosen, - cannot be)", classes="heading"
        )
        yield ChoiceList(id="repair-disks")
        yield Notice(controllers_text(self.session.machine), id="not-seen", classes="lost")
        with Pane(id="details"):
            yield Lines("", id="detail-text")
        with Horizontal(classes="row"):
            yield Toggle("Grow onto larger disks", self.session.toggles.get("grow", False), id="grow")

    def buttons(self) -> Iterable[Widget]:
        """Continue."""
        return (Action("Continue", id="continue"),)

    def on_mount(self) -> None:
        """Disks with a system are chosen already, but not two copies of one."""
        self._copies = copies([disk for disk in self.session.machine.disks if likely(disk)])
        if not self.session.targets:
            chosen = [disk for disk in self.session.machine.disks if likely(disk) and disk not in self._copies]
            self.session.targets = {disk.id: disk.id for disk in chosen}
        self._show()
        self.query_one("#repair-disks").focus()

    def _show(self) -> None:
        rows = []
        for disk in self.session.machine.disks:
            box = " - " if unavailable(disk) else "[x]" if disk.id in self.session.targets else "[ ]"
            rows.append((disk.id, f"{box} {disk_row(disk)} {holds(disk)}"))
        self.query_one("#repair-disks", ChoiceList).set_rows(rows)
        self._show_details()

    def _show_details(self) -> None:
        disk = self.session.machine.disk(self.query_one("#repair-disks", ChoiceList).selected)
        text = Text()
        if disk is not None:
            width = self.size.width - 3
            if why := unavailable(disk):
                text.append(hang(f"Cannot be chosen: {why}", width) + "\n", style="red")
            if disk in self._copies:
                names = ", ".join(short_name(copy.path) for copy in self._copies)
                same = f"{names} hold the same UUIDs: copies of one host. Choose one, detach the other."
                text.append(hang(same, width) + "\n", style="yellow")
            text.append("\n".join(labelled("Now", now_on(disk, self.session.machine), width)) + "\n")
            text.append(hang("\n".join(disk_contents(disk)), width))
        self.query_one("#detail-text", Lines).update(text)

    def on_choice_list_highlighted(self, event: ChoiceList.Highlighted) -> None:
        """Details follow the highlight."""
        self._show_details()

    def on_choice_list_chosen(self, event: ChoiceList.Chosen) -> None:
        """Choose, or take back."""
        disk = self.session.machine.disk(event.choice.selected)
        if disk is None:
            return
        if why := unavailable(disk):
            self.show_error(
                ErrorReport(
                    "UnsafeTargetError", f"{short_name(disk.path)} cannot be chosen. {why}", "Choose another disk."
                )
            )
            return
        if disk.id in self.session.targets:
            del self.session.targets[disk.id]
        else:
            self.session.targets[disk.id] = disk.id
        self._show()

    def press_continue(self) -> None:
        """On to the plan."""
        if not self.session.targets:
            self.show_error(
                ErrorReport("UsageError", "No disk is chosen.", "Choose every disk that the host starts from.")
            )
            return
        self.console_app.go(PlanScreen())
