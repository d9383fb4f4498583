"""Which ranges are read: every chunk once, neighbours together, nothing too long."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from recovery.format.chunkmap import ChunkMap, MapBuilder, MapEntry
from recovery.restore.ranges import (
    MAX_GAP,
    MAX_READ,
    NO_GAP,
    Batch,
    Frame,
    ReadRange,
    ZeroRange,
    batch_up,
    interleave,
    plan_reads,
    plan_zeros,
    suited_gap,
)
from tests.support.examples import examples

MIB = 2**20
PACKS = [bytes([n]) * 32 for n in range(4)]


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 60), st.booleans()) | st.none(), min_size=1, max_size=120),
    st.sets(st.integers(0, 119), max_size=5),
    st.integers(0, 3_000_000),
)
@settings(max_examples=examples(150), deadline=None)
def test_reads_and_zeros_cover_the_disk_exactly_once(
    chunks: list[tuple[int, int, bool] | None], without: set[int], max_gap: int
) -> None:
    builder = MapBuilder(len(chunks) * MIB, MIB)
    for index, chunk in enumerate(chunks):
        if chunk is None:
            builder.set_zero(index)
        else:
            pack, slot, _ = chunk
            builder.set_blob(index, bytes([pack, slot]) * 16, PACKS[pack], 16 + slot * 700_000, 700_000)
    map = builder.finish()
    seen: dict[int, bytes] = {}
    frames = set()
    for work in plan_reads(map, without=without, max_gap=max_gap, max_read=4 * MIB):
        assert work.length <= 4 * MIB
        assert work.frames == sorted(work.frames, key=lambda f: f.offset)
        assert work.offset == work.frames[0].offset
        assert work.offset + work.length == work.frames[-1].offset + work.frames[-1].length
        for left, right in zip(work.frames, work.frames[1:], strict=False):
            assert right.offset - (left.offset + left.length) <= max_gap
        for frame in work.frames:
            assert (work.pack, frame.offset) not in frames
            frames.add((work.pack, frame.offset))
            for index in frame.indexes:
                assert map.get(index) == MapEntry(frame.id, work.pack, frame.offset, frame.length)
                assert index not in seen
                seen[index] = frame.id
    zeros = [
        i
        for z in plan_zeros(map, without=without, step=3 * MIB)
        for i in range(z.offset // MIB, (z.offset + z.length) // MIB)
    ]
    assert len(zeros) == len(set(zeros))
    assert set(seen) | set(zeros) == set(range(len(chunks))) - without
    assert not set(seen) & set(zeros)


def test_a_full_disk_written_in_order_is_read_in_big_pieces() -> None:
    builder = MapBuilder(256 * MIB, MIB)
    for index in range(256):
        builder.set_blob(index, bytes([index]) * 32, PACKS[index // 64], 16 + index % 64 * 400_000, 400_000)
    reads = list(plan_reads(builder.finish()))
    assert len(reads) == 8
    assert min(work.length for work in reads) > 8 * MIB


@given(st.integers(0, 30), st.integers(0, 30))
def test_zeros_are_mixed_evenly_into_the_reads(reads: int, zeros: int) -> None:
    frame = Frame(bytes(32), 0, 1, (1, 2))
    first = [Batch((ReadRange(bytes(32), number, 1, [frame]),), 1) for number in range(reads)]
    second = [ZeroRange(number, 1) for number in range(zeros)]
    mixed = list(interleave(first, 2 * reads, second))
    assert [work for work in mixed if isinstance(work, Batch)] == first
    assert [work for work in mixed if isinstance(work, ZeroRange)] == second
    half = mixed[: len(mixed) // 2]
    if reads:
        assert abs(sum(isinstance(work, ZeroRange) for work in half) - zeros / 2) <= 1 + zeros / reads


@given(st.lists(st.integers(1, 9_000_000), max_size=60), st.integers(1, 20))
def test_batches_have_every_read_once_in_order_and_are_no_longer_than_a_read(lengths: list[int], most: int) -> None:
    reads = [ReadRange(bytes(32), number, length, []) for number, length in enumerate(lengths)]
    batches = list(batch_up(reads, gathered=True, most=most))
    assert [read for batch in batches for read in batch.reads] == reads
    assert all(batch.length == sum(read.length for read in batch.reads) <= MAX_READ for batch in batches)
    assert all(len(batch.reads) <= most for batch in batches)
    for left, right in zip(batches, batches[1:], strict=False):
        assert left.length + right.reads[0].length > MAX_READ or len(left.reads) == most
    assert [batch.reads for batch in batch_up(reads, gathered=False)] == [(read,) for read in reads]


def old_disk(chunks: int = 8192, points: int = 300, share: float = 0.01, seed: int = 7) -> ChunkMap:
    """A disk of 1 MiB chunks, of which each point stored a random share anew: frames of 0.2 to 0.6 MiB."""
    rng, builder, packs, at = random.Random(seed), MapBuilder(chunks * MIB, MIB), 0, 0  # noqa: S311
    for point in range(points + 1):
        packs, at = packs + 1, 16
        for index in sorted(rng.sample(range(chunks), int(chunks * share))) if point else range(chunks):
            length = rng.randrange(200_000, 600_000)
            if at + length > 64 * MIB:
                packs, at = packs + 1, 16
            builder.set_blob(index, rng.randbytes(32), packs.to_bytes(32, "big"), at, length)
            at += length
    return builder.finish()


def figures(map: ChunkMap, *, gathered: bool, gap: int | None = None) -> tuple[float, float]:
    """Bytes a request, and the share that is read for nothing."""
    gap = suited_gap(map, gathered=gathered) if gap is None else gap
    batches = list(batch_up(plan_reads(map, max_gap=gap), gathered=gathered))
    read = sum(batch.length for batch in batches)
    needed = sum(frame.length for batch in batches for work in batch.reads for frame in work.frames)
    return read / len(batches), read / needed - 1


def test_an_old_repository_needs_few_requests_to_a_store_that_gathers() -> None:
    each, over = figures(old_disk(), gathered=True)
    assert each >= 6 * MIB
    assert over <= 0.15


def test_where_every_read_is_a_request_the_gaps_are_those_that_save_most() -> None:
    map = old_disk()
    each, over = figures(map, gathered=False)
    assert over <= 0.15
    narrow, _ = figures(map, gathered=False, gap=NO_GAP)
    _, wide = figures(map, gathered=False, gap=MAX_GAP)
    assert each > 1.3 * narrow  # better than none
    assert wide > 0.2  # what it was


def test_a_fresh_disk_has_no_gaps_to_save() -> None:
    map = old_disk(points=0)
    assert suited_gap(map, gathered=False) == MAX_GAP
    each, over = figures(map, gathered=False)
    assert each > 12 * MIB
    assert over == 0
    assert suited_gap(MapBuilder(0, MIB).finish(), gathered=False) == MAX_GAP
