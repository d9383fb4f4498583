"""A host that runs with the agent on it loses its power, and comes back to its last minute: ``scripts/demo --live``.

Half an hour without KVM, so it is asked for by name: ``REKINDLE_LIVE_RECOVERY=1``. ``REKINDLE_SEED`` repeats the
moment of an earlier run, pictures stay in ``REKINDLE_E2E_OUTPUT``, ``REKINDLE_E2E_FIRMWARE`` is the firmware.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import pytest
from rich.console import Console

from tests.e2e.lab.storyboard.live import LiveSource
from tests.e2e.lab.storyboard.report import DemoReport
from tests.e2e.lab.storyboard.stage import Stage
from tests.e2e.lab.storyboard.story import Options, play

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.root,
    pytest.mark.skipif(not os.environ.get("REKINDLE_LIVE_RECOVERY"), reason="half an hour: REKINDLE_LIVE_RECOVERY=1"),
    pytest.mark.skipif(os.geteuid() != 0, reason="building a host's disk needs root"),
]


def test_a_running_host_loses_its_power_and_comes_back_to_its_last_minute(tmp_path: Path) -> None:
    firmware = os.environ.get("REKINDLE_E2E_FIRMWARE", "uefi")
    assert firmware in ("bios", "uefi", "uefi-sb")
    folder = Path(os.environ.get("REKINDLE_E2E_OUTPUT", tmp_path / "live"))
    stage = Stage(folder, DemoReport(firmware), Console())
    source = LiveSource(stage, int(os.environ.get("REKINDLE_SEED") or secrets.randbelow(10**6)))
    report = play(Options(folder, firmware, live=source), stage)  # type: ignore[arg-type]
    failed = [f"{check.what}: {check.detail}" for check in report.checks if not check.held]
    assert not report.error, report.error
    assert not failed
    assert {"login", "address", "vm-web", "vm-db", "prefix", "lag"} <= {check.name for check in report.checks}
    assert report.ok
