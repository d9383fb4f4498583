"""A run can be stopped while the restored host is made to boot, too."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from recovery.adapt.run import STEPS
from recovery.commands import use_runner
from recovery.engine.run import Run
from recovery.errors import CancelledError, CommandError
from recovery.events import Event, StepStarted
from recovery.machine.model import Machine
from recovery.plan.build import build_plan
from tests.unit.plan.hosts import choices, point, recorded


def test_it_stops_before_the_next_step_of_the_adaptation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recovery.adapt.run.TARGET", tmp_path / "none")
    machine = recorded("small_server")
    cancel = threading.Event()
    heard: list[Event] = []

    def programs(argv: Any, **_: Any) -> Any:
        cancel.set()
        raise CommandError("the first program was run")

    host = point()
    plan = build_plan(host, machine, choices(disk1="/dev/sdb"), adaptation=[(s.id, s.title, s.changes) for s in STEPS])
    nothing: Any = None
    job = Run(plan=plan, point=host, repository=nothing, probe=Machine, listener=heard.append, cancel=cancel)
    with use_runner(programs), pytest.raises(CommandError):
        job._adapt(machine)  # not stopped yet: its first step runs
    assert [e.step for e in heard if isinstance(e, StepStarted)] == [STEPS[0].id]
    heard.clear()
    with use_runner(programs), pytest.raises(CancelledError, match="made to boot"):
        job._adapt(machine)
    assert [e for e in heard if isinstance(e, StepStarted)] == []
