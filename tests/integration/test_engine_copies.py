"""A restore stops for damaged content, and goes on with another copy of the repository, or with zeros and a list."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from recovery.engine.api import Access, Report
from recovery.engine.engine import Engine
from recovery.errors import NotFoundError, UsageError
from recovery.events import Message, RunFinished
from recovery.plan.model import Choices
from tests.support.copies import CHUNK, Copies
from tests.support.repositories import PASSPHRASE, new_repository

pytestmark = pytest.mark.faults


@pytest.fixture
def copies(tmp_path: Path) -> Copies:
    return Copies(tmp_path)


@pytest.fixture
def engine(copies: Copies, tmp_path: Path) -> Iterator[Engine]:
    found = Engine(log_directory=tmp_path / "log", look_inside=False)
    found.connect(Access(path=str(copies.folder / "one"), secret=PASSPHRASE))
    yield found
    found.close()


def restore(engine: Engine, target: Path, *, skip_damaged: bool = False) -> tuple[str, Report]:
    """The kind of the error it ended with (empty: none), and the report."""
    choices = Choices(
        host="hv1", point="latest", targets={"disk1": str(target)}, adapt=False, skip_damaged=skip_damaged
    )
    plan = engine.plan(choices)
    engine.start(plan.id, {a.target.id: a.target.confirmation for a in plan.assignments})
    last = list(engine.events())[-1]
    assert isinstance(last, RunFinished)
    report = engine.state().report
    assert report is not None
    return (last.error.kind if last.error else ""), report


def test_it_goes_on_with_the_copy_that_was_added(copies: Copies, engine: Engine, tmp_path: Path) -> None:
    copies.flip("one", 2)
    target = tmp_path / "out.img"
    kind, report = restore(engine, target)
    assert kind == "IntegrityError"
    assert report.incomplete == (str(target),)
    assert "--also" not in report.go_on
    where = engine.add_copy(Access(path=str(copies.folder / "two")))
    assert where == (str(copies.folder / "one"), str(copies.folder / "two"))
    kind, report = restore(engine, target)
    assert (kind, report.damaged) == ("", False)
    assert target.read_bytes() == copies.data
    assert any("two" in event.text for event in engine.events() if isinstance(event, Message))


def test_a_third_copy_stands_beside_the_others(copies: Copies, engine: Engine, tmp_path: Path) -> None:
    for name, index in (("one", 2), ("two", 2), ("two", 9)):
        copies.flip(name, index)
    three = copies.folder / "three"
    three.mkdir()
    for folder in (copies.folder / "one").iterdir():
        (three / folder.name).symlink_to(copies.folder / "one" / folder.name)
    engine.add_copy(Access(path=str(copies.folder / "two")))
    assert engine.add_copy(Access(path=str(three)))[1:] == (str(copies.folder / "two"), str(three))
    kind, report = restore(engine, tmp_path / "out.img")
    assert kind == "IntegrityError"
    words = report.go_on.split()
    assert [words[n + 1] for n, word in enumerate(words) if word == "--also"] == [
        str(copies.folder / "two"), str(three),
    ]  # fmt: skip


def test_what_no_copy_has_becomes_zeros_only_when_asked_for(copies: Copies, engine: Engine, tmp_path: Path) -> None:
    for name in ("one", "two"):
        copies.flip(name, 2)
    engine.add_copy(Access(path=str(copies.folder / "two")))
    target = tmp_path / "out.img"
    assert restore(engine, target)[0] == "IntegrityError"
    kind, report = restore(engine, target, skip_damaged=True)
    assert (kind, report.damaged) == ("", True)
    assert [(damage.offset, damage.length) for damage in report.disks[0].damaged] == [(2 * CHUNK, CHUNK)]
    assert target.read_bytes() == copies.wipe(2)


def test_what_is_no_other_copy_is_refused(copies: Copies, engine: Engine, tmp_path: Path) -> None:
    new_repository(copies.folder / "other")
    for folder, error, words in (
        ("one", UsageError, "is asked already"),
        ("other", UsageError, "is not a copy of the repository"),
        ("nowhere", NotFoundError, None),
    ):
        with pytest.raises(error, match=words):
            engine.add_copy(Access(path=str(copies.folder / folder)))
    assert restore(engine, tmp_path / "out.img")[0] == ""
