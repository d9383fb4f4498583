"""Which part of the host gets the room of a larger disk: one row for each thing that could."""

from __future__ import annotations

from collections.abc import Sequence

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen

from recovery.plan.growth import NONE
from recovery.plan.growth_checks import growing
from recovery.plan.model import GrowthCandidate, RestorePlan
from recovery.tui.session import Session
from recovery.tui.widgets.choice import ChoiceList
from recovery.tui.widgets.controls import Action
from recovery.tui.widgets.panes import Lines
from recovery.units import format_size

#: The row for what grows where nobody chooses.
USUAL = "usual"
#: The row that a disk with an MBR gets a GPT, and the problems of a plan for which it is there.
TO_GPT = "to-gpt"
_MBR = ("mbr-limit", "gpt-converted", "gpt-refused")


def has_growth(plan: RestorePlan) -> bool:
    """Whether there is anything to choose, or to take back."""
    anything = plan.growth or plan.choices.grow_to or _about_mbr(plan)
    return plan.choices.restore and plan.choices.adapt and bool(anything)


def _about_mbr(plan: RestorePlan) -> bool:
    return any(problem.code in _MBR for problem in plan.problems)


def rows(plan: RestorePlan) -> list[tuple[str, str]]:
    """``(name, text)`` of each choice; ``*`` marks what the plan has now."""
    now = growing(plan)
    usual = ", ".join(one.name for one in plan.growth if one.usual) or "nothing"
    chosen = USUAL if plan.choices.grow and not plan.choices.grow_to else "" if plan.choices.grow else NONE
    found = [(USUAL, f"{'*' if chosen == USUAL else ' '} As usual: {usual}")]
    found += [(one.name, f"{'*' if one.chosen and one.name in now else ' '} {_row(one)}") for one in plan.growth]
    found.append((NONE, f"{'*' if chosen == NONE else ' '} Nothing: the rest stays unused"))
    if _about_mbr(plan):
        found.append(
            (TO_GPT, f"{'*' if plan.choices.to_gpt else ' '} A GPT instead of the MBR, to reach all of the disk")
        )
    return found


def _row(one: GrowthCandidate) -> str:
    moved = f", moves {', '.join(one.moved)}" if one.moved else ""
    return f"{one.name}  {format_size(one.before)} → {format_size(one.after)}  ({one.what}{moved})"


def take(session: Session, choice: str, found: Sequence[GrowthCandidate]) -> None:
    """Keep what was chosen; a choice made before for other disks stays."""
    if choice == TO_GPT:  # on and off; it says nothing of what grows
        session.toggles["to_gpt"] = not session.toggles.get("to_gpt", False)
        return
    session.toggles["grow"] = choice != NONE
    if choice in (USUAL, NONE):
        session.grow_to = ()
        return
    disks = {one.name: {place.disk for place in one.places} for one in found}
    kept = [name for name in session.grow_to if name in disks and not disks[name] & disks.get(choice, set())]
    session.grow_to = (*kept, choice)


class GrowDialog(ModalScreen[str]):
    """Its result is the chosen name, ``usual``, ``none`` or ``to-gpt``; empty for Esc, which changes nothing."""

    BINDINGS = [Binding("escape", "dismiss('')", show=False)]
    DEFAULT_CSS = "GrowDialog ChoiceList { height: auto; max-height: 12; margin: 1 1 0 1; }"

    def __init__(self, plan: RestorePlan) -> None:
        super().__init__()
        self._plan = plan

    def compose(self) -> ComposeResult:
        """What can grow, and a way out."""
        with Vertical(id="dialog"):
            yield Lines("What gets the room of the larger disk", id="dialog-title")
            yield ChoiceList(id="growth")
            with Horizontal(id="dialog-buttons"):
                yield Action("Cancel", id="cancel")

    def on_mount(self) -> None:
        """The highlight is on what the plan has."""
        choices = self.query_one(ChoiceList)
        found = rows(self._plan)
        choices.set_rows(found, next((id for id, text in found if text.startswith("*")), ""))
        choices.focus()

    def on_choice_list_chosen(self, event: ChoiceList.Chosen) -> None:
        """Enter takes the row."""
        event.stop()
        self.dismiss(event.choice.selected)

    def on_action_pressed(self, event: Action.Pressed) -> None:
        """The way out."""
        event.stop()
        self.dismiss("")
