"""What was measured, on what: the machine, the programs, the commit."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path

from recovery.commands import run
from recovery.units import format_size
from tests.bench.model import Run
from tests.bench.peers import PACKAGES

_CHECKOUT = Path(__file__).parents[2]


def begin(words: list[str], results: Path) -> Run:
    """A run that begins now; everybody writes below ``results``."""
    done = run(["git", "-C", _CHECKOUT, "rev-parse", "--short=12", "HEAD"], check=False)
    changed = run(["git", "-C", _CHECKOUT, "status", "--porcelain", "--untracked-files=no"], check=False)
    commit = done.stdout.strip() + (" with changes" if changed.stdout.strip() else "")
    return Run(
        started=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()), command=" ".join(["scripts/bench", *words]),
        commit=commit, machine=machine(results), programs=programs(),
    )  # fmt: skip


def machine(results: Path) -> dict[str, str]:
    """Processor, memory, kernel, what results are written to, and how busy it is."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    memory = int(Path("/proc/meminfo").read_text().split()[1]) * 1024
    return {
        "processor": model or platform.machine(),
        "cores": str(os.cpu_count()),
        "memory": format_size(memory),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "results on": filesystem(results),
        "load when it began": f"{os.getloadavg()[0]:.1f}",
    }


def filesystem(folder: Path) -> str:
    """The kind of filesystem that a folder lies on, or will when it is made."""
    there = next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists())
    return run(["stat", "--file-system", "--format=%T", there]).stdout.strip()


def programs() -> dict[str, str]:
    """The Debian versions of the others."""
    wanted = [*PACKAGES]
    done = run(["dpkg-query", "-W", "-f", "${Package} ${Version}\\n", *wanted], check=False)
    return dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line.strip())
