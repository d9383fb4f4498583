"""The power of the recovering machine fails in the middle of the restore, and the host comes back all the same.

Three boots of the medium and one of the host, seven minutes to a quarter of an hour without KVM: it is asked for by
``REKINDLE_POWER_LOSS=1``. ``REKINDLE_SEED`` repeats the moments of an earlier run, pictures stay in
``REKINDLE_E2E_OUTPUT``, ``REKINDLE_E2E_FIRMWARE`` is the firmware.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import pytest
from rich.console import Console

from tests.e2e.lab.storyboard.power import PowerLosses
from tests.e2e.lab.storyboard.report import DemoReport
from tests.e2e.lab.storyboard.stage import Stage
from tests.e2e.lab.storyboard.story import Options, play

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.root,
    pytest.mark.faults,
    pytest.mark.skipif(
        not os.environ.get("REKINDLE_POWER_LOSS"), reason="a quarter of an hour: REKINDLE_POWER_LOSS=1"
    ),
    pytest.mark.skipif(os.geteuid() != 0, reason="building a host's disk needs root"),
]


def test_the_power_fails_twice_and_the_host_comes_back(tmp_path: Path) -> None:
    """By the reset button, then by the plug. Each time the disk can't boot, and the rest only is fetched."""
    firmware = os.environ.get("REKINDLE_E2E_FIRMWARE", "uefi")
    assert firmware in ("bios", "uefi", "uefi-sb")
    folder = Path(os.environ.get("REKINDLE_E2E_OUTPUT", tmp_path / "power-loss"))
    seed = int(os.environ.get("REKINDLE_SEED") or secrets.randbelow(10**6))
    stage = Stage(folder, DemoReport(firmware), Console())
    losses = PowerLosses(stage, seed)
    report = play(Options(folder, firmware, power_losses=losses), stage)  # type: ignore[arg-type]
    failed = [f"{check.what}: {check.detail}" for check in report.checks if not check.held]
    assert not report.error, report.error
    assert not failed
    assert {"incomplete-reset", "incomplete-plug", "rest"} <= {check.name for check in report.checks}
    assert report.ok
