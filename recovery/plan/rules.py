"""Rules that name a target disk beforehand: by serial number, WWN, size ... Pure.

A rule is conditions with commas between them, all of which must hold: ``serial:S5Y1``, ``wwn:5002538f4130a1b2``,
``same`` (the very disk that was captured), ``size:480103981056``, ``size:400GB..500GB``, ``size:>=400GB``,
``bus:nvme``, ``model:Samsung SSD 870``, ``blank``. ``file:/PATH`` is an image file. There is no rule by /dev name:
those change.
"""

from __future__ import annotations

from typing import get_args

import msgspec

from recovery.errors import UsageError
from recovery.format.point import Point, PointDisk
from recovery.machine.identity import normal_words, normal_wwn
from recovery.machine.model import Bus, Disk, Machine
from recovery.plan.model import Problem
from recovery.plan.names import short_name
from recovery.plan.suggest import is_captured_disk
from recovery.units import parse_size


class DiskRule(msgspec.Struct, frozen=True, kw_only=True):
    """One rule; what is empty or None is no condition. Sizes are bytes, both ends included."""

    serial: str = ""
    wwn: str = ""
    same: bool = False
    model: str = ""
    bus: str = ""
    smallest: int | None = None
    largest: int | None = None
    blank: bool = False
    file: str = ""

    @property
    def names_the_disk(self) -> bool:
        """It says which disk, not what kind of disk: as good as typing the serial number."""
        return bool(self.serial or self.wwn or self.same)


def parse_rule(text: str) -> DiskRule:
    """The rule that ``text`` says. Raises UsageError."""
    if text.strip().startswith("file:"):
        path = text.strip().removeprefix("file:")
        if not path.startswith("/") or path.startswith("/dev/"):
            raise UsageError(f"'{text}' is not the absolute path of an image file.")
        return DiskRule(file=path)
    found: dict[str, object] = {}
    for condition in (part.strip() for part in text.split(",")):
        for name, value in _condition(condition).items():
            if name in found:
                raise UsageError(f"'{text}' says {name} twice.")
            found[name] = value
    rule = DiskRule(**found)  # type: ignore[arg-type]
    if rule == DiskRule(blank=rule.blank, bus=rule.bus):
        raise UsageError(
            f"'{text}' says too little to name a disk.", hint="Give serial:, wwn:, same, size: or model:."
        )
    return rule


def _condition(text: str) -> dict[str, object]:
    name, colon, value = text.partition(":")
    value = normal_words(value)
    if name in ("same", "blank") and not colon:
        return {name: True}
    if name == "wwn" and normal_wwn(value):
        return {"wwn": normal_wwn(value)}
    if name in ("serial", "model") and value:
        return {name: value}
    if name == "bus" and value in get_args(Bus):
        return {"bus": value}
    if name == "size" and value:
        return _sizes(value)
    raise UsageError(
        f"'{text}' is not a condition for a disk.",
        hint="Conditions: serial:..., wwn:..., same, size:N, size:N..M, size:>=N, bus:..., model:..., blank.",
    )


def _sizes(text: str) -> dict[str, object]:
    low, dots, high = text.partition("..")
    if text.startswith(">="):
        return {"smallest": parse_size(text[2:])}
    smallest = parse_size(low)
    largest = parse_size(high) if dots else smallest
    if largest < smallest:
        raise UsageError(f"The size '{text}' ends before it begins.")
    return {"smallest": smallest, "largest": largest}


def matches(rule: DiskRule, disk: Disk, source: PointDisk) -> bool:
    """Every condition holds. The boot medium never matches: it is a disk that nobody can mean."""
    return not disk.boot_medium and all((
        not rule.file,
        not rule.serial or rule.serial == disk.serial,
        not rule.wwn or rule.wwn == disk.wwn,
        not rule.same or is_captured_disk(source, disk),
        not rule.model or rule.model == disk.model,
        not rule.bus or rule.bus == disk.bus,
        rule.smallest is None or disk.size >= rule.smallest,
        rule.largest is None or disk.size <= rule.largest,
        not rule.blank or disk.blank,
    ))  # fmt: skip


def assign(
    disks: str | dict[str, str], skip: tuple[str, ...], point: Point, machine: Machine
) -> tuple[dict[str, str], list[Problem]]:
    """(disk of the point -> id of its target, every doubt). Each disk of the point is named or skipped, each rule is
    met by exactly one disk, and no disk meets two. Rules that were not parsed before raise UsageError."""
    names = [disk.name for disk in point.body.disks]
    given = dict.fromkeys((n for n in names if n not in skip), disks) if isinstance(disks, str) else disks
    doubts = [
        _doubt("answer-unknown-disk", f"The point has no disk '{name}'.", f"Its disks are {', '.join(names)}.")
        for name in (*given, *skip)
        if name not in names
    ]
    doubts += [
        _doubt("answer-missing-disk", f"Nothing says where {name} goes.", "Give it a rule, or name it in 'skip'.")
        for name in names
        if name not in given and name not in skip
    ]
    targets: dict[str, str] = {}
    for source in point.body.disks:
        if source.name not in given:
            continue
        rule = parse_rule(given[source.name])
        if rule.file:
            targets[source.name] = rule.file
            continue
        found = [disk for disk in machine.disks if matches(rule, disk, source)]
        if len(found) == 1:
            targets[source.name] = found[0].id
            continue
        seen = ", ".join(short_name(disk) for disk in found or machine.disks) or "none"
        doubts.append(
            _doubt(
                "rule-matches-several" if found else "rule-matches-none",
                f"{len(found) or 'No'} disks match the rule '{given[source.name]}' of {source.name}.",
                f"They are {seen}." if found else f"The disks of this machine are {seen}.",
            )
        )
    for target in {t for t in targets.values() if list(targets.values()).count(t) > 1}:
        claimed = " and ".join(name for name, chosen in targets.items() if chosen == target)
        doubts.append(_doubt("rule-same-disk", f"The rules of {claimed} mean the same disk.", f"It is {target}."))
    return targets, doubts


def _doubt(code: str, what: str, why: str) -> Problem:
    return Problem(severity="error", code=code, what=what, why=why, todo="Correct the answers, and start again.")
