"""(point, machine, choices) -> RestorePlan with everything found wrong. Pure: the same input gives the same plan."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
from blake3 import blake3

from recovery.format.point import Point, PointDisk
from recovery.machine.model import Machine
from recovery.plan import checks
from recovery.plan.check_stack import check_arrays, check_encryption, check_hibernation, check_key_memory
from recovery.plan.check_vms import check_vms
from recovery.plan.firmware import Conversion, conversion
from recovery.plan.growth import candidates, landings
from recovery.plan.growth_checks import check_growth, check_journals
from recovery.plan.losses import losses
from recovery.plan.model import Choices, DiskAssignment, PlanStep, Problem, RestorePlan
from recovery.plan.names import BOOT_TYPES
from recovery.plan.togpt import check_to_gpt
from recovery.plan.windows import check_windows
from recovery.units import format_size

_ORDER = {"error": 0, "warning": 1, "info": 2}


#: The steps of adaptation where nobody says more: (id, title, what it may change).
_ADAPTATION = (("adapt", "Make the host start on this machine", ""),)


def build_plan(
    point: Point, machine: Machine, choices: Choices, *, adaptation: Sequence[tuple[str, str, str]] = _ADAPTATION
) -> RestorePlan:
    """Plan the restore. Never raises for a bad choice: what is wrong is in ``problems``.

    ``adaptation`` are (id, title, what it may change) of the steps that make the host boot; the engine gives those
    of ``recovery.adapt``.
    """
    chosen = (
        (source, target)
        for source in point.body.disks
        if source.name in choices.targets and (target := machine.disk(choices.targets[source.name])) is not None
    )
    # What the machine starts from comes last: until all disks are complete there is nothing to start.
    pairs = tuple(sorted(chosen, key=lambda pair: has_boot_loader(pair[0])))
    growth = candidates(point, pairs, choices)
    laid_out = landings(point, pairs, choices)
    problems = [
        *checks.check_choices(point, machine, choices),
        *(problem for pair in pairs for problem in checks.check_target(*pair, machine, point.body.volume_groups)),
        *checks.check_fit(point, pairs, machine, choices),
        *checks.check_names(point, pairs, machine),
        *checks.check_left_out(point, choices),
        *check_arrays(point, choices),
        *check_encryption(point, choices),
        *check_key_memory(point, machine, choices),
        *check_hibernation(point, choices),
        *checks.check_adaptation(pairs, choices),
        *check_growth(pairs, choices, growth),
        *check_journals(point, pairs, laid_out),
        *check_to_gpt(point, pairs, machine, choices, laid_out),
        *check_windows(point, pairs, machine, choices, laid_out),
        *check_vms(point, pairs, machine),
        *checks.check_memory_for_speed(machine),
    ]
    assignments = tuple(
        DiskAssignment(source=source, target=target, losses=losses(target, machine), landing=laid_out.get(source.name))
        for source, target in pairs
    )
    return sealed(
        RestorePlan(
            id="",
            choices=choices,
            assignments=assignments,
            steps=_steps(assignments, choices, told(adaptation, conversion(point, pairs, machine, choices))),
            problems=sorted_problems(problems),
            logical=sum(source.size for source, _ in pairs),
            used=sum(source.used for source, _ in pairs),
            growth=tuple(one for one in growth if not one.why_not),
        )
    )


def told(adaptation: Sequence[tuple[str, str, str]], found: Conversion | None) -> list[PlanStep]:
    """The steps of the adaptation, each with what it will change; those of a conversion with what they make where."""
    steps = []
    for id, title, changes in adaptation:
        makes = found is not None and id == "adapt.room" and bool(found.room)
        steps.append(PlanStep(id=id, title=title, detail=found.room if found and makes else changes))
    return steps


def has_boot_loader(disk: PointDisk) -> bool:
    """Whether firmware may start something from it: an EFI system, BIOS boot or active partition."""
    return any(part.type in BOOT_TYPES or "boot" in part.flags for part in disk.table.partitions)


def with_problems(plan: RestorePlan, problems: Iterable[Problem]) -> RestorePlan:
    """The plan with problems that had to be asked for; its id changes."""
    return sealed(msgspec.structs.replace(plan, problems=sorted_problems([*plan.problems, *problems])))


def sorted_problems(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """The worst first."""
    return tuple(sorted(problems, key=lambda problem: _ORDER[problem.severity]))


def sealed(plan: RestorePlan) -> RestorePlan:
    """The plan with the digest of its content as its id."""
    content = msgspec.json.encode(msgspec.structs.replace(plan, id=""), order="deterministic")
    return msgspec.structs.replace(plan, id=blake3(content).hexdigest())


def _laid_out(assignment: DiskAssignment) -> str:
    """What is done besides, on a target of another size or sector size."""
    if assignment.landing is None:
        return ""
    done = {"shrink": "shrunk", "remake": "made anew"}
    words = [f"partition {p.number} {done[p.way]}" for p in assignment.landing.placements if p.way in done]
    words += ["with a GPT"] if assignment.landing.table.kind != assignment.source.table.kind else []
    return f"; laid out anew{': ' if words else ''}{', '.join(words)}"


def _steps(
    assignments: tuple[DiskAssignment, ...], choices: Choices, adaptation: Sequence[PlanStep]
) -> tuple[PlanStep, ...]:
    steps = [
        PlanStep(
            id="open",
            title="Open the targets",
            detail="Look at every target once more, stop LVM and RAID on them, and refuse if anything has changed",
        )
    ]
    for assignment in assignments:
        source, target = assignment.source, assignment.target
        steps.append(
            PlanStep(
                id=f"stream:{source.name}",
                title=f"Restore {source.name} to {target.path}",
                detail=f"{format_size(source.used)} of content, {format_size(source.size - source.used)} of zeros"
                + (", compared with what the disk holds: only what differs is fetched" if choices.compare else "")
                + _laid_out(assignment),
                destructive=True,
            )
        )
    if choices.adapt:
        steps += adaptation
    elif any(assignment.target.bus != "file" for assignment in assignments):
        steps.append(
            PlanStep(
                id="settle", title="Read the partition tables anew", detail="Wait until the kernel sees the disks"
            )
        )
    steps.append(PlanStep(id="prove", title="Report what was done and verified"))
    return tuple(steps)
