"""Exactness: the test of the claim (``tests/integration/test_agent_prefix.py``) with as many points as are wanted."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import msgspec

from recovery.commands import run
from tests.bench.bench import Bench
from tests.bench.model import Goal, Measured, Sample, goal
from tests.bench.ours import ENVIRONMENT
from tests.e2e.lab.server import CHECKOUT

NAME = "points that are prefixes, under kills"
_TEST = "tests/integration/test_agent_prefix.py"
#: Seconds for each point at most.
_PATIENCE = 20.0


def prefix(bench: Bench, folder: Path) -> tuple[list[Measured], list[Goal], str]:
    """Run it; and a sentence on what it did. Raises CommandError when a point is no prefix."""
    report = folder / "prefix.json"
    folder.mkdir(parents=True, exist_ok=True)
    environment = {
        **ENVIRONMENT, "REKINDLE_POINTS": str(bench.live.points), "REKINDLE_PREFIX_REPORT": str(report),
        "REKINDLE_SEED": os.environ.get("REKINDLE_SEED", "1"),
    }  # fmt: skip
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--basetemp={folder}/pytest"]
    timeout = 300 + bench.live.points * _PATIENCE
    done = run([*words, _TEST, "-k", "every_point"], env=environment, cwd=CHECKOUT, timeout=timeout)
    if not report.exists():
        raise OSError(f"The test was not run: {done.stdout[-500:]}")
    figures = msgspec.json.decode(report.read_bytes(), type=dict[str, float])
    measured = Measured(name=NAME, command=f"REKINDLE_POINTS={bench.live.points} pytest {_TEST}")
    measured.samples.append(Sample(seconds=figures["seconds"], figures=figures))
    measured.checked = True
    text = (
        f"Prefix test: {figures['points']:.0f} points with a point every {figures['interval']:g} s, of them "
        f"{figures['journals']:.0f} journals; {figures['kills']:.0f} kills of server, agent and network in turns; "
        f"each point restored, its records a prefix without a hole. The longest lag, outages included, was "
        f"{figures['longest_lag']:.1f} s; at the kills themselves {figures['lag_at_kills']:.1f} s at most."
    )
    bench.say(f"    {text}")
    goals = [
        goal("points restored as prefixes without a hole", float(bench.live.points), figures["points"]),
        goal(
            f"lag of the newest point, longest, a point every {figures['interval']:g} s", 75.0,
            figures["longest_lag"], " s", at_most=True,
        ),
    ]  # fmt: skip
    return [measured], goals, text
