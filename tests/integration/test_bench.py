"""The bench works: a row and the limit on little data, one turn. Its figures say nothing here and nobody looks."""

from __future__ import annotations

import random
import threading
from pathlib import Path

import pytest

from recovery.events import ignore
from recovery.repository.repository import Repository
from recovery.repository.store import open_local
from recovery.restore.disk import RestoreOptions, restore_disk
from tests.bench import document, history, place
from tests.bench.bench import Bench
from tests.bench.data import HOST, PASSPHRASE
from tests.bench.measure import digest_of
from tests.bench.ours import worker
from tests.bench.rows_partial import DELTA, delta
from tests.bench.worker import Source, Task


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(12):
        (source / f"random-{number}").write_bytes(random.Random(number).randbytes(2**20))
        (source / f"text-{number}").write_bytes(b"the same words again and again\n" * 20_000)
    return Bench(tmp_path / "data", samples=1, say=lambda text: None, smoke=True, source=source)


@pytest.mark.slow
def test_a_row_has_samples_checked_results_and_goals_with_figures(bench: Bench, tmp_path: Path) -> None:
    run = place.begin([], tmp_path)
    run.rows = [row := delta(bench)]
    assert [goal.what for goal in row.goals if goal.measured is None] == []
    for one in row.contestants:
        assert (one.error, one.checked, len(one.samples)) == ("", True, 1), one
    (changed,) = (one for one in row.contestants if one.name == DELTA)
    assert 0 < changed.samples[0].figures["changed"] <= changed.samples[0].figures["transferred"]
    saved = tmp_path / "run.json"
    saved.write_bytes(document.encode(run))
    assert document.table(document.load(saved)) == document.table(run)
    assert "NOT MET" in document.table(run) or "| met |" in document.table(run)


def test_the_newest_of_many_points_has_its_frames_among_holes(tmp_path: Path) -> None:
    facts = history.build(tmp_path / "repository", points=40, size=64 * 2**20)
    repository = Repository.open(open_local(tmp_path / "repository"), PASSPHRASE)
    assert len(repository.points(HOST)) == 40
    report = restore_disk(
        repository, repository.point(HOST, "latest"), "disk1", str(tmp_path / "out"), ignore, threading.Event(),
        RestoreOptions(verify_all=True),
    )  # fmt: skip
    assert report.root_matched
    assert report.transferred >= facts.needed
    assert digest_of(tmp_path / "out", facts.size) == facts.digest
    assert facts.packs > 3


def test_prepared_data_is_made_once_and_gives_the_limit(bench: Bench) -> None:
    disk = bench.disk("files")
    here = Source(location=str(disk.repository(bench.say)), secret=str(disk.secret))
    sample = worker("limit", Task(source=here, budget=2**30))
    assert sample.seconds > 0
    assert sample.figures["frame_bytes"] > 12 * 2**20
    assert sample.figures["part"] == 1
    before = disk.raw.stat().st_mtime_ns
    again = Bench(bench.folder, samples=1, say=bench.say, smoke=True, source=bench.source).disk("files")
    assert (again.facts, again.raw.stat().st_mtime_ns) == (disk.facts, before)
