"""What goes on while a program is read has ended before it begins."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from recovery.cli.meanwhile import meanwhile
from recovery.errors import UsageError


def test_it_is_waited_for_and_its_failure_is_its_own(tmp_path: Path) -> None:
    mark = tmp_path / "two words"
    wait = meanwhile(f"sh -c {shlex.quote(f'sleep 0.2; touch {shlex.quote(str(mark))}; exit 3')}")
    assert not mark.exists()
    wait()
    assert mark.exists()


def test_none_is_waited_for_at_once() -> None:
    meanwhile("")()


@pytest.mark.parametrize("command", ["/no/such/program", "'half a quote"])
def test_what_cannot_be_run_is_said(command: str) -> None:
    with pytest.raises(UsageError, match="can't be run") as caught:
        meanwhile(command)
    assert "--meanwhile" in caught.value.hint
