"""Turns: everybody once in each, the fastest set-up stays, whoever is wrong is out and not hidden."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.bench.measure import Contestant, WrongResult, alternate, children_cpu, fresh, same_content, shell
from tests.bench.model import Sample


def silent(text: str) -> None:
    """Nobody listens."""


def runner(name: str, took: list[str], seconds: float) -> Callable[[], Sample]:
    def sample() -> Sample:
        took.append(name)
        return Sample(seconds=seconds)

    return sample


def test_contestants_take_turns() -> None:
    took: list[str] = []
    made = [Contestant(name, runner(name, took, 1.0)) for name in "ab"]
    found = alternate(made, 3, silent)
    assert took == ["a", "b"] * 3
    assert [len(one.samples) for one in found] == [3, 3]


def test_the_fastest_set_up_stays_and_the_others_are_told() -> None:
    took: list[str] = []
    made = [Contestant("x", runner(how, took, s), command=how) for how, s in (("slow", 9.0), ("fast", 2.0))]
    (found,) = alternate(made, 3, silent)
    assert took == ["slow", "fast", "fast", "fast"]
    assert (found.command, found.seconds, list(found.others)) == ("fast", 2.0, ["slow"])


def test_a_wrong_result_has_no_time(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.write_bytes(b"wrong")
    made = Contestant("x", lambda: Sample(seconds=0.001), check=same_content(out, 5, "00" * 32))
    (found,) = alternate([made], 2, silent)
    assert found.samples == []
    assert "does not hold" in found.error
    with pytest.raises(WrongResult, match="5 bytes instead of 6"):
        same_content(out, 6, "00" * 32)()


def test_what_is_not_installed_is_named() -> None:
    (found,) = alternate([Contestant("x", lambda: Sample(seconds=1), missing=("restic",))], 2, silent)
    assert (found.samples, found.error) == ([], "not installed: restic")


def test_a_program_that_fails_is_out_and_the_others_go_on() -> None:
    made = [Contestant("bad", lambda: shell("echo broken >&2; exit 3")), Contestant("good", lambda: shell("true"))]
    bad, good = alternate(made, 2, silent)
    assert "3" in bad.error
    assert len(good.samples) == 2


def test_a_broken_pipe_is_noticed() -> None:
    (found,) = alternate([Contestant("x", lambda: shell("false | cat"))], 1, silent)
    assert found.error


def test_cpu_seconds_are_those_of_the_program() -> None:
    before = children_cpu()
    sample = shell("i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done")
    assert 0.05 < sample.cpu <= children_cpu() - before


def test_a_fresh_target_has_its_blocks_and_no_old_content(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.write_bytes(b"old")
    fresh(out, 1 << 20)
    assert out.read_bytes() == bytes(1 << 20)
    assert out.stat().st_blocks * 512 >= 1 << 20


@pytest.mark.parametrize(("count", "turns"), [(2, 1), (3, 3)])
def test_whoever_is_very_slow_has_one_turn_of_two(count: int, turns: int) -> None:
    took: list[str] = []
    made = [Contestant("slow", runner("slow", took, 50.0)), Contestant("fast", runner("fast", took, 1.0))]
    alternate(made, count, silent)
    assert (took.count("slow"), took.count("fast")) == (turns, count)
