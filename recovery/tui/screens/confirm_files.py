"""Confirm, for the files of a VM: its name is typed where files that are there already are overwritten."""

from __future__ import annotations

from collections.abc import Iterable

from textual import work
from textual.app import ComposeResult
from textual.widget import Widget

from recovery.errors import ErrorReport
from recovery.plan.vm import VM_NAME, VmPlan
from recovery.tui.describe import hang
from recovery.tui.glyphs import DONE
from recovery.tui.screens.base import ConsoleScreen
from recovery.tui.screens.restore import RestoreScreen
from recovery.tui.widgets.controls import Action, Field, Row
from recovery.tui.widgets.panes import Lines, Pane


class ConfirmFilesScreen(ConsoleScreen):
    """The last screen before files are replaced. Nothing is confirmed by waiting."""

    NAME = "Confirm"
    HELP = (
        "The files that are listed are there already. Each is replaced when all new\n"
        "files are complete; if the restore fails or is stopped, they stay.\n\n"
        "Type the VM's name as shown to allow it; Enter goes to 'Back' then, and\n"
        "going on takes one more step, to the left. To keep them, go back (Esc twice)\n"
        "and choose another folder."
    )

    def body(self) -> ComposeResult:
        """The files and the field."""
        yield Lines("These files will be overwritten. Type what is asked for.", classes="heading")
        plan = self._plan()
        if plan is None:
            return
        with Pane(id="files"):
            yield Lines(hang(f"In {plan.goes_to}:", self.app.size.width - 3), classes="gap")
            for name in plan.overwritten:
                yield Lines(hang(f"  {name}", self.app.size.width - 3), classes="lost")
            yield Lines(f"  Type the VM's name: {plan.confirmation}", classes="gap")
            yield Row("VM", Field(self.session.confirmations.get(VM_NAME, ""), id="confirm-vm"))
            yield Lines("", id="verdict-vm", classes="error")

    def buttons(self) -> Iterable[Widget]:
        """Restore now, or back."""
        return (Action("Restore now", id="start"), Action("Back", id="back"))

    def on_mount(self) -> None:
        """The field."""
        self.query(Field).first().focus()

    def _plan(self) -> VmPlan | None:
        return self.session.plan if isinstance(self.session.plan, VmPlan) else None

    def field_changed(self, id: str, value: str) -> None:
        """What was typed."""
        self.session.confirmations[VM_NAME] = value.strip()
        self.query_one("#verdict-vm", Lines).update("")

    def field_done(self, id: str) -> None:
        """Enter: to the buttons; a wrong text is said at once."""
        if self._check():
            # Not the button that overwrites: a second Enter must not be enough.
            self.set_focus(self.query_one("#back"))

    def _check(self) -> bool:
        right = self.session.confirmed()
        line = self.query_one("#verdict-vm", Lines)
        line.update(f"  {DONE} Overwriting is confirmed." if right else "  That is not the name of the VM.")
        line.set_class(right, "good")
        line.set_class(not right, "error")
        return right

    def press_back(self) -> None:
        """To the plan."""
        self.action_back()

    @work(exclusive=True, group="ask")
    async def press_start(self) -> None:
        """Start, if it was confirmed; the engine checks it again."""
        plan = self._plan()
        if not self._check():
            name = plan.confirmation if plan else ""
            self.show_error(
                ErrorReport(
                    "UnsafeTargetError",
                    "Overwriting was not confirmed: the text is not the VM's name. Nothing was written.",
                    f"Type {name}, or go back with Esc and choose another folder.",
                )
            )
            self.query_one("#confirm-vm").focus()
            return
        if await self.ask("Starting", self.session.start):
            self.console_app.go(RestoreScreen())
