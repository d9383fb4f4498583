"""The rows about restores that need not fetch all: onto a disk that differs a little, and after a power cut."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from functools import partial

import msgspec

from recovery.units import format_size
from tests.bench.bench import Bench
from tests.bench.data import describe
from tests.bench.measure import Contestant, alternate, forget, fresh, median_of, same_content, warm
from tests.bench.model import Measured, Row, Sample, goal
from tests.bench.ours import ENVIRONMENT, serving, with_server, worker
from tests.bench.rows_restore import HTTP, ours
from tests.bench.worker import Task
from tests.e2e.lab.server import CHECKOUT

DELTA = "rekindle, 1 % of the chunks differ"
RESUMED = "rekindle, run again after kill -9"


def delta(bench: Bench) -> Row:
    """One in a hundred stored chunks of the target is wrong; both over HTTP."""
    disk = bench.disk("files")
    repository = disk.repository(bench.say)
    turn = iter(range(10**6))
    with bench.scratch() as scratch, serving(disk.secret, repository, scratch, tls=False) as served:
        out = scratch / "out.raw"
        full = ours(HTTP, served.source, repository, disk, out, pid=served.pid)

        def sample() -> Sample:
            task = Task(source=served.source, target=str(out), seed=next(turn))
            return with_server(served.pid, lambda: worker("delta", task))

        # It begins with what the full restore before it has left.
        part = Contestant(
            DELTA, sample, disk.facts.size, check=same_content(out, disk.facts.size, disk.facts.digest)
        )  # fmt: skip
        found = alternate([full, part], bench.samples, bench.say)
    forget(disk.folder)
    row = Row(name="delta", title="1 % of the chunks differ", data=describe(disk), contestants=found)
    fetched = [s.figures["transferred"] / s.figures["changed"] for s in found[1].samples]
    row.goals = [
        goal("times faster than the full restore", 8.0, found[0].seconds / found[1].seconds, "x"),
        goal("fetched, of the frames of changed chunks", 1.05, median_of(fetched), at_most=True),
    ]
    row.notes = [
        "A stored chunk in a hundred is overwritten with random bytes. The first and last MiB are always wiped and "
        "fetched.",
    ]
    return row


def resume(bench: Bench) -> Row:
    """Killed with -9 at a random moment, twice in each turn; run again it fetches what the target lacks."""
    disk = bench.disk("files")
    repository = disk.repository(bench.say)
    with bench.scratch() as scratch, serving(disk.secret, repository, scratch, tls=False) as served:
        out = scratch / "out.raw"
        task = Task(source=served.source, target=str(out))
        whole = ours(HTTP, served.source, repository, disk, out, pid=served.pid)
        (full,) = alternate([whole], 1, bench.say)
        check = same_content(out, disk.facts.size, disk.facts.digest)
        resumed = Measured(name=RESUMED, command="kill -9, then restore_disk() again", work=disk.facts.size)
        for _ in range(2 * bench.samples if full.samples else 0):
            warm(repository)
            fresh(out, disk.facts.size)
            moment = random.uniform(0.05, 0.95) * full.seconds
            _kill_after(moment, task)
            lacking = worker("missing", task)
            again = with_server(served.pid, partial(worker, "restore", task))
            check()
            resumed.checked = True
            figures = {**lacking.figures, "transferred": again.figures["transferred"], "killed_after_s": moment}
            resumed.samples.append(msgspec.structs.replace(again, figures=figures))
            remaining = format_size(int(lacking.figures["remaining"]))
            bench.say(f"    killed after {moment:.2f} s, {remaining} lacked; again {again.seconds:.2f} s")
    forget(disk.folder)
    row = Row(name="resume", title="Run again after kill -9", data=describe(disk), contestants=[full, resumed])
    ratios = [s.figures["transferred"] / s.figures["remaining"] for s in resumed.samples]
    row.goals = [
        goal("fetched, of the bytes that lacked; worst", 1.1, max(ratios, default=float("nan")), at_most=True)
    ]
    row.notes = [
        f"Fetched of lacking, for each moment: {', '.join(f'{ratio:.3f}' for ratio in ratios)}.",
        "What lacks is found by hashing the target after the kill; the result was compared after every run.",
    ]
    return row


def _kill_after(seconds: float, task: Task) -> None:
    """Start a restore and kill it so many seconds after its first write."""
    argv = [sys.executable, "-m", "tests.bench.worker", "started", msgspec.json.encode(task).decode()]
    process = subprocess.Popen(
        argv, env={**os.environ, **ENVIRONMENT}, cwd=CHECKOUT, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
    )
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    process.wait()
