"""Hosts whose root lies on md, LUKS, LVM-thin, two disks of LVM, or btrfs subvolumes come back on another bus.

Half an hour and more without KVM, so it is asked for by name: ``REKINDLE_STACKS=all``, or some of the cases of
``tests/e2e/stacks/layouts.py`` (``md,luks``). ``REKINDLE_E2E_OUTPUT=DIR`` keeps the report and what was made.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.e2e.stacks.__main__ import run_cases

pytestmark = [pytest.mark.e2e, pytest.mark.root]

WANTED = os.environ.get("REKINDLE_STACKS", "")


@pytest.mark.skipif(not WANTED or os.geteuid() != 0, reason="set REKINDLE_STACKS=all (or md,luks ...), as root")
def test_stacks_come_back(tmp_path: Path) -> None:
    folder = Path(os.environ.get("REKINDLE_E2E_OUTPUT", tmp_path)) / "stacks"
    folder.mkdir(parents=True, exist_ok=True)
    outcomes = run_cases(folder, [] if WANTED == "all" else WANTED.split(","))
    assert outcomes
    assert {name: outcome.failed for name, outcome in outcomes.items() if outcome.failed} == {}
    assert all("root logs in" in outcome.held for outcome in outcomes.values())
