"""Make plans: with the steps of the adaptation, and with image files among the disks where they are chosen."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from recovery.adapt.model import AdaptRequest
from recovery.adapt.steps import to_run
from recovery.format.point import Point
from recovery.machine.file_target import file_target, is_file_target
from recovery.machine.model import Disk, Machine
from recovery.plan.build import build_plan
from recovery.plan.model import Choices, RestorePlan


def plan_recorded(point: Point, machine: Machine, choices: Choices) -> RestorePlan:
    """The plan as far as it can be made without asking anybody. Raises what ``file_target`` raises."""
    machine = with_files(machine, point, choices.targets)
    return build_plan(point, machine, choices, adaptation=adaptation(point, machine))


def adaptation(point: Point, machine: Machine) -> list[tuple[str, str, str]]:
    """(id, title, what it may change) of the steps that ``recovery.adapt`` will run for this point here. Pure."""
    steps = to_run(AdaptRequest(point=point, targets={}, machine=machine))
    return [(step.id, step.title, step.changes) for step in steps]


def with_files(machine: Machine, point: Point, chosen: Mapping[str, str]) -> Machine:
    """The machine with the image files that are chosen as targets among its disks."""
    files: dict[str, Disk] = {}
    for source in point.body.disks:
        target = chosen.get(source.name, "")
        if target and machine.disk(target) is None and is_file_target(target):
            disk = file_target(target, size=source.size, sector_size=source.sector_size)
            files.setdefault(disk.id, disk)
    return msgspec.structs.replace(machine, disks=(*machine.disks, *files.values()))
