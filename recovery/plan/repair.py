"""The plan to make a host start whose disks are in this machine already: nothing is restored, only adapted. Pure.

Without a recovery point what lies on the disks has to do, so a point is made of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from recovery.format.point import Point, PointBody, PointDisk, PointHeader
from recovery.layout import WINDOWS, SystemFacts
from recovery.machine.model import Disk, Machine
from recovery.plan import checks
from recovery.plan.build import sealed, sorted_problems, told
from recovery.plan.check_stack import check_encryption, check_hibernation
from recovery.plan.firmware import check_repaired, missing_boot
from recovery.plan.model import Choices, DiskAssignment, PlanStep, Problem, RestorePlan
from recovery.plan.names import short_name
from recovery.windows.partitions import looks_like_windows

#: Problems of a target that matter although nothing is overwritten.
_WRITING = ("target-is-boot-medium", "target-holds-repository", "target-busy", "target-read-only")


def point_of(disks: Sequence[Disk], machine: Machine) -> Point:
    """A point made of what lies on the disks.

    Sizes are unknown (0), so that a disk with room behind its last partition counts as larger.
    """
    found = tuple(
        PointDisk(
            name=f"disk{n}",
            size=0,
            sector_size=disk.sector_size,
            chunk_size=0,
            root="",
            table=disk.table,
            content=disk.content,
        )
        for n, disk in enumerate(disks, 1)
    )
    return Point(
        id="",
        header=PointHeader(version=0, repository="", host="", created=0.0),
        body=PointBody(disks=found, consistency="offline", firmware=machine.firmware, system=_system(found)),
    )


def _system(disks: Sequence[PointDisk]) -> SystemFacts:
    """What the host is, as far as its partitions tell: with NTFS and nothing of Linux on any disk it is Windows."""
    kinds = {part.content.kind for disk in disks for part in disk.table.partitions}
    kinds |= {disk.content.kind for disk in disks}
    return SystemFacts(os_name="Windows", os_id=WINDOWS) if looks_like_windows(kinds) else SystemFacts()


def build_repair(
    chosen: Sequence[str],
    machine: Machine,
    *,
    grow: bool,
    adaptation: Sequence[tuple[str, str, str]],
    luks_secret: bool = False,
) -> tuple[Point, RestorePlan]:
    """The plan for the disks with these ids or paths, and the point it works with. Never raises for a bad choice.

    ``adaptation`` are (id, title, what it may change) of the steps that make the host start.
    """
    disks = [disk for name in dict.fromkeys(chosen) if (disk := machine.disk(name)) is not None]
    point = point_of(disks, machine)
    pairs = list(zip(point.body.disks, disks, strict=True))
    missing = [name for name in chosen if machine.disk(name) is None]
    choices = Choices(
        host="", point="", targets={source.name: disk.id for source, disk in pairs}, grow=grow,
        luks_secret=luks_secret, restore=False,
    )  # fmt: skip
    problems = [
        *_check_choice(disks, missing),
        *(p for pair in pairs for p in _check_disk(*pair, machine)),
        *check_encryption(point, choices),
        *check_hibernation(point, choices),
        *check_repaired(point, tuple(pairs), machine, choices),
    ]
    steps = [
        PlanStep(
            id="open",
            title="Open the disks",
            detail="Look at every disk once more, stop LVM and RAID on them, and refuse if anything has changed",
        ),
        *told(adaptation, missing_boot(point, tuple(pairs), machine, choices)),
        PlanStep(id="prove", title="Report what was done"),
    ]
    return point, sealed(
        RestorePlan(
            id="",
            choices=choices,
            assignments=tuple(DiskAssignment(source=source, target=disk) for source, disk in pairs),
            steps=tuple(steps),
            problems=sorted_problems(problems),
            logical=0,
            used=0,
        )
    )


def _check_choice(disks: Sequence[Disk], missing: Sequence[str]) -> Iterator[Problem]:
    for name in missing:
        yield Problem(
            severity="error",
            code="target-missing",
            what=f"The disk '{name}' is not there.",
            why="No disk of this machine has that id or path.",
            todo="Look at the disks with 'rekindle machine', check the cabling, and choose again.",
        )
    if not disks and not missing:
        yield Problem(
            severity="error",
            code="nothing-to-restore",
            what="No disk was chosen.",
            why="A repair needs every disk that the host starts from.",
            todo="Choose the host's disks.",
        )


def _check_disk(source: PointDisk, disk: Disk, machine: Machine) -> Iterator[Problem]:
    yield from (problem for problem in checks.check_target(source, disk, machine) if problem.code in _WRITING)
    if disk.blank:
        yield Problem(
            severity="error",
            code="nothing-on-disk",
            what=f"{short_name(disk)} is blank.",
            why="There is no host on it that could be made to start.",
            todo="Choose another disk, or restore a point to it.",
        )
