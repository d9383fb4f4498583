"""What a plan for a VM's disks was checked for, step by step, and what came of it: for people who read it. Pure."""

from __future__ import annotations

from recovery.plan.checklist import STATES, State
from recovery.plan.vm import VmPlan

#: (step or its beginning, title, problems that the check can find).
VM_CHECKS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("place", "it can be written to", ("place-unavailable", "place-in-memory", "place-has-system")),
    ("place", "room for the files", ("no-room", "room-unknown")),
    ("place", "files of that size", ("file-too-large",)),
    ("place", "no name is taken", ("file-exists", "file-overwritten", "names-unknown")),
    ("place", "enough memory", ("memory-low",)),
    ("extract:", "where they lie is known and can be read", ("vm-name", "no-disk", "vm-disk-not-found",
                                                               "vm-disk-damaged")),
    ("extract:", "all content is in the repository", ("pack-missing", "pack-truncated", "journal-truncated")),
    ("extract:", "no other file is needed", ("backing-file",)),
    ("publish", "the definition is in the point", ("no-definition",)),
)  # fmt: skip
#: They need a place that can be looked at.
_LOOKED = ("no-room", "file-exists")


def vm_checks_of(plan: VmPlan, step: str) -> list[tuple[str, State]]:
    """(title, state) of the checks that belong to a step; those of all disks stand at the first one."""
    first = next((planned.id for planned in plan.steps if _kind(planned.id) == _kind(step)), "")
    return [
        (title, _state(plan, codes))
        for where, title, codes in VM_CHECKS
        if _kind(where) == _kind(step) and step == first
    ]


def _state(plan: VmPlan, codes: tuple[str, ...]) -> State:
    for severity in ("error", "warning", "info"):
        if any(problem.severity == severity and problem.code in codes for problem in plan.problems):
            return STATES[severity]
    closed = any(problem.code == "place-unavailable" for problem in plan.problems)
    return "unasked" if closed and any(code in _LOOKED for code in codes) else "passed"


def _kind(step: str) -> str:
    return step.partition(":")[0]
