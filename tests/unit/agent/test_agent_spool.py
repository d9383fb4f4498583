"""The spool: in order, bounded, whole, and still there for the next agent."""

from __future__ import annotations

from pathlib import Path

import pytest

from recovery.agent.spool import Spool
from recovery.errors import IntegrityError, SpaceError

NAMES = [f"journals/hv1/{number:064x}" for number in range(9)]


def drain(spool: Spool) -> list[tuple[str, bytes]]:
    found = []
    while (waiting := spool.first(0)) is not None:
        found.append((waiting.name, waiting.data))
        spool.done(waiting.number)
    return found


def test_objects_come_out_as_they_went_in_also_for_the_next_agent(tmp_path: Path) -> None:
    objects = [(name, bytes([number]) * 100 + b"\n\n") for number, name in enumerate(NAMES)]
    spool = Spool(tmp_path / "s", 10_000)
    spool.add(objects[:2])
    spool.add(objects[2:5])
    (tmp_path / "s" / "000000000099.writing").write_bytes(b"cut off")
    again = Spool(tmp_path / "s", 10_000)
    again.add(objects[5:])
    assert (again.count, again.used) == (9, sum(len(name) + 1 + len(data) for name, data in objects))
    assert drain(again) == objects
    assert (again.used, list((tmp_path / "s").iterdir())) == (0, [])
    assert (tmp_path / "s").stat().st_mode & 0o777 == 0o700


def test_a_point_that_does_not_fit_is_not_there_at_all(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 1000)
    spool.add([(NAMES[0], bytes(500))])
    with pytest.raises(SpaceError, match="spool is full"):
        spool.add([(NAMES[1], bytes(200)), (NAMES[2], bytes(200))])
    assert [name for name, _ in drain(spool)] == NAMES[:1]
    spool.add([(NAMES[1], bytes(200)), (NAMES[2], bytes(200))])
    assert [name for name, _ in drain(spool)] == NAMES[1:3]


def test_a_disk_that_is_full_leaves_nothing_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(tmp_path, 10_000)
    real = Spool._write
    written: list[int] = []

    def failing(self: Spool, number: int, data: bytes) -> None:
        if written:
            raise OSError(28, "No space left on device")
        written.append(number)
        real(self, number, data)

    monkeypatch.setattr(Spool, "_write", failing)
    with pytest.raises(SpaceError, match="No space left"):
        spool.add([(NAMES[0], b"a"), (NAMES[1], b"b")])
    assert spool.count == 0 and not list(tmp_path.glob("*.object"))


def test_what_is_damaged_is_told_and_can_be_thrown_away(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 1000)
    spool.add([(NAMES[0], b"a"), (NAMES[1], b"b")])
    (tmp_path / "000000000001.object").write_bytes(b"rubbish without a name")
    with pytest.raises(IntegrityError):
        spool.first(0)
    assert spool.clear() == 2
    assert spool.first(0) is None and not list(tmp_path.iterdir())
