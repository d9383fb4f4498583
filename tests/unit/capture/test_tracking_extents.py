"""Sets of byte ranges: they behave as sets of bytes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recovery.capture.tracking.extents import Extents

SIZE = 200
pairs = st.lists(st.tuples(st.integers(0, SIZE), st.integers(0, 40)), max_size=12)


def members(extents: Extents) -> set[int]:
    return {byte for offset, length in extents for byte in range(offset, offset + length)}


def of(ranges: list[tuple[int, int]]) -> set[int]:
    return {byte for offset, length in ranges for byte in range(offset, offset + length)}


@settings(deadline=None)
@given(pairs)
def test_ranges_are_sorted_disjoint_and_never_touch(ranges: list[tuple[int, int]]) -> None:
    extents = Extents(ranges)
    assert members(extents) == of(ranges)
    assert extents.bytes == len(of(ranges))
    flat = [edge for offset, length in extents for edge in (offset, offset + length)]
    assert flat == sorted(set(flat))


@settings(deadline=None)
@given(pairs, pairs)
def test_set_operations(one: list[tuple[int, int]], other: list[tuple[int, int]]) -> None:
    a, b = Extents(one), Extents(other)
    assert members(a.union(b)) == of(one) | of(other)
    assert members(a.minus(b)) == of(one) - of(other)
    assert members(a.within(b)) == of(one) & of(other)
    assert a.union(b) == b.union(a)
    assert all((byte in a) == (byte in of(one)) for byte in range(SIZE + 50))


@settings(deadline=None)
@given(pairs, st.integers(1, 64), st.integers(1, SIZE + 50))
def test_blocks(ranges: list[tuple[int, int]], block: int, size: int) -> None:
    inside = Extents(ranges).within(Extents.whole(size))
    numbers = sorted({byte // block for byte in members(inside)})
    assert list(inside.blocks(block)) == numbers
    want = {byte for number in numbers for byte in range(number * block, min(size, (number + 1) * block))}
    assert members(inside.aligned(block, size)) == want


@settings(deadline=None)
@given(pairs, st.integers(1, 30))
def test_pieces(ranges: list[tuple[int, int]], most: int) -> None:
    pieces = list(Extents(ranges).pieces(most))
    assert all(0 < length <= most for _, length in pieces)
    assert of(pieces) == of(ranges)


def test_negative_ranges_are_refused() -> None:
    for pair in ((-1, 5), (5, -1)):
        with pytest.raises(ValueError, match="negative"):
            Extents([pair])
