"""Bitmaps of changed blocks: which bit is which range, in either half, for several disks."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recovery.capture.tracking.bitmaps import (
    ELEMENT_BLOCKS,
    ELEMENT_BYTES,
    choose_block_size,
    clear_bits,
    layout,
    read_bits,
)
from recovery.capture.tracking.extents import Extents

TIB = 1 << 40
BLOCK = 4096


@pytest.mark.parametrize(("tib", "block"), [(1, 4096), (2, 4096), (5, 8192), (10, 16384), (20, 32768)])
def test_the_finest_block_that_fits_the_budget(tib: int, block: int) -> None:
    sizes = [tib * TIB // 2, tib * TIB // 2]
    assert choose_block_size(sizes, 176 << 20) == block
    assert layout(sizes, block).elements * ELEMENT_BYTES * 2 <= 176 << 20


@settings(deadline=None)
@given(
    st.integers(0, 1),
    st.sets(st.integers(0, 99_999), max_size=200),
    st.sets(st.integers(0, 1999), max_size=50),
    st.integers(1, BLOCK),
)
def test_marked_bits_are_the_ranges_of_their_disk(half: int, one: set[int], other: set[int], tail: int) -> None:
    # The last block of the first disk is cut.
    sizes = [99_999 * BLOCK + tail, 2000 * BLOCK]
    plan = layout(sizes, BLOCK)
    memory = memoryview(bytearray(2 * plan.elements * ELEMENT_BYTES))
    for disk, blocks in enumerate((one, other)):
        start, _ = plan.place(half, disk)
        for block in blocks:
            memory[start + block // 8] |= 1 << block % 8
    for disk, blocks in enumerate((one, other)):
        want = Extents((block * BLOCK, min(BLOCK, sizes[disk] - block * BLOCK)) for block in blocks)
        assert read_bits(memory, plan, half, disk) == want
        assert not read_bits(memory, plan, 1 - half, disk)
    clear_bits(memory, plan, 1 - half)
    assert bool(read_bits(memory, plan, half, 0)) == bool(one)
    clear_bits(memory, plan, half)
    assert not any(memory)


def test_disks_and_halves_do_not_overlap() -> None:
    sizes = [1, BLOCK * ELEMENT_BLOCKS, BLOCK * ELEMENT_BLOCKS + 1, 17]
    plan = layout(sizes, BLOCK)
    places = sorted(plan.place(half, disk) for half in (0, 1) for disk in range(4))
    assert all(end <= start for (_, end), (start, _) in zip(places, places[1:], strict=False))
    assert places[-1][1] == 2 * plan.elements * ELEMENT_BYTES
