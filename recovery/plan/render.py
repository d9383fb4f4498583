"""A plan as lines of text for the command line. Pure."""

from __future__ import annotations

from recovery.plan.growth_checks import describe, growing
from recovery.plan.model import Problem, RestorePlan
from recovery.plan.names import short_name
from recovery.units import format_count, format_size

_MARKS = {"error": "REFUSED", "warning": "WARNING", "info": "NOTE"}


def render_problem(problem: Problem) -> list[str]:
    """``WARNING target-has-data: what`` and, indented, why and what to do."""
    lines = [f"{_MARKS[problem.severity]} {problem.code}: {problem.what}"]
    lines += [f"    {text}" for text in (problem.why, problem.todo) if text]
    return lines


def render_plan(plan: RestorePlan) -> list[str]:
    """All of it: targets and losses, steps, problems, verdict."""
    lines = [
        f"Plan {plan.id[:12]}: restore {plan.choices.host} to point {plan.choices.point[:16]}",
        f"  {format_count(len(plan.assignments), 'disk')}, {format_size(plan.logical)}, "
        f"{format_size(plan.used)} of it content",
        "",
        "Disks:",
    ]
    for assignment in plan.assignments:
        source = assignment.source
        lines.append(f"  {source.name} ({format_size(source.size)}) -> {short_name(assignment.target)}")
        if assignment.losses:
            lines += [f"      will be lost: {loss}" for loss in assignment.losses]
        else:
            lines.append("      nothing recognised will be lost")
    if plan.growth and plan.choices.adapt:
        lines += ["", "Room of larger disks (--grow-to NAME; * gets it):"]
        lines += [f"  {'*' if one.name in growing(plan) else ' '} {describe(one)}" for one in plan.growth]
    lines += ["", "Steps:"]
    for number, step in enumerate(plan.steps, 1):
        lines.append(f"  {number}. {step.title}{' [writes]' if step.destructive else ''}")
        if step.detail:
            lines.append(f"       {step.detail}")
    if plan.problems:
        lines += ["", "Checks:"]
        lines += [f"  {line}" for problem in plan.problems for line in render_problem(problem)]
    lines += ["", "The plan may be run." if plan.allowed else "The plan is refused: nothing will be written."]
    return lines
