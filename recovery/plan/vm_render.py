"""A plan for the disks of a VM as lines of text for the command line. Pure."""

from __future__ import annotations

from recovery.plan.render import render_problem
from recovery.plan.vm import VmPlan
from recovery.units import format_count, format_size


def render_vm_plan(plan: VmPlan) -> list[str]:
    """All of it: files and where they go, steps, problems, verdict."""
    lines = [
        f"Plan {plan.id[:12]}: restore '{plan.vm.name}' of {plan.choices.host} as of point {plan.choices.point[:16]}",
        f"  {format_count(len(plan.files), 'disk')}, {format_size(plan.logical)}, to {plan.goes_to} "
        f"({format_size(plan.needed)} needed)",
        "",
        "Files:",
    ]
    for file in plan.files:
        over = " [overwrites]" if file.exists else ""
        lines.append(f"  {file.target} ({format_size(file.size)}, {file.format}) -> {file.name}{over}")
        lines.append(f"      was {file.source}, {format_size(file.stored)} of content")
    if plan.definition:
        lines.append(f"  definition -> {plan.definition}{' [overwrites]' if plan.definition_exists else ''}")
    if plan.problems:
        lines += ["", "Checks:"]
        lines += [f"  {line}" for problem in plan.problems for line in render_problem(problem)]
    lines += ["", "The plan may be run." if plan.allowed else "The plan is refused: nothing will be written."]
    return lines
