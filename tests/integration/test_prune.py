"""Pruning of real repositories: what is kept is whole, whenever it is killed and whatever is captured meanwhile."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from recovery.capture.pipeline import capture
from recovery.capture.request import CaptureRequest
from recovery.errors import BusyError, IntegrityError
from recovery.events import ignore
from recovery.format.point import Point, Retention
from recovery.repository.check import check
from recovery.repository.condemned import condemned
from recovery.repository.deadshare import DeadShare, dead_share
from recovery.repository.distrust import distrust, distrusted
from recovery.repository.index import SqliteIndex
from recovery.repository.location import open_index
from recovery.repository.prune import PruneReport, prune
from recovery.repository.references import References
from recovery.repository.store import DirectoryStore, open_local
from recovery.units import MIB
from tests.support.captures import hooked, packs, read_back, take
from tests.support.history import DAY, HOST, History, listing, stand_alone
from tests.support.processes import ROOT, environment
from tests.support.repositories import commit, new_repository, store_disk
from tests.support.server import ServerRig

#: ``REKINDLE_KILLS=200`` for more moments, ``REKINDLE_SEED`` for others.
_KILLS = int(os.environ.get("REKINDLE_KILLS", "6"))
_SEED = int(os.environ.get("REKINDLE_SEED", "20"))


def test_points_go_now_and_packs_when_their_grace_is_over(tmp_path: Path) -> None:
    history = History(tmp_path / "r")
    before, ids = listing(tmp_path / "r"), list(history.content)
    planned = history.prune(4 * DAY, dry_run=True)
    assert listing(tmp_path / "r") == before, "a dry run writes nothing"
    first = history.prune(4 * DAY)
    assert first.hosts == planned.hosts and (first.maps, first.journals) == (planned.maps, planned.journals)
    # Of two days the keyframes, the newest point of all, and its keyframe is one of them.
    assert history.verify() == [ids[9], ids[12], ids[14]]
    assert first.journals.count == 8 and first.points == 12
    assert first.packs.count == 0 and first.condemned.count > 0
    marked = condemned(history.store)
    distrust(history.store, [next(iter(marked)).hex()])  # damaged too
    # Nobody builds on them from now on.
    index = SqliteIndex(":memory:")
    index.refresh(history.store)
    assert index.counts()[0] == len(packs(history.repository)) - len(marked)
    # The same later: nothing yet, then all of them.
    assert history.prune(DAY, grace=DAY * 3).packs.count == 0
    last = history.prune(8 * DAY)
    assert last.packs == first.condemned and not condemned(history.store) and not distrusted(history.store)
    assert history.verify() == [ids[9], ids[12], ids[14]]
    assert not check(history.repository).spare
    again = history.prune(20 * DAY)
    assert (again.points, again.packs.count, again.maps.count, again.condemned.count) == (0, 0, 0, 0)


def test_the_dead_share_is_that_of_partly_live_packs(tmp_path: Path) -> None:
    repository = new_repository(tmp_path / "r")
    data = random.Random(4).randbytes(MIB)
    first = store_disk(repository, data, frames_per_pack=4)
    commit(repository, HOST, {"disk1": first}, created=time.time() - 9 * DAY)
    assert dead_share(repository) == DeadShare(packs=1, partly=0, stored=dead_share(repository).stored, dead=0)
    # A quarter of the pack stays in use, by a map that does not build on the one before.
    second = store_disk(repository, data[: MIB // 4] + bytes(MIB - MIB // 4), parent=first)
    second = stand_alone(repository, second[1])
    kept = commit(repository, HOST, {"disk1": second})
    assert isinstance(repository.store, DirectoryStore)
    report = prune(repository.store, {HOST: Retention(minutes=1)}, grace=DAY, now=time.time() + 2 * DAY)
    assert report.maps.count == 2 and report.kept.count == 1
    assert [point.id for point in repository.points(HOST)] == [kept.id]
    share = dead_share(repository)
    assert (share.packs, share.partly) == (1, 1)
    assert share.share == pytest.approx(0.75, abs=0.001)


def _image(folder: Path, data: bytes) -> Path:
    path = folder / "disk.img"
    path.write_bytes(data)
    return path


def test_with_keys_packs_that_only_parents_of_a_map_name_go_too(tmp_path: Path) -> None:
    history = History(tmp_path / "r", deltas=4)
    plain = history.prune(4 * DAY, dry_run=True, exact=False)
    exact = history.prune(4 * DAY)
    assert 0 < exact.condemned.count > plain.condemned.count
    assert history.prune(8 * DAY).packs == exact.condemned
    assert len(history.verify()) == 3
    # Captures go on, also through a server: all that the newest map and its parents name is there.
    newest = history.repository.point(HOST, "latest")
    needed = References(history.store.root)
    needed.add(newest.header)
    assert needed.packs <= set(packs(history.repository))


def test_what_cannot_be_read_stops_it_before_the_first_removal(tmp_path: Path) -> None:
    for name, words in (("points", "cannot be trusted"), ("maps", "cannot be told"), ("journals", "cannot be told")):
        history = History(tmp_path / name, days=2)
        newest = history.repository.point(HOST, "latest")
        victim = {
            "points": next((tmp_path / name / "points" / HOST).iterdir()),
            "maps": tmp_path / name / "maps" / newest.header.maps[0].map,
            "journals": tmp_path / name / "journals" / HOST / newest.header.journals[0].journal,
        }[name]
        victim.chmod(0o600)
        victim.write_bytes(b"damaged" * 100)
        before = listing(tmp_path / name)
        with pytest.raises(IntegrityError, match=words):
            history.prune(9 * DAY)
        assert listing(tmp_path / name) == before


KILLER = """
import os, random, signal, sys, time
from pathlib import Path
from recovery.format.chunkmap import ChunkMap
from recovery.format.mapcodec import encode_map
from recovery.format.point import Retention
from recovery.repository.prune import prune
from recovery.repository.store import open_local
left = int(sys.argv[2])
def counted(real):
    def call(*words, **more):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*words, **more)
    return call
Path.unlink, Path.touch, os.fsync = counted(Path.unlink), counted(Path.touch), counted(os.fsync)
now = time.time() + float(sys.argv[3])
prune(open_local(Path(sys.argv[1])), {"hv1": Retention(days=2)}, grace=3 * 86400.0, now=now)
print(left)
"""


@pytest.mark.slow
def test_killed_at_any_moment_it_leaves_whole_points(tmp_path: Path) -> None:
    """SIGKILL before one of its system calls that change something, in the first run or in one that deletes packs."""
    history = History(tmp_path / "r")
    root, dice = history.store.root, random.Random(_SEED)

    def run(calls: int, later: float) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", KILLER, str(root), str(calls), str(later)], env=environment(tmp_path),
            capture_output=True, text=True, check=False, cwd=ROOT,
        )  # fmt: skip

    stages: list[tuple[Path, float, int]] = []
    for number, later in enumerate((4 * DAY, 8 * DAY)):
        before = tmp_path / f"stage{number}"
        shutil.copytree(root, before)
        done = run(10**6, later)
        assert done.returncode == 0, done.stderr
        stages.append((before, later, 10**6 - int(done.stdout)))
    wanted = set(listing(root))
    assert len(wanted) < len(listing(stages[0][0]))
    for number in range(_KILLS):
        before, later, calls = stages[number % 3 == 2]
        shutil.rmtree(root)
        shutil.copytree(before, root)
        done = run(dice.randrange(calls), later)
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert history.verify()[-1] == list(history.content)[-1]
        # The next runs bring it to its end.
        for again in (4 * DAY, 8 * DAY):
            history.prune(again, exact=False)
        assert set(listing(root)) == wanted
        assert len(history.verify()) == 3


def test_a_capture_that_began_before_keeps_what_it_found(tmp_path: Path) -> None:
    """Its chunks lie in a pack that is condemned while it runs; the point that it commits makes it needed again."""
    repository = new_repository(tmp_path / "r")
    old = random.Random(3).randbytes(6 * MIB)
    take(repository, _image(tmp_path, old), host="a")
    take(repository, _image(tmp_path, random.Random(9).randbytes(MIB)), host="a")
    assert isinstance(repository.store, DirectoryStore)
    reports: list[PruneReport] = []

    def meanwhile() -> None:
        # All of its content but the new part was found by now.
        tiers = {"a": Retention(minutes=1)}
        for later in (4 * DAY, 2 * DAY):
            reports.append(prune(open_local(tmp_path / "r"), tiers, grace=3 * DAY, now=time.time() + later))

    new = old[: 5 * MIB] + random.Random(5).randbytes(3 * MIB)
    point = take(hooked(repository, meanwhile), _image(tmp_path, new), host="b")
    assert reports[0].points == 1 and reports[0].condemned.count >= 1 and reports[1].waiting.count >= 1
    assert condemned(repository.store)
    pardon = prune(open_local(tmp_path / "r"), {"a": Retention(minutes=1)}, grace=3 * DAY, now=time.time() + 9 * DAY)
    assert pardon.pardoned >= 1 and pardon.packs.count == 0
    assert read_back(repository, point) == new
    assert check(repository, read_data=True).ok


def test_a_capture_that_outlasts_the_grace_fails_and_succeeds_when_it_is_run_again(tmp_path: Path) -> None:
    repository = new_repository(tmp_path / "r")
    old = random.Random(3).randbytes(6 * MIB)
    take(repository, _image(tmp_path, old), host="a")
    take(repository, _image(tmp_path, random.Random(9).randbytes(MIB)), host="a")

    def meanwhile() -> None:
        for later in (4 * DAY, 9 * DAY):
            prune(open_local(tmp_path / "r"), {"a": Retention(minutes=1)}, grace=3 * DAY, now=time.time() + later)

    new = old[: 5 * MIB] + random.Random(5).randbytes(3 * MIB)
    image = _image(tmp_path, new)
    with pytest.raises(BusyError, match="was pruned while this point was made"):
        take(hooked(repository, meanwhile), image, host="b")
    assert repository.latest("b") is None
    assert read_back(repository, take(repository, image, host="b")) == new
    assert check(repository, read_data=True).ok


@pytest.mark.slow
def test_captures_and_prunes_side_by_side(tmp_path: Path) -> None:
    """Content comes and goes and comes again, so that captures find it in packs that are about to be deleted."""
    repository = new_repository(tmp_path / "r")
    take(repository, _image(tmp_path, random.Random(0).randbytes(MIB)), host="a")
    parts = [random.Random(seed).randbytes(MIB) for seed in range(8)]
    over = threading.Event()
    problems: list[BaseException] = []
    counts = {"packs": 0, "points": 0}

    def keep_pruning() -> None:
        while not over.is_set():
            try:
                # As if every look were a second later than it is: a grace that is much too short, on purpose.
                report = prune(open_local(tmp_path / "r"), {"a": Retention(minutes=1)}, grace=0.5)
                counts["packs"] += report.packs.count
                counts["points"] += report.points
            except BaseException as error:
                problems.append(error)
                return
            over.wait(0.1)

    thread = threading.Thread(target=keep_pruning)
    thread.start()
    dice, committed, refused = random.Random(2), list[tuple[Point, bytes]](), 0
    try:
        for _ in range(25):
            data = b"".join(dice.sample(parts, 4))
            with contextlib.suppress(BusyError):
                committed.append((take(repository, _image(tmp_path, data), host="a"), data))
                continue
            refused += 1
    finally:
        over.set()
        thread.join()
    assert not problems, problems
    assert counts["points"] > 0 and len(committed) >= 5, (counts, refused)
    report = check(repository, read_data=True)
    assert report.ok, report.damages
    left = {summary.id for summary in repository.points("a")}
    for point, data in committed:
        if point.id in left:
            assert read_back(repository, point) == data


def test_beside_a_server_whose_index_does_not_know_yet(tmp_path: Path) -> None:
    """It goes on offering chunks of condemned packs for some minutes: points that come of that make them needed."""
    rig = ServerRig(tmp_path)
    try:
        remote, root = rig.repository("capture", "a", "b"), rig.local.store
        assert isinstance(root, DirectoryStore)

        def capture_there(host: str, data: bytes) -> Point:
            request = CaptureRequest(host=host, disks=(_image(tmp_path, data),))
            return capture(remote, open_index(remote), request, ignore, threading.Event())

        old, new = random.Random(3).randbytes(3 * MIB), random.Random(4).randbytes(MIB)
        capture_there("a", old)
        capture_there("a", new)
        tiers = {"a": Retention(minutes=1)}
        first = prune(open_local(root.root), tiers, grace=3 * DAY, now=time.time() + 4 * DAY)
        assert first.points == 1 and first.condemned.count == 1
        point = capture_there("b", old)
        assert point.body.disks[0].stored == 0, "found in the condemned pack"
        second = prune(open_local(root.root), tiers, grace=3 * DAY, now=time.time() + 9 * DAY)
        assert (second.pardoned, second.packs.count) == (1, 0)
        assert read_back(rig.local, point) == old
        # What the server remembers of maps and points still holds.
        assert read_back(rig.local, capture_there("a", old + new)) == old + new
        assert check(rig.local, read_data=True).ok
    finally:
        rig.close()
