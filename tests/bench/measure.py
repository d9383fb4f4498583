"""Take samples: contestants in turns, each timed with its CPU-seconds, its result checked once."""

from __future__ import annotations

import os
import resource
import shlex
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import blake3

from recovery.commands import run
from recovery.errors import IntegrityError, RekindleError
from tests.bench.model import Measured, Sample

#: Whoever takes longer than this many seconds has one turn when there are only two: its rate is known well enough by
#: that, and the table shows its one sample.
SLOW = 30.0
_ZEROS = memoryview(bytes(4 * 1024 * 1024))
#: A command that takes longer hangs.
_LONGEST = 1800.0


class WrongResult(IntegrityError):
    """What a contestant made is not what it should be."""


def nothing() -> None:
    """Nothing to prepare, to check."""


@dataclass
class Contestant:
    """Who takes part. Several of the same name are set-ups of one program: after the first turn the fastest stays.

    ``prepare`` runs before each sample and is not timed; ``check`` runs after the first one, and raises WrongResult.
    ``missing`` are Debian packages that it would need.
    """

    name: str
    sample: Callable[[], Sample]
    work: int = 0
    command: str = ""
    prepare: Callable[[], None] = nothing
    check: Callable[[], None] | None = None
    missing: Sequence[str] = ()


def shell(script: str, *, sync: Path | None = None, env: dict[str, str] | None = None) -> Sample:
    """Time a line of shell, to the moment when what it wrote to ``sync`` is on stable storage. Raises CommandError."""
    begin, before = time.monotonic(), children_cpu()
    run(["bash", "-o", "pipefail", "-c", script], env=env, timeout=_LONGEST)
    if sync is not None:
        fsync(sync)
    return Sample(seconds=time.monotonic() - begin, cpu=children_cpu() - before)


def children_cpu() -> float:
    """CPU-seconds of all children that have ended, with theirs."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def process_cpu(pid: int) -> float:
    """CPU-seconds of a process that runs."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def family_cpu(pid: int) -> float:
    """CPU-seconds of a process that runs, and of those of its children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def fsync(path: Path) -> None:
    """Wait until a file is on stable storage."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fresh(path: Path, size: int) -> None:
    """A file whose blocks exist and read as zeros, so that nobody pays for allocating them or finds old content.

    A tmpfs takes memory for it at the first write only, and whoever is first pays: on a virtual machine that gives
    free memory back to its host that was more CPU than the whole restore.
    """
    path.unlink(missing_ok=True)
    with path.open("wb", buffering=0) as file:
        os.posix_fallocate(file.fileno(), 0, size)
        if run(["stat", "--file-system", "--format=%T", path]).stdout.strip() == "tmpfs":
            for start in range(0, size, len(_ZEROS)):
                file.write(_ZEROS[: size - start])
        os.fsync(file.fileno())


def warm(*paths: Path) -> None:
    """Read files (all below a directory) into the page cache: everybody's source comes from memory."""
    for path in paths:
        for file in [path] if path.is_file() else [found for found in path.rglob("*") if found.is_file()]:
            with file.open("rb", buffering=0) as opened:
                buffer = bytearray(8 * 1024 * 1024)
                while opened.readinto(buffer):
                    pass


def forget(*paths: Path) -> None:
    """Drop files from the page cache: memory is for what is measured next."""
    for path in paths:
        for file in [path] if path.is_file() else [found for found in path.rglob("*") if found.is_file()]:
            descriptor = os.open(file, os.O_RDONLY)
            try:
                os.fsync(descriptor)
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)


def digest_of(path: Path, size: int | None = None) -> str:
    """The hex BLAKE3 of a file. Raises WrongResult when it has not ``size`` bytes."""
    if size is not None and path.stat().st_size != size:
        raise WrongResult(f"{path} has {path.stat().st_size} bytes instead of {size}.")
    return blake3.blake3(max_threads=blake3.blake3.AUTO).update_mmap(path).hexdigest()


def same_content(path: Path, size: int, digest: str) -> Callable[[], None]:
    """A check: the file has this size and this BLAKE3. Its pages leave the cache."""

    def check() -> None:
        forget(path)
        found = digest_of(path, size)
        forget(path)
        if found != digest:
            raise WrongResult(f"{path} does not hold what it should.")

    return check


def quote(*words: str | Path) -> str:
    """Words as the shell reads them."""
    return shlex.join(str(word) for word in words)


def alternate(contestants: Sequence[Contestant], count: int, say: Callable[[str], None]) -> list[Measured]:
    """``count`` turns of everybody (but see SLOW). Whoever fails is out, and what it said is kept."""
    taken: dict[int, Measured] = {}
    out: set[int] = set()
    for number, one in enumerate(contestants):
        taken[number] = Measured(name=one.name, command=one.command, work=one.work)
        if one.missing:
            out.add(number)
            taken[number].error = f"not installed: {' '.join(one.missing)}"
    for turn in range(count):
        for number, one in enumerate(contestants):
            if number in out or (turn and count <= 2 and taken[number].seconds > SLOW):
                continue
            try:
                _take(one, taken[number], say)
            except (RekindleError, OSError) as error:
                out.add(number)
                taken[number].error = getattr(error, "message", str(error))
                say(f"    {one.name}: {taken[number].error}")
        if turn == 0:
            _keep_fastest(contestants, taken, out)
    return _merged(contestants, taken)


def _take(one: Contestant, measured: Measured, say: Callable[[str], None]) -> None:
    one.prepare()
    sample = one.sample()
    if not measured.samples and one.check is not None:
        one.check()
        measured.checked = True
    measured.samples.append(sample)
    rate = f" = {one.work / sample.seconds / 1e6:.0f} MB/s" if one.work else ""
    say(f"    {one.name}: {sample.seconds:.2f} s{rate}, {sample.cpu:.2f} CPU-seconds")


def _keep_fastest(contestants: Sequence[Contestant], taken: dict[int, Measured], out: set[int]) -> None:
    for name in {one.name for one in contestants}:
        able = [n for n, one in enumerate(contestants) if one.name == name and n not in out]
        best = min(able, key=lambda n: taken[n].seconds, default=None)
        out.update(number for number in able if number != best)


def _merged(contestants: Sequence[Contestant], taken: dict[int, Measured]) -> list[Measured]:
    """One Measured for each name: the set-up with most samples, then the fastest, with the others beside it."""
    merged: list[Measured] = []
    for name in dict.fromkeys(one.name for one in contestants):
        found = [taken[number] for number, one in enumerate(contestants) if one.name == name]
        able = [one for one in found if one.samples and not one.error]
        best = min(able, key=lambda one: (-len(one.samples), one.seconds), default=found[0])
        best.others = {one.command: one.samples for one in found if one is not best and one.samples}
        merged.append(best)
    return merged


def percentile(values: Sequence[float], percent: float) -> float:
    """The value that so many per cent of the others do not exceed; NaN of nothing."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] if ordered else float("nan")


def median_of(values: Sequence[float]) -> float:
    """The median, NaN of nothing."""
    return statistics.median(values) if values else float("nan")
