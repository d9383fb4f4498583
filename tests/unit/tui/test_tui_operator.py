"""The operator of the end-to-end test at the real console in a real terminal: each text it waits for and each key it
presses is tried here in seconds, before a machine is booted for it."""

from __future__ import annotations

import time
from pathlib import Path
from threading import Event
from typing import cast

import pytest

from recovery.tui.screens.base import LOOK_SECONDS
from tests.e2e.lab.qemu import Machine
from tests.e2e.lab.storyboard.operator import Operator, Task, restore_figures, restored_part
from tests.unit.tui.fake_world import BLANK, CODE, HOST, PASSPHRASE
from tests.unit.tui.tmux import TmuxMachine

TASK = Task(HOST, CODE, PASSPHRASE, point=1, target_serial=BLANK.serial)
CONSOLE = ("tests/unit/tui/try_console.py", "--address", "10.0.2.15/24", "--pace", "0.1")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A booted machine is slow, this one is not."""
    sleep = time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: sleep(min(seconds, 0.1)))


@pytest.mark.slow
@pytest.mark.parametrize("term", ["linux", "vt220", "xterm-256color"])
def test_the_operator_finds_its_way(term: str, tmp_path: Path) -> None:
    with TmuxMachine(*CONSOLE, term=term) as screen:
        said: list[str] = []
        operator = Operator(cast(Machine, screen), tmp_path, said.append, 1.0)
        operator.wait_for_console(60)
        operator.choose(TASK)
        assert operator.restore_until(0.2, 60) >= 0.2
        operator.restore(60)
        text = operator.result()
        figures = restore_figures(text)
        assert figures["target"] == "nvme0n1"
        assert figures["written"] == "31.0 GiB"
        Event().wait(LOOK_SECONDS)  # the screen came by itself, and this reader is quicker than any
        operator.restart()
        names = {path.stem[3:] for path in tmp_path.glob("*.txt")}
        assert {"task", "repository", "host", "point", "plan", "plan-more", "confirm", "result"} <= names
        # It took the older point: the row below the newest one.
        (point,) = tmp_path.glob("*-point.txt")
        marked = [line for line in point.read_text().splitlines() if line.startswith(" >")]
        assert len(marked) == 1
        assert "filesystem" in marked[0]
    assert restored_part("nothing") == 0
