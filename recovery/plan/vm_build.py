"""(VM, where its disks lie, the place) -> VmPlan with everything found wrong. Pure: the same input, the same plan."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import msgspec
from blake3 import blake3

from recovery.format.point import Consistency
from recovery.layout import VirtualMachine
from recovery.machine.place import LARGEST_FILE, Place
from recovery.plan.build import sorted_problems
from recovery.plan.model import PlanStep, Problem
from recovery.plan.vm import VmChoices, VmFile, VmPlan
from recovery.units import MIB, format_count, format_size

#: Filesystems that are gone when the machine is switched off.
IN_MEMORY = ("tmpfs", "ramfs")
#: Kept free: folders, the definition, and what a filesystem needs of its own for large files.
_MARGIN = 4 * MIB


def build_vm_plan(
    choices: VmChoices,
    vm: VirtualMachine,
    files: Sequence[VmFile],
    place: Place,
    consistency: Consistency,
    *,
    existing: Collection[str] = (),
    asked: Sequence[Problem] = (),
) -> VmPlan:
    """Plan it. ``existing`` are names that are in the folder already; ``asked`` problems that had to be asked for."""
    usable = bool(vm.name) and "/" not in vm.name and not vm.name.startswith(".")
    suffix = "xml" if vm.manager == "libvirt" else "conf"
    definition = f"{vm.name}.{suffix}" if vm.definition and usable else ""
    marked = tuple(msgspec.structs.replace(file, exists=file.name in existing) for file in files)
    needed = sum(file.stored if place.holes else file.size for file in marked) + _MARGIN
    plan = VmPlan(
        id="",
        choices=choices,
        vm=vm,
        files=marked,
        definition=definition,
        definition_exists=bool(definition) and definition in existing,
        place=place,
        steps=_steps(marked, definition, place, choices),
        problems=(),
        needed=needed,
    )
    problems = [
        *(() if usable else _bad_name(vm)),
        *_check_place(plan),
        *_check_files(plan),
        *_check_content(plan, consistency),
        *asked,
    ]
    return sealed(msgspec.structs.replace(plan, problems=sorted_problems(problems)))


def sealed(plan: VmPlan) -> VmPlan:
    """The plan with the digest of its content as its id."""
    content = msgspec.json.encode(msgspec.structs.replace(plan, id=""), order="deterministic")
    return msgspec.structs.replace(plan, id=blake3(content).hexdigest())


def _bad_name(vm: VirtualMachine) -> Iterator[Problem]:
    yield Problem(
        severity="error",
        code="vm-name",
        what=f"The VM's name '{vm.name}' is no file name.",
        why="Its files are named after it.",
        todo="Restore the host's whole disk, and take its files from there.",
    )


def _check_place(plan: VmPlan) -> Iterator[Problem]:
    place = plan.place
    if place.unavailable:
        yield Problem(
            severity="error",
            code="place-unavailable",
            what=f"Nothing can be written to {place.name}.",
            why=place.unavailable,
            todo="Choose another filesystem, or a directory.",
        )
        return
    if place.kind in IN_MEMORY:
        yield Problem(
            severity="warning",
            code="place-in-memory",
            what=f"{plan.goes_to} lies in memory.",
            why="What is there is gone when this machine restarts, and takes memory until then.",
            todo="Choose a filesystem on a disk, if the files shall stay.",
        )
    if place.system:
        yield Problem(
            severity="info",
            code="place-has-system",
            what=f"On {place.name} lies {place.system}.",
            why="Files are added to it; nothing else of it changes.",
        )
    if place.free is None:
        yield Problem(
            severity="warning", code="room-unknown", what=f"How much is free on {place.name} is not known.",
            why="It could not be looked at.", todo="Make sure that there is room: it stops when there is none.",
        )  # fmt: skip
    elif plan.needed > place.free:
        yield Problem(
            severity="error",
            code="no-room",
            what=f"There is no room on {place.name}.",
            why=f"{format_size(plan.needed)} are needed, {format_size(place.free)} are free."
            + ("" if place.holes else f" {place.kind} keeps no holes: each file takes its whole size."),
            todo="Choose a place with more room, or fewer disks.",
        )


def _check_files(plan: VmPlan) -> Iterator[Problem]:
    most = LARGEST_FILE.get(plan.place.kind)
    large = [file.target for file in plan.files if most is not None and file.size > most]
    if large and most is not None:
        yield Problem(
            severity="error",
            code="file-too-large",
            what=f"{', '.join(large)} does not fit into one file on {plan.place.name}.",
            why=f"A file on {plan.place.kind} has at most {format_size(most)}.",
            todo="Choose a place with ext4, xfs or exfat.",
        )
    names = plan.overwritten
    if names and not plan.choices.overwrite:
        yield Problem(
            severity="error",
            code="file-exists",
            what=f"{', '.join(names)} is there already.",
            why="Nothing is overwritten unless you ask for it.",
            todo="Choose another folder, or allow overwriting.",
        )
    elif names:
        yield Problem(
            severity="warning",
            code="file-overwritten",
            what=f"{', '.join(names)} is there already and will be overwritten.",
            why="Each is replaced when all new files are complete; until then there must be room for both.",
        )


def _check_content(plan: VmPlan, consistency: Consistency) -> Iterator[Problem]:
    if not plan.vm.disks:
        yield Problem(
            severity="error", code="no-disk", what=f"'{plan.vm.name}' has no disk in this point.",
            todo="Choose another VM, or another point.",
        )  # fmt: skip
    for file in plan.files:
        if file.backing:
            yield Problem(
                severity="warning",
                code="backing-file",
                what=f"{file.target} is an overlay of {file.backing}, which is not in it.",
                why="It is of no use without that file.",
                todo="Restore the VM that has it, or put that file beside it.",
            )
    if consistency == "crash" and plan.vm.state == "running":
        yield Problem(
            severity="info",
            code="crash-consistent",
            what=f"'{plan.vm.name}' was running: its disks are as after a power cut.",
            why="Its filesystems replay their journals when it starts.",
        )
    if not plan.definition and "/" not in plan.vm.name:
        yield Problem(
            severity="info", code="no-definition", what=f"The point has no definition of '{plan.vm.name}'.",
            why="Only its disks are written.",
        )  # fmt: skip


def _steps(files: Sequence[VmFile], definition: str, place: Place, choices: VmChoices) -> tuple[PlanStep, ...]:
    mounts = bool(place.device) and not place.path
    detail = "Mount it, this one only, for writing; then look" if mounts else "Look"
    steps = [PlanStep(id="place", title=f"Open {place.name}", detail=f"{detail} once more at room and names")]
    for file in files:
        zeros = file.size - file.stored
        steps.append(
            PlanStep(
                id=f"extract:{file.target}",
                title=f"Restore {file.target} to {file.name}",
                detail=f"{format_size(file.stored)} of content, {format_size(zeros)} of "
                + ("holes" if place.holes else "zeros, which are written too"),
                destructive=file.exists and choices.overwrite,
            )
        )
    names = format_count(len(files) + bool(definition), "file")
    first = f"Write {definition}, flush" if definition else "Flush"
    last = f"; then unmount {place.name}" if mounts else ""
    steps.append(
        PlanStep(
            id="publish",
            title=f"Give {names} their names",
            detail=f"{first} and rename: until here nothing can be seen{last}",
        )
    )
    return tuple(steps)
