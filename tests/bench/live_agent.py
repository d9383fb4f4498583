"""What the agent itself takes, and for how long it lets programs wait: CPU-seconds idle and under load, freezes."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from recovery.units import MIB
from tests.bench.bench import Bench
from tests.bench.load import loaded
from tests.bench.measure import family_cpu, percentile
from tests.bench.model import Goal, Measured, Sample, goal
from tests.bench.tracked import Agent, Kind, Site, loop_disk

IDLE, LOAD = "the agent, nothing is written", "the agent under web + database load"
#: Filesystems are frozen this often, seconds, while the load is so many times faster than real.
_INTERVAL, _BUSY = 0.5, 10.0
#: The load's table then: as many chunks of 1 MiB as keyframes hold in memory. At this pace all chunks of a larger one
#: change while they are read, and a keyframe, which an agent that fell behind must make, finds no moment to freeze in.
_BUSY_TABLE = 32 * MIB
#: Seconds for each point, and at the least, on a machine that is too slow for the interval.
_PATIENCE, _LEAST = 3.0, 60.0
#: The load's table, its log, sessions, uploads, and as much again for the filesystem itself.
_ROOM = 192 * MIB


def cpu(bench: Bench, folder: Path) -> tuple[list[Measured], list[Goal]]:
    """Windows of one point each. Raises CommandError, OSError."""
    scale = bench.live
    found = {IDLE: Measured(name=IDLE), LOAD: Measured(name=LOAD)}
    with contextlib.ExitStack() as stack:
        disk = stack.enter_context(loop_disk(folder / "cpu-disk", scale.table + _ROOM))
        site = stack.enter_context(Site(folder / "cpu-site", disk))
        with site.agent(journal=f"{scale.window:g}s") as agent:
            for _ in range(scale.windows):
                _window(bench, site, agent, found[IDLE], scale.window)
        # What made the table is in the first point of another one.
        with loaded(disk.mount, 1.0, scale.table) as begin, site.agent(journal=f"{scale.window:g}s") as agent:
            begin()
            for _ in range(scale.windows):
                _window(bench, site, agent, found[LOAD], scale.window)
    return list(found.values()), [
        goal("CPU of the agent, idle host, of one core", 0.5, found[IDLE].median("per_cent"), " %", at_most=True),
        goal("CPU of the agent, web + database, of one core", 5.0, found[LOAD].median("per_cent"), " %", at_most=True),
    ]


def _window(bench: Bench, site: Site, agent: Agent, measured: Measured, seconds: float) -> None:
    count, before, begun = site.points(), family_cpu(agent.pid), time.monotonic()
    time.sleep(seconds)
    took = time.monotonic() - begun
    spent = family_cpu(agent.pid) - before
    last = agent.status.last
    figures = {
        "per_cent": 100 * spent / took,
        "points": float(site.points() - count),
        "changed": float(last.changed if last else 0),
        "peak_rss": _peak(agent.pid),
    }
    measured.samples.append(Sample(seconds=took, cpu=spent, figures=figures))
    bench.say(f"    {measured.name}: {figures['per_cent']:.2f} % of one core, {figures['points']:.0f} points")


def _peak(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return float(next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")))


def freezes(bench: Bench, folder: Path, kind: Kind) -> tuple[list[Measured], list[Goal], str]:
    """Points of a busy filesystem, one after the other; and a sentence on what they came to. Raises CommandError,
    OSError."""
    scale = bench.live
    with contextlib.ExitStack() as stack:
        disk = stack.enter_context(loop_disk(folder / f"{kind}-disk", 320 * MIB, kind))
        site = stack.enter_context(Site(folder / f"{kind}-site", disk))
        begin = stack.enter_context(loaded(disk.mount, _BUSY, min(scale.table, _BUSY_TABLE)))
        agent = stack.enter_context(site.agent(journal=f"{_INTERVAL:g}s"))
        begin()
        wanted = site.points() + scale.freezes
        begun = time.monotonic()
        with contextlib.suppress(OSError):  # fewer points are counted as they are
            seconds = max(_LEAST, scale.freezes * _PATIENCE)
            agent.wait_for(lambda: site.points() >= wanted, seconds, f"{wanted} points")
        took, failures = time.monotonic() - begun, agent.status.failures
    name = f"freezes of a busy {kind}"
    measured = Measured(name=name, command=f"the load at {_BUSY:g} times its pace, a point every {_INTERVAL:g} s")
    for live in site.figures(first=1):
        figures = {"freeze_ms": live.freeze_milliseconds, "remainder": float(live.remainder)}
        figures["attempts"] = float(live.attempts)
        measured.samples.append(Sample(seconds=live.freeze_milliseconds / 1000, figures=figures))
    lasted = [sample.figures["freeze_ms"] for sample in measured.samples]
    p50, p99 = percentile(lasted, 50), percentile(lasted, 99)
    given_up = sum(sample.figures["attempts"] - 1 for sample in measured.samples)
    text = (
        f"{kind}: {len(lasted)} points in {took:.0f} s, freezes p50 {p50:.0f}, p99 {p99:.0f}, longest "
        f"{max(lasted, default=float('nan')):.0f} ms; {given_up:.0f} freezes were given up at their limit and tried "
        f"again, {failures} attempts came to no point."
    )
    bench.say(f"    {text}")
    return [measured], [goal(f"freeze of a busy {kind}, p99", 500.0, p99, " ms", at_most=True)], text
