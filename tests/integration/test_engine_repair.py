"""A repair by the engine: no repository, real block devices, the same confirmations, nothing overwritten."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from recovery.commands import run
from recovery.engine.engine import Engine
from recovery.errors import PlanRefusedError, UnsafeTargetError
from recovery.events import StepFinished, StepStarted
from recovery.units import MIB

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root and loop devices"),
]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[str]:
    """A disk with a table and random content."""
    image = tmp_path / "host.img"
    image.write_bytes(os.urandom(24 * MIB))
    script = b"label: gpt\nstart=2048, size=2048, type=U\nstart=4096, size=36864, type=L, name=root\n"
    run(["sfdisk", "-q", "--force", image], input=script)
    loop = run(["losetup", "--find", "--show", image]).stdout.strip()
    yield loop
    run(["losetup", "-d", loop])


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    found = Engine(log_directory=tmp_path / "log", look_inside=False, loops=True)
    yield found
    found.close()


def test_a_repair_runs_without_a_repository_and_restores_nothing(engine: Engine, disk: str, tmp_path: Path) -> None:
    before = (tmp_path / "host.img").read_bytes()
    plan = engine.plan_repair((disk,), grow=False)
    assert plan.allowed
    assert not plan.choices.restore
    (target,) = [assignment.target for assignment in plan.assignments]
    with pytest.raises(UnsafeTargetError):
        engine.start(plan.id, {target.id: "wrong"})
    with pytest.raises(PlanRefusedError):
        engine.start("0" * 64, {target.id: target.confirmation})
    engine.start(plan.id, {target.id: target.confirmation})
    engine.wait(60)
    # What comes of it depends on what lies on the disk (no host here) and on the programs of this machine.
    state = engine.state()
    assert state.phase in ("finished", "failed")
    assert state.report is not None
    assert state.report.disks == ()
    events = list(engine.events())
    started = [event.step for event in events if isinstance(event, StepStarted)]
    assert started[:2] == ["open", "adapt.settle"]
    assert not [step for step in started if step.startswith("stream:")]
    assert "open" in [event.step for event in events if isinstance(event, StepFinished)]
    assert (tmp_path / "host.img").read_bytes() == before, "there is no host on it that could be changed"


def test_a_blank_disk_has_nothing_to_repair(engine: Engine, tmp_path: Path) -> None:
    image = tmp_path / "blank.img"
    image.write_bytes(bytes(4 * MIB))
    loop = run(["losetup", "--find", "--show", image]).stdout.strip()
    try:
        plan = engine.plan_repair((loop,))
        assert [p.code for p in plan.problems if p.severity == "error"] == ["nothing-on-disk"]
        with pytest.raises(PlanRefusedError, match="blank"):
            engine.start(plan.id, {a.target.id: a.target.confirmation for a in plan.assignments})
    finally:
        run(["losetup", "-d", loop])
