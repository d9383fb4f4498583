"""The rows about capture: the first full one against others, and one of a disk that did not change."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from recovery.commands import run
from recovery.repository.repository import Repository
from recovery.repository.store import open_local
from tests.bench.bench import Bench
from tests.bench.data import HOST, PASSPHRASE, Disk, describe, remove, tree_size
from tests.bench.measure import Contestant, alternate, forget, quote, same_content, shell, warm
from tests.bench.model import Row, Sample, goal
from tests.bench.ours import command
from tests.bench.peers import CORES, borg_create, borg_encryption, borg_env, missing, restic_backup, restic_env
from tests.bench.rows_restore import ratio, with_figures

OURS, RESTIC, BORG = "rekindle capture", "restic backup", "borg create"
ZSTD = "zstd -3 -T2, for reference"
UNCHANGED, B3SUM = "rekindle capture, nothing changed", "b3sum"


def capture(bench: Bench) -> Row:
    """Everybody stores the disk into a new repository in a directory."""
    disk = bench.disk("files")
    with bench.scratch() as scratch:
        contestants = [_ours(disk, scratch), *(_others(disk, scratch) if bench.peers else ())]
        found = {one.name: one for one in alternate(contestants, bench.samples, bench.say)}
    row = Row(name="capture", title="Capture, first full", data=describe(disk), contestants=list(found.values()))
    forget(disk.folder)
    stored = [
        s.figures["stored"]
        for name in (RESTIC, BORG)
        if name in found
        for s in (*found[name].samples, *sum(found[name].others.values(), []))
    ]
    row.goals = [goal(f"times {name}", 2.5, ratio(found, name, OURS), "x") for name in (RESTIC, BORG)]
    better = found[OURS].median("stored") / min(stored) if stored else float("nan")
    row.goals.append(goal("stored bytes, of the better of both", 1.05, better, at_most=True))
    row.notes = [
        "Whole commands; the repositories are new, making them is not timed. The disk comes from the page cache."
    ]
    return row


def _ours(disk: Disk, scratch: Path) -> Contestant:
    place = scratch / "rekindle"

    def prepare() -> None:
        warm(disk.raw)
        remove(place)
        Repository.create(open_local(place, create=True), PASSPHRASE)

    def sample() -> Sample:
        took = command("capture", place, "--host", HOST, "--secret-file", disk.secret, disk.raw)
        return with_figures(took, stored=tree_size(place))

    def check() -> None:
        out = scratch / "check.raw"
        run(["rm", "-f", out])
        own = ("--host", HOST, "--secret-file", disk.secret)
        command("restore", place, *own, "--target", f"disk1={out}", "--verify")
        same_content(out, disk.facts.size, disk.facts.digest)()
        remove(out)

    return Contestant(OURS, sample, disk.facts.size, "rekindle capture DIRECTORY --host H disk.raw", prepare, check)


def _others(disk: Disk, scratch: Path) -> list[Contestant]:
    made = []
    place, env = scratch / "restic", restic_env(disk.secret, scratch / "restic-cache")
    init = quote("restic", "-q", "-r", place, "init")
    made.append(_other(RESTIC, disk, place, init, restic_backup(place, disk.raw), env, missing("restic")))
    for compression in ("lz4", "zstd,3"):
        place, env = scratch / f"borg-{compression}", borg_env(disk.secret, scratch / f"borg-home-{compression}")
        init = quote("borg", "init", "--encryption", borg_encryption(), place)
        script = borg_create(place, disk.raw, compression)
        made.append(_other(BORG, disk, place, init, script, env, missing("borgbackup")))
    place = scratch / "disk.zst"
    script = f"{quote('zstd', '-q', '-3', '-T2', disk.raw.name, '-o', place)} && sync {quote(place)}"
    made.append(_other(ZSTD, disk, place, "true", script, {}, missing("zstd")))
    return made


def _other(
    name: str, disk: Disk, place: Path, init: str, script: str, env: dict[str, str], lacking: tuple[str, ...]
) -> Contestant:
    def prepare() -> None:
        warm(disk.raw)
        remove(place)
        shell(init, env=env)

    def sample() -> Sample:
        took = shell(f"cd {quote(disk.folder)} && {script}", env=env)
        return with_figures(took, stored=tree_size(place) if place.is_dir() else place.stat().st_size)

    text = script.replace(str(place), "REPOSITORY")
    return Contestant(name, sample, disk.facts.size, text, prepare, missing=lacking)


def unchanged(bench: Bench) -> Row:
    """The same disk again, without change tracking: all of it is read and hashed."""
    disk = bench.disk("files")
    with bench.scratch() as scratch:
        place = scratch / "rekindle"
        first = _ours(disk, scratch)
        first.prepare()
        first.sample()
        words = ("capture", place, "--host", HOST, "--secret-file", disk.secret, disk.raw)
        warm_disk = partial(warm, disk.raw)
        line = quote("b3sum", "--num-threads", str(CORES), disk.raw)
        contestants = [
            Contestant(UNCHANGED, partial(command, *words), disk.facts.size, "rekindle capture ... again", warm_disk),
            Contestant(
                B3SUM, partial(shell, line), disk.facts.size, f"b3sum --num-threads {CORES} disk.raw", warm_disk,
                missing=missing("b3sum"),
            ),
        ]  # fmt: skip
        found = alternate(contestants, bench.samples, bench.say)
    forget(disk.folder)
    row = Row(name="unchanged", title="Capture, nothing changed", data=describe(disk), contestants=found)
    row.goals = [goal("of the rate of b3sum with the same threads", 0.8, found[1].seconds / found[0].seconds)]
    row.notes = ["Our whole command, with unlocking the repository and looking at the disk, against b3sum alone."]
    return row
