"""A plan as the Plan screen shows it: what was found wrong, what goes where, each step with its checks. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.text import Text

from recovery.plan.checklist import State, checks_of
from recovery.plan.model import PlanStep, Problem, RestorePlan
from recovery.plan.vm import VmPlan
from recovery.plan.vm_checklist import vm_checks_of
from recovery.tui.describe import hang, moment, problem_text, short_name
from recovery.tui.glyphs import DONE, FAILED, WAITING
from recovery.units import format_size

#: A check's state -> its mark, and what is said besides its title.
MARKS: dict[State, tuple[str, str]] = {
    "passed": (DONE, ""),
    "note": (DONE, " (see the note)"),
    "warning": ("!", ": see the warning"),
    "failed": (FAILED, ": see the error"),
    "unasked": (WAITING, ": not asked yet, the errors come first"),
}
STATE_COLOURS: dict[State, str] = {"passed": "green", "note": "green", "warning": "yellow", "failed": "red"}
COLOURS = {"error": "bold red", "warning": "yellow", "info": "cyan"}


def plan_text(plan: RestorePlan | VmPlan, created: float, width: int) -> Text:
    """Problems first, then what goes where, then the steps; wrapped to ``width``. ``created``: of the point."""
    text = _problems(plan.problems, width)
    if isinstance(plan, VmPlan):
        _what_vm(text, plan, created, width)
        found: list[tuple[PlanStep, list[tuple[str, State]]]] = [(s, vm_checks_of(plan, s.id)) for s in plan.steps]
    else:
        _what(text, plan, created, width)
        found = [(s, [(check.title, state) for check, state, _ in checks_of(plan, s.id)]) for s in plan.steps]
    if plan.choices.skip_damaged:
        lost = "What no copy of the repository has is left as zeros, and listed in the report."
        text.append(hang(lost, width) + "\n", style="yellow")
    _steps(text, found, width)
    return text


def _problems(problems: Iterable[Problem], width: int) -> Text:
    text = Text()
    rank = {"error": 0, "warning": 1, "info": 2}
    for problem in sorted(problems, key=lambda problem: rank[problem.severity]):
        text.append(hang(problem_text(problem), width) + "\n", style=COLOURS[problem.severity])
    if not text:
        text.append("No problem was found.\n", style="green")
    return text


def _what(text: Text, plan: RestorePlan, created: float, width: int) -> None:
    if plan.choices.restore:
        text.append(f"\n{plan.choices.host} goes back to {moment(created)}\n", style="bold")
    else:
        text.append("\nThe host on these disks is made to start on this machine\n", style="bold")
    for assignment in plan.assignments:
        source = assignment.source
        target = assignment.target
        name = f"{target.model or 'no model'}, {target.serial or 'no serial'}"
        here = f"{short_name(target.path)}, {format_size(target.size)}, {name}"
        goes = f"{source.name}, {format_size(source.size)} → " if plan.choices.restore else ""
        text.append(hang(f"{goes}{here}", width, 4) + "\n")
        for loss in assignment.losses:
            text.append(hang(f"    lost: {loss}", width) + "\n", style="yellow")
    if plan.choices.restore:
        text.append(f"Restored: {format_size(plan.logical)}, of which in use {format_size(plan.used)}\n")
        if plan.choices.compare:
            text.append("The disks are compared first: only what differs is fetched and written.\n")


def _what_vm(text: Text, plan: VmPlan, created: float, width: int) -> None:
    text.append(f"\n{plan.vm.name} of {plan.choices.host}, as of {moment(created)}\n", style="bold")
    text.append(hang(f"Into {plan.goes_to}", width, 4) + "\n")
    for file in plan.files:
        over = " (overwrites)" if file.exists else ""
        goes = f"{file.target}, {format_size(file.size)} {file.format} → {file.name}{over}"
        text.append(hang(goes, width, 4) + "\n", style="yellow" if over else "")
    if plan.definition:
        over = " (overwrites)" if plan.definition_exists else ""
        text.append(f"definition → {plan.definition}{over}\n", style="yellow" if over else "")
    free = f", {format_size(plan.place.free)} are free" if plan.place.free is not None else ""
    text.append(f"Needed: {format_size(plan.needed)}{free}\n")


def _steps(text: Text, steps: Sequence[tuple[PlanStep, list[tuple[str, State]]]], width: int) -> None:
    text.append("\nSteps\n", style="bold")
    for number, (step, checks) in enumerate(steps, 1):
        overwrites = " (overwrites)" if step.destructive else ""
        text.append(f"{number:2}. {step.title}{overwrites}\n")
        if step.detail:
            text.append(hang(f"    {step.detail}", width, 0) + "\n")
        for title, state in checks:
            mark, remark = MARKS[state]
            text.append(hang(f"    {mark} {title}{remark}", width) + "\n", style=STATE_COLOURS.get(state, ""))
