"""Plan to restore the disks of one VM as files: find them in the point, look at the place, ask the repository."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from recovery.engine.places import directory, looking, taken, within
from recovery.engine.preflight import check_ends, check_journals, check_memory
from recovery.errors import DeviceError, IntegrityError, NotFoundError, RekindleError, UnsafeTargetError, UsageError
from recovery.explore.extract import pack_ends, stored
from recovery.explore.host import HostView
from recovery.explore.vm import FoundDisk, find_disks, vm_of
from recovery.format.point import Point
from recovery.layout import VirtualMachine
from recovery.machine.place import Place
from recovery.plan.model import Problem
from recovery.plan.vm import VmChoices, VmFile, VmPlan
from recovery.plan.vm_build import build_vm_plan
from recovery.repository.content import disk_content
from recovery.repository.repository import Repository

#: Its top folder, to be read only; raises DeviceError, UnsafeTargetError, and anything the place itself is wrong in.
Look = Callable[[Place], AbstractContextManager[Path]]


@dataclass(frozen=True)
class FoundVm:
    """Where the disks of the planned VM lie: what a run reads without looking anew."""

    view: HostView
    disks: tuple[FoundDisk, ...]


def find_vm(repository: Repository, point: Point, choices: VmChoices) -> tuple[VirtualMachine, FoundVm, list[Problem]]:
    """The VM, its disks that were found, and why others were not. Raises NotFoundError for a VM or disk that the point
    does not have, UnreachableError."""
    vm = vm_of(point, choices.vm)
    for target in choices.disks:
        if all(disk.target != target for disk in vm.disks):
            known = ", ".join(disk.target for disk in vm.disks) or "none"
            raise NotFoundError(f"The VM '{vm.name}' has no disk '{target}'.", hint=f"It has: {known}.")
    wanted = [disk.target for disk in vm.disks if not choices.disks or disk.target in choices.disks]
    try:
        view = HostView(repository, point)
    except (IntegrityError, NotFoundError, UsageError) as error:
        raise IntegrityError(
            f"The disks of {point.header.host} cannot be looked into: {error.message}", hint=error.hint
        ) from error
    found: list[FoundDisk] = []
    problems: list[Problem] = []
    for target in wanted:
        try:
            found += find_disks(view, vm, target)
        except (IntegrityError, NotFoundError, UsageError) as error:
            problems.append(_not_found(vm, target, error))
    return vm, FoundVm(view, tuple(found)), problems


def _not_found(vm: VirtualMachine, target: str, error: RekindleError) -> Problem:
    code = "vm-disk-damaged" if isinstance(error, IntegrityError) else "vm-disk-not-found"
    others = "" if len(vm.disks) < 2 else " Or leave this disk out."
    return Problem(
        severity="error",
        code=code,
        what=f"{target} of '{vm.name}' cannot be brought back as a file.",
        why=error.message,
        todo=(error.hint or "Restore the host's disk, and take the file from there.") + others,
    )


def plan_vm(
    repository: Repository, point: Point, choices: VmChoices, places: list[Place], look: Look = looking,
    ask: bool = True,
) -> tuple[VmPlan, FoundVm]:  # fmt: skip
    """The plan with everything found wrong, and what a run of it needs. ``places`` are those of this machine; nothing
    is written. ``ask`` False: this machine's memory and the place are not looked at.

    Raises NotFoundError, UsageError for a choice that names nothing, UnreachableError, AccessError.
    """
    vm, found, problems = find_vm(repository, point, choices)
    files = [
        VmFile(
            target=one.disk.target, name=one.name, source=one.disk.source, format=one.disk.format,
            size=one.where.size, stored=stored(found.view, one.where), backing=one.backing,
        )
        for one in found.disks
    ]  # fmt: skip
    place = place_of(choices, places)
    existing: Collection[str] = ()
    if not place.unavailable and ask:
        try:
            existing = _existing(place, choices, [*(file.name for file in files), f"{vm.name}.xml"], look)
        except (DeviceError, UnsafeTargetError) as error:
            place = msgspec.structs.replace(place, unavailable=error.message)
    problems += check_content(repository, point, found, skip_damaged=choices.skip_damaged)
    problems += check_memory() if ask else _not_looked(place)
    plan = build_vm_plan(choices, vm, files, place, point.body.consistency, existing=existing, asked=problems)
    return plan, found


def _not_looked(place: Place) -> Iterator[Problem]:
    yield Problem(
        severity="info",
        code="names-unknown",
        what=f"Which names are taken on {place.name} is not known.",
        why="This is a rehearsal: the filesystems of a recorded machine cannot be looked into.",
    )


def place_of(choices: VmChoices, places: list[Place]) -> Place:
    """The place that was chosen. Raises NotFoundError, UsageError."""
    if not choices.device:
        if not choices.folder:
            raise UsageError("Where shall the files go?", hint="Choose a filesystem, or a directory.")
        return directory(choices.folder)
    for place in places:
        if place.device == choices.device:
            return place
    raise NotFoundError(
        f"There is no filesystem on {choices.device}.", hint="Look again: its disk may have been pulled out."
    )


def _existing(place: Place, choices: VmChoices, names: list[str], look: Look) -> set[str]:
    with look(place) as top:
        return taken(within(top, choices.folder) if choices.device else top, names)


def check_content(repository: Repository, point: Point, found: FoundVm, *, skip_damaged: bool) -> Iterator[Problem]:
    """All that the files need is in the repository; other content of the host's disks may be missing."""
    ends: dict[bytes, int] = {}
    users: dict[bytes, set[str]] = {}
    for one in found.disks:
        for pack, end in pack_ends(found.view, one.where).items():
            ends[pack] = max(end, ends.get(pack, 0))
            users.setdefault(pack, set()).add(one.disk.target)
    yield from check_ends(repository, ends, users, skip_damaged=skip_damaged)
    for disk in sorted({piece.disk for one in found.disks for piece in one.where.pieces}):
        overlay = disk_content(repository, point, disk).overlay
        if overlay is not None:
            yield from check_journals(repository, overlay, disk)
