"""What the agent costs a host that writes as fast as it can: fio's random writes with and without it, in turns."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from recovery.commands import run
from recovery.units import MIB
from tests.bench.bench import Bench
from tests.bench.measure import Contestant, alternate, median_of
from tests.bench.model import Goal, Measured, Sample, goal
from tests.bench.peers import missing
from tests.bench.tracked import Agent, LoopDisk, Site, loop_disk

WITHOUT, TRACKED, POINTS = (
    "fio, no agent",
    "fio, the agent tracks",
    "fio, the agent tracks and makes points",
)
#: Requests at a time; a second for the run to become steady, which does not count.
_DEPTH, _RAMP = 16, 1


def fio_command(file: Path, size: int, seconds: float) -> list[str]:
    """4 KiB random writes past the page cache for so long; the figures as JSON on stdout."""
    return [
        "fio", "--name=random-writes", f"--filename={file}", f"--size={size}", "--rw=randwrite", "--bs=4k",
        "--ioengine=libaio", f"--iodepth={_DEPTH}", "--direct=1", "--time_based", f"--runtime={seconds:g}",
        f"--ramp_time={_RAMP}", "--randrepeat=1", "--norandommap", "--refill_buffers", "--output-format=json",
    ]  # fmt: skip


def parse_fio(text: str) -> dict[str, float]:
    """Operations a second and latencies in milliseconds from fio's JSON. Raises ValueError."""
    try:
        # A warning may stand before it.
        written = json.loads(text[text.index("{") :])["jobs"][0]["write"]
        latency = written["clat_ns"]
        return {
            "iops": float(written["iops"]),
            "p50_ms": latency["percentile"]["50.000000"] / 1e6,
            "p99_ms": latency["percentile"]["99.000000"] / 1e6,
            "longest_ms": latency["max"] / 1e6,
        }
    except (KeyError, IndexError, TypeError) as error:
        raise ValueError(f"fio's output is not understood: {error!r}") from error


def losses(reference: Measured, other: Measured, figure: str, *, grows: bool = False) -> list[float]:
    """Per cent that ``other`` is worse than ``reference`` in each turn. ``grows``: more of the figure is worse."""
    pairs = zip(reference.samples, other.samples, strict=False)
    ratios = [after.figures[figure] / before.figures[figure] for before, after in pairs]
    return [100 * (ratio - 1 if grows else 1 - ratio) for ratio in ratios]


class _Turns:
    """One contestant's turn after the other: the agent runs or does not."""

    def __init__(self, bench: Bench, disk: LoopDisk, site: Site) -> None:
        self._scale, self._say, self._disk, self._site = bench.live, bench.say, disk, site
        self._running = contextlib.ExitStack()
        self._agent: Agent | None = None

    def stop(self) -> None:
        """No agent."""
        self._running.close()
        self._agent = None

    def start(self, interval: float) -> None:
        """An agent that made its first point, and makes one every ``interval`` seconds."""
        self.stop()
        self._agent = self._running.enter_context(self._site.agent(journal=f"{interval:g}s"))

    def start_halfway(self, interval: float) -> None:
        """The same, half an interval ago: the next point falls into the middle of a run as long."""
        self.start(interval)
        time.sleep(interval / 2)

    def sample(self, seconds: float) -> Sample:
        """A run of fio, with how many points came in meanwhile, and how many attempts came to nothing."""
        before, failed = self._site.points(), self._agent.status.failures if self._agent else 0
        said = run(fio_command(self._disk.mount / "fio.dat", self._scale.fio_file, seconds))
        figures = parse_fio(said.stdout)
        if self._agent:
            failures = float(self._agent.status.failures - failed)
            figures |= {"points": float(self._site.points() - before), "failures": failures}
        self._say("    " + ", ".join(f"{name} {value:.4g}" for name, value in figures.items()))
        return Sample(seconds=seconds, figures=figures)


def throughput(bench: Bench, folder: Path) -> tuple[list[Measured], list[Goal]]:
    """Three contestants in turns. Raises CommandError, OSError."""
    scale = bench.live
    lacking = missing("fio")
    with contextlib.ExitStack() as stack:
        size = scale.fio_file + max(256 * MIB, scale.fio_file // 2)
        disk = stack.enter_context(loop_disk(folder / "fio-disk", size))
        site = stack.enter_context(Site(folder / "fio-site", disk))
        turns = _Turns(bench, disk, site)
        stack.callback(turns.stop)
        if not lacking:
            # Its blocks are there and written once before the first turn.
            with (disk.mount / "fio.dat").open("wb") as file:
                for _ in range(scale.fio_file // MIB):
                    file.write(b"\x5a" * MIB)
                file.flush()
                os.fsync(file.fileno())
        how = " ".join(fio_command(Path("FILE"), scale.fio_file, scale.seconds))
        never: Callable[[], None] = partial(turns.start, 86400.0)
        often: Callable[[], None] = partial(turns.start_halfway, scale.interval)
        short: Callable[[], Sample] = partial(turns.sample, scale.seconds)
        # One point, or one attempt, falls into each run.
        long: Callable[[], Sample] = partial(turns.sample, max(scale.seconds, scale.interval))
        contestants = [
            Contestant(WITHOUT, short, command=how, prepare=turns.stop, missing=lacking),
            Contestant(TRACKED, short, command="no point while it runs", prepare=never, missing=lacking),
            Contestant(POINTS, long, command=f"a point every {scale.interval:g} s, a run as long", prepare=often,
                       missing=lacking),
        ]  # fmt: skip
        found = alternate(contestants, scale.pairs, bench.say)
    return found, _goals(found, scale.interval)


def _goals(found: list[Measured], interval: float) -> list[Goal]:
    without, tracked, points = found
    made: list[Goal] = []
    for other, wanted, how in ((tracked, 3.0, "tracked"), (points, 5.0, f"with a point every {interval:g} s")):
        for figure, what, grows in (("iops", "throughput", False), ("p99_ms", "p99 latency", True)):
            worse = median_of(losses(without, other, figure, grows=grows))
            made.append(goal(f"loss of fio's {what}, {how}, median of pairs", wanted, worse, " %", at_most=True))
    # A host that writes without end may give no moment for a freeze; then the loss is that of the attempts.
    made.append(goal("points that came in while fio ran, in each of these runs", 1.0, points.median("points")))
    tried = [sample.figures["points"] + sample.figures["failures"] for sample in points.samples]
    made.append(goal("points that came in or were given up, in each of these runs", 1.0, min(tried, default=0.0)))
    return made
