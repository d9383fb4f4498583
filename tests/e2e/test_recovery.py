"""A dead host comes back: the whole path, through the real medium and its console."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from rich.console import Console

from tests.e2e.lab.storyboard.report import DemoReport
from tests.e2e.lab.storyboard.stage import Stage
from tests.e2e.lab.storyboard.story import Options, play

pytestmark = [pytest.mark.e2e, pytest.mark.root, pytest.mark.slow]


@pytest.mark.skipif(os.geteuid() != 0, reason="building a host's disk needs root")
def test_a_dead_host_comes_back(tmp_path: Path) -> None:
    """One firmware a run: REKINDLE_E2E_FIRMWARE, UEFI by default. Pictures stay in REKINDLE_E2E_OUTPUT."""
    firmware = os.environ.get("REKINDLE_E2E_FIRMWARE", "uefi")
    assert firmware in ("bios", "uefi", "uefi-sb")
    folder = Path(os.environ.get("REKINDLE_E2E_OUTPUT", tmp_path / "recovery"))
    stage = Stage(folder, DemoReport(firmware), Console(stderr=True))
    report = play(Options(folder, firmware), stage)  # type: ignore[arg-type]
    failed = [f"{check.what}: {check.detail}" for check in report.checks if not check.held]
    assert not report.error, report.error
    assert not failed
    assert report.ok
