"""A target on which the captured disk lies otherwise: every byte in its new place, no other byte touched."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from recovery.restore.buffers import page_buffer
from recovery.restore.placed import Extent, Outside, PlacedTarget, clip
from recovery.restore.ranges import ZeroRange
from tests.support.examples import examples

CHUNK = 16384
DISK = 20 * CHUNK
OLD = 0xA5


@st.composite
def layouts(draw: st.DrawFn) -> list[Extent]:
    """Parts of a disk in order, on a target in the same order, at odd places too."""
    cuts = sorted(draw(st.lists(st.integers(0, DISK // 512), min_size=2, max_size=8, unique=True)))
    found, place = [], 0
    for start, end in zip(cuts[::2], cuts[1::2], strict=False):
        place += draw(st.integers(0, 40)) * 512
        found.append(Extent(start * 512, (end - start) * 512, place))
        place += (end - start) * 512
    return found


@settings(max_examples=examples(40))
@given(layouts(), st.integers(0, 2**32))
def test_every_byte_in_its_place(extents: list[Extent], seed: int) -> None:
    content = random.Random(seed).randbytes(DISK)
    size = max(extent.target + extent.length for extent in extents) + CHUNK
    outside = Outside(extents, CHUNK, DISK // CHUNK)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "target"
        path.write_bytes(bytes([OLD]) * size)
        with PlacedTarget(str(path), extents) as target:
            for index in random.Random(seed).sample(range(DISK // CHUNK), DISK // CHUNK):
                if index in outside:
                    continue
                buffer = page_buffer(CHUNK)
                buffer[:] = content[index * CHUNK : (index + 1) * CHUNK]
                target.write(index * CHUNK, buffer)
            for index in range(DISK // CHUNK):
                if index not in outside:
                    buffer = page_buffer(CHUNK)
                    target.read(index * CHUNK, buffer)
                    assert bytes(buffer) == content[index * CHUNK : (index + 1) * CHUNK]
        expected = bytearray(bytes([OLD]) * size)
        for extent in extents:
            expected[extent.target : extent.target + extent.length] = content[extent.source :][: extent.length]
        assert path.read_bytes() == expected


@given(layouts(), st.integers(0, DISK), st.integers(0, DISK))
def test_zeros_only_in_places(extents: list[Extent], offset: int, length: int) -> None:
    size = max(extent.target + extent.length for extent in extents) + CHUNK
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "target"
        path.write_bytes(bytes([OLD]) * size)
        with PlacedTarget(str(path), extents) as target:
            target.zero(offset, length)
        expected = bytearray(bytes([OLD]) * size)
        for extent in extents:
            start, end = max(offset, extent.source), min(offset + length, extent.source + extent.length)
            if start < end:
                at = extent.target + start - extent.source
                expected[at : at + end - start] = bytes(end - start)
        assert path.read_bytes() == expected


@given(layouts())
def test_which_chunks_have_no_place(extents: list[Extent]) -> None:
    outside = Outside(extents, CHUNK, DISK // CHUNK)
    touched = {at // CHUNK for e in extents for at in range(e.source, e.source + e.length, 512)}
    assert set(outside) == set(range(DISK // CHUNK)) - touched
    assert set(outside.and_also({0, 3})) == set(outside) | {0, 3}
    whole = clip(iter([ZeroRange(0, DISK)]), outside.runs, CHUNK)
    assert sum(zero.length for zero in whole) == len(touched) * CHUNK
