"""Extents packed and unpacked: the same bytes of the disk, and nothing beyond its end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recovery.errors import IntegrityError
from recovery.format.extents import UNIT, Run, decode_runs, encode_runs, join_runs

DISK = 1 << 40


@st.composite
def runs(draw: st.DrawFn) -> list[Run]:
    """Runs in sectors that do not overlap in the file, in any order on the disk."""
    at, made = 0, []
    for _ in range(draw(st.integers(0, 30))):
        at += draw(st.integers(0, 1 << 20))
        length = draw(st.integers(1, 1 << 16))
        made.append(Run(at * UNIT, draw(st.integers(0, DISK // UNIT - length)) * UNIT, length * UNIT))
        at += length
    return draw(st.permutations(made))


def sectors(found: list[Run]) -> dict[int, int]:
    return {run.at + n * UNIT: run.offset + n * UNIT for run in found for n in range(0, run.length // UNIT, 997)}


@given(runs())
def test_what_was_packed_comes_back(given_runs: list[Run]) -> None:
    found = decode_runs(encode_runs(given_runs), DISK, DISK)
    assert found == join_runs(given_runs)
    assert sum(run.length for run in found) == sum(run.length for run in given_runs)
    for run in given_runs:
        (holder,) = [one for one in found if one.at <= run.at < one.at + one.length]
        assert holder.offset + run.at - holder.at == run.offset


@given(runs(), st.integers(0, 1 << 32))
def test_the_end_of_a_file_cuts_its_last_extent(given_runs: list[Run], size: int) -> None:
    for run in decode_runs(encode_runs(given_runs), size, DISK):
        assert run.length > 0 and run.at + run.length <= size


@given(st.binary(max_size=60))
def test_any_bytes_give_runs_of_the_disk_or_are_refused(data: bytes) -> None:
    try:
        found = decode_runs(data, DISK, 1 << 24)
    except IntegrityError:
        return
    end = 0
    for run in found:
        assert run.at >= end and run.length > 0
        assert run.offset >= 0 and run.offset + run.length <= 1 << 24
        end = run.at + run.length


def test_neighbours_are_one_and_small() -> None:
    many = [Run(n * 4096, 1 << 30 | n * 4096, 4096) for n in range(10_000)]
    assert len(encode_runs(many)) < 12
    apart = [Run(n * 4096, (1 << 30) + n * 8192, 4096) for n in range(10_000)]
    assert len(encode_runs(apart)) < 3.1 * 10_000


@pytest.mark.parametrize("bad", [[Run(1, 0, 512)], [Run(0, 0, 0)], [Run(0, 0, 1024), Run(512, 4096, 512)]])
def test_what_is_no_extent_is_not_packed(bad: list[Run]) -> None:
    with pytest.raises(ValueError):
        encode_runs(bad)


def test_truncated_lists_are_refused() -> None:
    packed = encode_runs([Run(0, 1 << 30, 1 << 20), Run(1 << 21, 1 << 31, 512)])
    assert len(decode_runs(packed, DISK, DISK)) == 2
    for length in range(1, len(packed)):
        try:
            assert len(decode_runs(packed[:length], DISK, DISK)) < 2
        except IntegrityError:
            continue
