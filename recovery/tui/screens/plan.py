"""Plan: everything that will happen and everything found wrong, before the first write."""

from __future__ import annotations

from collections.abc import Iterable

from textual import work
from textual.app import ComposeResult
from textual.widget import Widget

from recovery.plan.model import RestorePlan
from recovery.plan.vm import VmPlan
from recovery.tui.describe import hang
from recovery.tui.plan_text import plan_text
from recovery.tui.screens.another_copy import AnotherCopyScreen, ask_for_zeros
from recovery.tui.screens.base import ConsoleScreen
from recovery.tui.screens.confirm import ConfirmScreen
from recovery.tui.screens.confirm_files import ConfirmFilesScreen
from recovery.tui.screens.restore import RestoreScreen
from recovery.tui.widgets.controls import Action
from recovery.tui.widgets.dialogs import SecretDialog
from recovery.tui.widgets.grow_dialog import GrowDialog, has_growth, take
from recovery.tui.widgets.panes import Lines, Pane
from recovery.units import format_count

#: Stored content that is not there: another copy may have it, or zeros take its place; and what needs a copy.
DAMAGED = ("pack-missing", "pack-truncated")
DAMAGED_FOR_GOOD = ("map-damaged", "journal-truncated", "vm-disk-damaged")
#: Problems to which a passphrase is the answer.
LOCKED = ("luks-secret-missing", "luks-secret-wrong")


class PlanScreen(ConsoleScreen):
    """The plan of the engine. An error in it forbids the restore; nothing was written yet."""

    NAME = "Plan"
    HELP = (
        "Nothing has been written yet. This is all that will happen, in order, and\n"
        "what was checked: access, keys, all data present, room, firmware.\n\n"
        "ERROR    forbids the restore: do what it says, or go back (Esc) and choose\n"
        "         differently; then 'Check again'.\n"
        "Warning  the restore works, but you should know.\n\n"
        "Passphrase    where the host's system is encrypted: type it here.\n"
        "Growth        where a disk is larger: what of the host gets its room.\n"
        "Another copy  a second copy of the repository has what this one lacks.\n"
        "Skip damaged  zeros where no copy has the content; it is asked before.\n\n"
        "Below each step stands what was checked for it: √ right, ! warning,\n"
        "× forbids it, ○ not asked yet because of an error before.\n\n"
        "PgUp and PgDn scroll."
    )
    HINTS = "PgUp/PgDn scroll  Enter select  Esc back  F1 help  F2 shell  F10 power"

    def body(self) -> ComposeResult:
        """The verdict and the plan."""
        yield Lines("", id="verdict", classes="heading")
        with Pane(id="plan"):
            yield Lines("", id="plan-text")

    def buttons(self) -> Iterable[Widget]:
        """Continue waits for a plan without errors."""
        passphrase = Action("Passphrase", id="passphrase")
        growth = Action("Growth", id="growth")
        copy, skip = Action("Another copy", id="copy"), Action("Skip damaged", id="skip")
        passphrase.display = growth.display = copy.display = skip.display = False
        again = Action("Check again", id="again")
        return (Action("Continue", id="continue", disabled=True), again, passphrase, growth, copy, skip)

    def __init__(self) -> None:
        super().__init__()
        self._stale = True

    def on_screen_resume(self) -> None:
        """Plan whenever the operator comes here from another screen (not when a dialog closes): the engine runs
        only the plan made last."""
        if self._stale and not self.console_app.leaving:
            self._stale = False
            self.press_again()

    @work(exclusive=True, group="ask")
    async def press_again(self) -> None:
        """Ask for the plan and show it."""
        self.query_one("#verdict", Lines).update("Checking ...")
        plan = await self.ask("Planning and checking", self.session.make_plan)
        self.session.take_plan(plan)
        something = bool(plan.files if isinstance(plan, VmPlan) else plan.assignments) if plan is not None else False
        allowed = plan is not None and plan.allowed and something
        go_on, again = self.query_one("#continue", Action), self.query_one("#again", Action)
        go_on.disabled = not allowed
        if isinstance(plan, VmPlan):
            go_on.label = "Continue" if plan.overwritten else "Restore now"
        unlock = self.query_one("#passphrase", Action)
        codes = {p.code for p in plan.problems if p.severity == "error"} if plan is not None else set()
        unlock.display = plan is not None and any(problem.code in LOCKED for problem in plan.problems)
        self.query_one("#growth", Action).display = isinstance(plan, RestorePlan) and has_growth(plan)
        self.query_one("#copy").display = bool(codes & {*DAMAGED, *DAMAGED_FOR_GOOD})
        self.query_one("#skip").display = bool(codes & {*DAMAGED})
        (go_on if allowed else unlock if unlock.display else again).focus()
        if plan is None:
            self.query_one("#verdict", Lines).update("There is no plan.")
            return
        repair = not isinstance(plan, VmPlan) and not plan.choices.restore
        what = "repair" if repair else "restore"
        errors = sum(problem.severity == "error" for problem in plan.problems)
        warnings = sum(problem.severity == "warning" for problem in plan.problems)
        self.query_one("#verdict", Lines).update(
            f"The {what} is possible, {format_count(warnings, 'warning')}. Nothing was written yet."
            if allowed
            else f"The {what} is refused: {format_count(errors, 'error')}. Nothing was written."
        )
        created = self.session.point.header.created if self.session.point else 0.0
        self.query_one("#plan-text", Lines).update(plan_text(plan, created, self.size.width - 3))

    @work(exclusive=True, group="ask")
    async def press_passphrase(self) -> None:
        """Ask for the passphrase of the host's encrypted volumes, and plan again with it."""
        text = (
            "The host's system lies in an encrypted volume (LUKS). Type the passphrase that is typed when the host "
            "starts. It is tried before anything is written, and kept in memory only.\n\nTo restore without it, go "
            "back (Esc twice) and turn 'Make it boot here' off: byte for byte, not adapted to this machine."
        )
        secret = await self.app.push_screen_wait(SecretDialog("Encrypted host", hang(text, 60), "Passphrase"))
        if not secret:
            return
        kept = await self.ask("Taking the passphrase", self.session.engine.luks_secret, secret)
        if kept:
            self.press_again()

    def press_copy(self) -> None:
        """Where is another copy of the repository? Then it is planned again with it."""
        self._stale = True
        self.console_app.go(AnotherCopyScreen())

    @work(exclusive=True, group="ask")
    async def press_skip(self) -> None:
        """Zeros in what is lost, if the operator says so; planned again with that."""
        if await ask_for_zeros(self):
            self.session.toggles["skip_damaged"] = True
            self.press_again()

    @work(exclusive=True, group="ask")
    async def press_growth(self) -> None:
        """Ask what gets the room of a larger disk, and plan again with it."""
        plan = self.session.plan
        if plan is None or isinstance(plan, VmPlan):
            return
        if choice := await self.app.push_screen_wait(GrowDialog(plan)):
            take(self.session, choice, plan.growth)
            self.press_again()

    @work(exclusive=True, group="ask")
    async def press_continue(self) -> None:
        """On to the confirmation; where only new files are made there is nothing to confirm."""
        plan = self.session.plan
        if plan is None or not plan.allowed:
            return
        self._stale = True
        if not isinstance(plan, VmPlan):
            self.console_app.go(ConfirmScreen())
        elif plan.overwritten:
            self.console_app.go(ConfirmFilesScreen())
        elif await self.ask("Starting", self.session.start):
            self.console_app.go(RestoreScreen())
        else:
            self._stale = False
