"""The row about continuous capture: what the agent costs its host, what it stores, and that its points are exact."""

from __future__ import annotations

import subprocess
import traceback
from collections.abc import Callable
from pathlib import Path

from recovery.errors import RekindleError
from tests.bench.bench import Bench
from tests.bench.live_agent import cpu, freezes
from tests.bench.live_fio import throughput
from tests.bench.live_memory import memory
from tests.bench.live_prefix import prefix
from tests.bench.live_stored import stored
from tests.bench.model import Goal, Measured, Row, goal
from tests.bench.tracked import Kind

_Part = Callable[[Path], tuple[list[Measured], list[Goal], str]]
_KINDS: tuple[Kind, ...] = ("ext4", "xfs", "btrfs")


def capture_live(bench: Bench) -> Row:
    """Every part on loop devices of its own. A part that fails is a goal without a figure, and costs no other."""
    row = Row(name="capture-live", title="Continuous capture of a running host")
    parts: dict[str, _Part] = {
        "memory of the tracker": lambda folder: (*memory(bench, folder), ""),
        "stored bytes": lambda folder: stored(bench, folder),
        "loss of throughput": lambda folder: (*throughput(bench, folder), ""),
        "CPU of the agent": lambda folder: (*cpu(bench, folder), ""),
        **{f"freezes of {kind}": _freezes(bench, kind) for kind in _KINDS},
        "exactness": lambda folder: prefix(bench, folder),
    }
    texts: list[str] = []
    for name, part in parts.items():
        bench.say(f"  {name}")
        try:
            with bench.scratch() as folder:
                found, goals, text = part(folder)
        except (RekindleError, OSError, subprocess.SubprocessError, ValueError) as error:
            traceback.print_exc()
            found = [Measured(name=name, error=getattr(error, "message", "") or repr(error))]
            goals, text = [goal(name, 0.0, float("nan"))], ""
        row.contestants += found
        row.goals += goals
        texts += [text] if text else []
    scale = bench.live
    row.data = "Loop devices on files where --results lies, with direct I/O but for stored bytes and exactness"
    row.notes = [
        *texts,
        "The agent is the real command in a process of its own, which stores at our server over TLS; both share the "
        "machine with what they are measured beside. CPU-seconds have the processes that it starts; the eBPF program "
        "runs in the writers' time and shows in fio's figures.",
        f"fio: 4 KiB random writes, queue depth 16, {scale.pairs} turns of {scale.seconds:g} s each "
        f"({scale.interval:g} s with points); losses are medians of the turns' own ratios.",
        "Web + database load: tests/bench/trace.py. For stored bytes a minute's writes are played at once and a point "
        "is made after them; for freezes the load runs at ten times its pace over a table of 32 MiB; for CPU at its "
        "own.",
        "Memory: three loop devices of 20 TiB together, tracked by eBPF; the kernel's maps and the rest of the "
        "process. What a whole agent takes beside its maps is the peak under load, on a small disk; chunk maps of "
        "disks of 20 TiB are in neither: see the row 'scale'.",
        "Exactness runs on a disk of its own; QEMU with Debian's kernel: tests/e2e/test_agent_guest.py.",
    ]
    return row


def _freezes(bench: Bench, kind: Kind) -> _Part:
    return lambda folder: freezes(bench, folder, kind)
