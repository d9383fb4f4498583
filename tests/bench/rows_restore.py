"""The rows about a full restore: against the limit and everybody else, and what incompressible data costs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import msgspec

from recovery.units import GIB
from tests.bench.bench import Bench
from tests.bench.data import Disk, describe, remove
from tests.bench.measure import Contestant, alternate, forget, fresh, same_content, shell, warm
from tests.bench.model import Goal, Measured, Row, Sample, goal
from tests.bench.ours import command, restore_command, serving, with_server, worker
from tests.bench.peers import PEERS, Peer
from tests.bench.worker import Source, Task

LIMIT = "limit L: frames decoded from memory"
HTTP = "rekindle, HTTP"
TLS = "rekindle, TLS"
PLAIN_PACKS = "rekindle, TLS, packs by signed plain HTTP"
DIRECTORY = "rekindle, directory"
COMMAND = "rekindle restore, whole command, HTTP"
#: Of these many bytes of frames L is taken; a larger disk is scaled.
_BUDGET = 3 * GIB
#: Name of the peer -> how many times faster we are to be.
_FASTER = {
    "restic restore": 8.0, "borg extract": 5.0, "casync extract": 8.0, "qemu-img convert, compressed qcow2": 2.5,
    "zstd -dc | dd oflag=direct": 1.8,
}  # fmt: skip


def restore(bench: Bench) -> Row:
    """A disk full of programs."""
    return _restore(bench, "restore", "files")


def restore_host(bench: Bench) -> Row:
    """The demo's host."""
    return _restore(bench, "restore-host", "host")


def ours(name: str, source: Source, repository: Path, disk: Disk, out: Path, *, pid: int = 0) -> Contestant:
    """Our restore from ``source`` to ``out``."""
    task = Task(source=source, target=str(out))

    def sample() -> Sample:
        return with_server(pid, partial(worker, "restore", task)) if pid else worker("restore", task)

    def ready() -> None:
        warm(repository)
        fresh(out, disk.facts.size)

    return Contestant(
        name, sample, disk.facts.size, "restore_disk() with its defaults, repository open", ready,
        same_content(out, disk.facts.size, disk.facts.digest),
    )  # fmt: skip


def signed(source: Source) -> Source:
    """The same server, packs by plain HTTP."""
    return msgspec.structs.replace(source, plain_packs=True)


def _restore(bench: Bench, name: str, which: str) -> Row:
    disk = bench.disk(which)
    repository = disk.repository(bench.say)
    with (
        bench.scratch() as scratch,
        serving(disk.secret, repository, scratch, tls=False) as plain_server,
        serving(disk.secret, repository, scratch, tls=True) as tls_server,
    ):
        out = scratch / "out.raw"
        here = Source(location=str(repository), secret=str(disk.secret))
        contestants = [
            _limit(here, repository),
            ours(HTTP, plain_server.source, repository, disk, out, pid=plain_server.pid),
            ours(DIRECTORY, here, repository, disk, out),
            ours(TLS, tls_server.source, repository, disk, out, pid=tls_server.pid),
            ours(PLAIN_PACKS, signed(tls_server.source), repository, disk, out, pid=tls_server.pid),
            _whole(plain_server.source, repository, disk, out),
        ]
        for peer in PEERS if bench.peers else ():
            contestants += _peer(peer, disk, out, bench)
        found = alternate(contestants, bench.samples, bench.say)
    forget(disk.folder)
    row = Row(name=name, title="Restore, against the limit and the others", data=describe(disk), contestants=found)
    by_name = {one.name: one for one in found}
    row.goals = _goals(by_name)
    plain, secure, signed_packs = (by_name[name].seconds for name in (HTTP, TLS, PLAIN_PACKS))
    row.notes = [
        "Each writes a fresh preallocated file (casync and 'restic restore' a file of their own), and the time runs "
        "until it is on stable storage; sources come from the page cache. Rates count all bytes of the disk.",
        "L is the time for exactly the frames that a restore decodes, each once, on all cores.",
        f"TLS gives {plain / secure:.2f} of the rate without it, and {plain / signed_packs:.2f} with packs (which are "
        "encrypted) by signed plain HTTP.",
    ]
    return row


def _limit(source: Source, repository: Path) -> Contestant:
    task = Task(source=source, budget=_BUDGET)
    return Contestant(LIMIT, lambda: worker("limit", task), prepare=partial(warm, repository), command="FrameDecoder")


def _whole(source: Source, repository: Path, disk: Disk, out: Path) -> Contestant:
    words = restore_command(source, out, disk.facts.size)

    def prepare() -> None:
        warm(repository)
        fresh(out, disk.facts.size)

    return Contestant(
        COMMAND, partial(command, *words), disk.facts.size, "rekindle restore http://127.0.0.1:PORT ...", prepare,
        same_content(out, disk.facts.size, disk.facts.digest),
    )  # fmt: skip


def _peer(peer: Peer, disk: Disk, out: Path, bench: Bench) -> list[Contestant]:
    size, digest = disk.facts.size, disk.facts.digest
    if peer.missing:
        return [Contestant(peer.name, lambda: Sample(seconds=0), size, missing=peer.missing)]
    bench.say(f"  preparing {peer.name}")
    made = []
    for set_up in peer.set_ups(disk, out):

        def prepare(sources: Sequence[Path] = set_up.sources, result: Path = set_up.result) -> None:
            warm(*sources)
            for name in ("restic-out", "borg-out", "casync.raw"):
                remove(out.parent / name)
            fresh(out, size)
            if result != out:
                # Whoever makes a file of its own gets the memory, if that is where it lies.
                remove(out)

        def check(result: Path = set_up.result) -> None:
            same_content(result, size, digest)()
            if result != out:
                remove(result)

        own = str(disk.folder), str(out.parent)
        text = set_up.script.replace(own[1], "OUT").replace(own[0], "DATA")
        made.append(
            Contestant(
                peer.name, partial(_shell, set_up.script, set_up.result, set_up.env), size, text, prepare, check
            )
        )
    return made


def _shell(script: str, result: Path, env: dict[str, str]) -> Sample:
    return shell(script, sync=None if "sync -f" in script else result, env=env)


def _goals(found: dict[str, Measured]) -> list[Goal]:
    limit, http = found[LIMIT], found[HTTP]
    goals = [goal("of L, over HTTP", 0.85, limit.seconds / http.seconds)]
    for name, wanted in _FASTER.items():
        goals.append(goal(f"times {name}", wanted, ratio(found, name, HTTP), "x"))
    for name, wanted in _FASTER.items():
        goals.append(goal(f"times {name}, our whole command", wanted, ratio(found, name, COMMAND), "x"))
    goals.append(goal("TLS, of the rate without", 0.6, http.seconds / found[TLS].seconds))
    return goals


def ratio(found: dict[str, Measured], name: str, ours: str) -> float:
    """How many times longer ``name`` takes than ``ours``; NaN when it did not take part."""
    return found[name].seconds / found[ours].seconds if name in found else float("nan")


def incompressible(bench: Bench) -> Row:
    """What a CPU-second gives when there is nothing to decompress."""
    disk = bench.disk("random")
    repository = disk.repository(bench.say)
    with bench.scratch() as scratch, serving(disk.secret, repository, scratch, tls=False) as plain:
        out = scratch / "out.raw"
        here = Source(location=str(repository), secret=str(disk.secret))
        contestants = [
            ours(HTTP, plain.source, repository, disk, out, pid=plain.pid),
            ours(DIRECTORY, here, repository, disk, out),
        ]
        found = alternate(contestants, bench.samples, bench.say)
    bench.drop("random")
    row = Row(name="incompressible", title="Incompressible data", data=describe(disk), contestants=found)
    size = disk.facts.size / 1e9
    http = found[0]
    row.goals = [
        goal("GB per CPU-second of the restoring process, HTTP", 1.2, size / http.median("cpu")),
        goal("GB per CPU-second of it from a directory", 1.2, size / found[1].median("cpu")),
    ]
    whole = size / (http.median("cpu") + http.median("server_cpu"))
    row.notes = [f"With the CPU-seconds of the server added, HTTP gives {whole:.2f} GB per CPU-second."]
    return row


def with_figures(sample: Sample, **figures: float) -> Sample:
    """The sample with more figures."""
    return msgspec.structs.replace(sample, figures={**sample.figures, **figures})
