"""A repair: the same disks, no point, nothing overwritten, and the same refusals where a disk must not be touched."""

from __future__ import annotations

import msgspec

from recovery.plan.checklist import checks_of
from recovery.plan.repair import build_repair
from tests.unit.tui.fake_world import BLANK, BUSY, MACHINE, MEDIUM_DISK, USED

STEPS = [("adapt.mount", "Find the host", ""), ("adapt.bootloader", "Install the boot loader", "The menu")]


def codes(*chosen: str) -> list[str]:
    _, plan = build_repair(chosen, MACHINE, grow=False, adaptation=STEPS)
    return [problem.code for problem in plan.problems if problem.severity == "error"]


def test_a_repair_overwrites_nothing() -> None:
    point, plan = build_repair([USED.path], MACHINE, grow=False, adaptation=STEPS)
    assert plan.allowed
    assert not plan.choices.restore
    assert not plan.choices.grow
    assert [step.id for step in plan.steps] == ["open", "adapt.mount", "adapt.bootloader", "prove"]
    assert not any(step.destructive for step in plan.steps)
    assert [a.target for a in plan.assignments] == [USED]
    assert plan.assignments[0].losses == ()
    assert point.body.disks[0].table == USED.table
    titles = [check.title for step in plan.steps for check, _, _ in checks_of(plan, step.id)]
    assert "a host is on them" in titles
    assert "all content is in the repository" not in titles


def test_a_session_that_sleeps_on_the_disks_is_told_of() -> None:
    parts = tuple(
        msgspec.structs.replace(part, content=msgspec.structs.replace(part.content, kind="swsuspend"))
        for part in USED.table.partitions
    )
    asleep = msgspec.structs.replace(USED, table=msgspec.structs.replace(USED.table, partitions=parts))
    machine = msgspec.structs.replace(MACHINE, disks=(asleep,))
    _, plan = build_repair([asleep.path], machine, grow=False, adaptation=STEPS)
    (told,) = (problem for problem in plan.problems if problem.code == "hibernated")
    assert told.severity == "warning" and "without adaptation" not in told.todo


def test_disks_that_must_not_be_touched_are_refused() -> None:
    assert codes(BUSY.id) == ["target-holds-repository"]
    assert "target-is-boot-medium" in codes(MEDIUM_DISK.id)
    assert codes(BLANK.id) == ["nothing-on-disk"]
    assert codes("/dev/nothing") == ["target-missing"]
    assert codes() == ["nothing-to-restore"]


def test_another_choice_is_another_plan() -> None:
    _, plan = build_repair([USED.id], MACHINE, grow=True, adaptation=STEPS)
    _, same = build_repair([USED.path, USED.path], MACHINE, grow=True, adaptation=STEPS)
    changed = msgspec.structs.replace(MACHINE, disks=(msgspec.structs.replace(USED, serial="other"),))
    _, other = build_repair([USED.id], changed, grow=True, adaptation=STEPS)
    assert plan.id == same.id != other.id
