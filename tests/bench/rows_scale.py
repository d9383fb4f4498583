"""The rows about large and old repositories: 20 TiB planned, and hundreds of points behind the one restored."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import msgspec

from recovery.commands import run
from recovery.errors import RekindleError
from recovery.format import chunk, mapcodec
from recovery.units import GIB, format_size
from tests.bench import history
from tests.bench.bench import Bench
from tests.bench.data import HOST, PASSPHRASE, remove
from tests.bench.measure import Contestant, alternate, forget, fresh, same_content, warm
from tests.bench.model import Row, Sample, goal
from tests.bench.ours import ENVIRONMENT, serving, with_server, worker
from tests.bench.vast import SIZES
from tests.bench.worker import Task
from tests.e2e.lab.server import CHECKOUT, rekindle_argv

PLAN, RESTORE = "rekindle plan", "rekindle, the beginning of the restore"
#: So much of the first disk is restored to see how much memory that takes.
_ENOUGH = 2 * GIB
_MEMORY = 512.0


def scale(bench: Bench) -> Row:
    """A synthetic host of 20 TiB in three disks, 60 % used, restored onto loop devices over holes."""
    folder = _cached(bench, "scale", f"{chunk.VERSION}-{mapcodec.VERSION}-2", _build_vast) / "repository"
    with bench.scratch() as scratch, contextlib.ExitStack() as stack:
        secret = scratch / "secret"
        secret.write_text(PASSPHRASE + "\n")
        devices = {
            name: stack.enter_context(_holes(scratch / f"{name}.raw", size)) for name, size in SIZES.items()
        }  # fmt: skip
        words = [w for name, device in devices.items() for w in ("--target", f"{name}={device}")]
        plan = rekindle_argv(
            "plan", folder, "--host", HOST, "--loops", "--no-adapt", "--secret-file", secret, "--json", *words
        )
        begin = [sys.executable, "-m", "tests.bench.vast", "restore", str(folder), devices["disk1"], str(_ENOUGH)]
        found = alternate(
            [
                Contestant(PLAN, partial(_peak, plan), command="rekindle plan --host H --target disk1=/dev/loop0 ..."),
                Contestant(RESTORE, partial(_peak, begin), command=f"restore_disk() of 8 TiB, {format_size(_ENOUGH)}"),
            ],
            bench.samples, bench.say,
        )  # fmt: skip
    row = Row(name="scale", title="A host of 20 TiB", contestants=found)
    row.data = f"A synthetic host, disks of {', '.join(map(format_size, SIZES.values()))}, 60 % of each used"
    peak = max(one.median("peak_rss") for one in found) / 2**20
    row.goals = [
        goal("planned in", 10.0, found[0].seconds, " s", at_most=True),
        goal("memory of a whole process, the larger of both", _MEMORY, peak, " MiB", at_most=True),
    ]
    row.notes = [
        "The whole 'rekindle plan' command: unlock, probe this machine, read the three maps, ask for every pack.",
        f"The restore of the first disk is stopped after {format_size(_ENOUGH)}; its packs are made as they are read. "
        "What a restore needs at its end (reading back) is in the peak of the row 'restore'.",
    ]
    return row


def fragmented(bench: Bench) -> Row:
    """Hundreds of points behind the one that is restored: its frames lie scattered over packs of all ages."""
    folder = _cached(bench, "history", f"{chunk.VERSION}-{mapcodec.VERSION}-1", _build_history)
    facts = msgspec.json.decode((folder / "facts.json").read_bytes(), type=history.HistoryFacts)
    secret = folder / "secret"
    with bench.scratch() as scratch, serving(secret, folder / "repository", scratch, tls=False) as served:
        out = scratch / "out.raw"
        task = Task(source=served.source, target=str(out))

        def prepare() -> None:
            warm(folder / "repository")
            fresh(out, facts.size)

        one = Contestant(
            "rekindle, HTTP", lambda: with_server(served.pid, lambda: worker("counted", task)), facts.size,
            "restore_disk() with its defaults", prepare, same_content(out, facts.size, facts.digest),
        )  # fmt: skip
        found = alternate([one], bench.samples, bench.say)
    forget(folder)
    row = Row(name="fragmented", title="Hundreds of points behind the one restored", contestants=found)
    row.data = (
        f"A synthetic host with a disk of {format_size(facts.size)}, 60 % used, and {history.POINTS} points, one an "
        f"hour; the newest refers to {facts.packs} packs"
    )
    read, requests = found[0].median("transferred"), found[0].median("requests")
    row.goals = [
        goal("MiB read by each request", 6.0, read / requests / 2**20, " MiB"),
        goal("over-read", 15.0, (read / facts.needed - 1) * 100, " %", at_most=True),
    ]
    row.notes = [
        "144 chunk writes an hour for each GiB of disk, four fifths of them into a fiftieth of the chunks. Requests "
        "are all that the restore makes, also for maps.",
    ]
    return row


def _build_history(making: Path) -> None:
    (making / "secret").write_text(PASSPHRASE + "\n")
    build = [sys.executable, "-m", "tests.bench.history"]
    run([*build, making / "repository", making / "facts.json"], env=ENVIRONMENT, cwd=CHECKOUT)


def _build_vast(making: Path) -> None:
    run([sys.executable, "-m", "tests.bench.vast", "build", making / "repository"], env=ENVIRONMENT, cwd=CHECKOUT)


def _cached(bench: Bench, name: str, key: str, make: Callable[[Path], None]) -> Path:
    """``bench.folder / name-key``, filled by ``make`` when it is not there."""
    bench.folder.mkdir(parents=True, exist_ok=True)
    folder = bench.folder / f"{name}-{key}"
    for old in bench.folder.glob(f"{name}-*"):
        if old != folder:
            remove(old)
    if not folder.exists():
        bench.say(f"  making the repository of the row (once): {folder.name}")
        making = bench.folder / f"making-{name}"
        remove(making)
        making.mkdir()
        make(making)
        making.rename(folder)
    return folder


@contextlib.contextmanager
def _holes(path: Path, size: int) -> Iterator[str]:
    """A loop device over a file of nothing but holes. Root."""
    with path.open("wb") as file:
        file.truncate(size)
    device = run(["losetup", "--show", "--find", path]).stdout.strip()
    try:
        yield device
    finally:
        run(["losetup", "--detach", device])
        path.unlink()


def _peak(argv: list[str]) -> Sample:
    """Run a program; its time, CPU-seconds and peak of memory, and the figures it prints itself."""
    begin = time.monotonic()
    process = subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, **ENVIRONMENT}, cwd=CHECKOUT
    )
    assert process.stderr is not None
    told: list[bytes] = []
    reader = threading.Thread(target=lambda: told.append(process.stdout.read() if process.stdout else b""))
    reader.start()
    peak = 0
    while reader.is_alive():
        peak = _held(process.pid) or peak
        reader.join(0.02)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RekindleError(process.stderr.read().decode(errors="replace")[-500:])
    figures = {}
    if told[0].startswith(b'{"seconds"'):
        figures = msgspec.json.decode(told[0], type=Sample).figures
    figures["peak_rss"] = max(figures.get("peak_rss", 0.0), float(peak))
    return Sample(seconds=seconds, cpu=usage.ru_utime + usage.ru_stime, figures=figures)


def _held(pid: int) -> int:
    """The most bytes that a process has held so far (VmHWM); 0 when it has ended."""
    with contextlib.suppress(OSError):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)
    return 0
