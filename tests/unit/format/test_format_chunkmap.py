"""Chunk maps: a dictionary is the model; full maps, deltas and chains of them give the same map and the same root."""

from __future__ import annotations

import os

import blake3
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recovery.errors import IntegrityError
from recovery.format.chunkmap import PAGE, UNALLOCATED, ZERO, ChunkMap, Kind, MapBuilder, MapEntry
from recovery.format.keys import RepositoryKeys
from recovery.format.mapcodec import MAX_DEPTH, decode_map, encode_map, map_header
from tests.support.examples import examples

KEYS = RepositoryKeys(bytes(range(32)), "ab" * 16)
MIB = 2**20
PACKS = [blake3.blake3(bytes([n])).digest() for n in range(5)]


def entry(seed: int) -> MapEntry:
    return MapEntry(blake3.blake3(seed.to_bytes(8, "little")).digest(), PACKS[seed % 5], 16 + seed * 7, 100 + seed)


what = st.one_of(st.just(ZERO), st.just(UNALLOCATED), st.integers(0, 10_000).map(entry))
changes = st.dictionaries(st.integers(0, PAGE + 500), what, max_size=60)


def build(
    values: dict[int, Kind | MapEntry], base: ChunkMap | None = None, size: int = (PAGE + 501) * MIB - 5
) -> ChunkMap:
    builder = MapBuilder(size, MIB, base)
    for index, value in values.items():
        if isinstance(value, MapEntry):
            builder.set_blob(index, *value)
        else:
            builder.set_zero(index, allocated=value == ZERO)
    return builder.finish()


def content(map: ChunkMap) -> dict[int, Kind | MapEntry]:
    found: dict[int, Kind | MapEntry] = dict(map.blobs())
    for start, count, allocated in map.zero_runs():
        if allocated:
            found.update((index, ZERO) for index in range(start, start + count))
    return found


@given(changes, st.lists(changes, max_size=3))
@settings(max_examples=examples(40), deadline=None)
def test_maps_and_chains_of_deltas_keep_their_content(
    first: dict[int, Kind | MapEntry], later: list[dict[int, Kind | MapEntry]]
) -> None:
    model: dict[int, Kind | MapEntry] = {}
    parent: tuple[str, ChunkMap] | None = None
    for step in [first, *later]:
        model.update(step)
        map = build(step, parent[1] if parent else None)
        data = encode_map(map, KEYS, parent=parent)
        header = map_header(data)
        assert header.kind == ("delta" if parent else "full")
        again = decode_map(data, KEYS, parent[1] if parent else None)
        expected = {index: value for index, value in model.items() if value != UNALLOCATED}
        assert content(again) == content(map) == expected
        assert all(again.get(index) == value for index, value in model.items())
        assert again.root() == map.root() == build(model).root()
        assert again.used_packs() == {v.pack for v in expected.values() if isinstance(v, MapEntry)}
        parent = (blake3.blake3(data).hexdigest(), again)


def test_the_root_depends_on_content_and_geometry_only() -> None:
    here = build({3: entry(1)})
    moved = build({3: entry(1)._replace(pack=PACKS[4], offset=999)})
    assert here.root() == moved.root()
    assert build({3: ZERO}).root() == build({}).root() == build({5: UNALLOCATED}).root()
    assert here.root() != build({4: entry(1)}).root()
    assert build({}, size=MIB).root() != build({}, size=MIB - 512).root()


def test_zero_runs_are_merged_over_pages_and_cover_all_that_is_not_stored() -> None:
    map = build({PAGE - 1: entry(1), PAGE + 3: ZERO, PAGE + 4: ZERO})
    assert list(map.zero_runs()) == [
        (0, PAGE - 1, False),
        (PAGE, 3, False),
        (PAGE + 3, 2, True),
        (PAGE + 5, 496, False),
    ]
    assert list(build({}).zero_runs()) == [(0, PAGE + 501, False)]
    assert map.length(PAGE + 500) == MIB - 5


def test_dead_packs_leave_with_the_next_full_map_and_chains_end() -> None:
    parent: tuple[str, ChunkMap] | None = None
    depths = []
    for number in range(MAX_DEPTH + 2):
        map = build({1: entry(number)}, parent[1] if parent else None)
        data = encode_map(map, KEYS, parent=parent)
        depths.append(map_header(data).depth)
        again = decode_map(data, KEYS, parent[1] if parent and map_header(data).parent else None)
        assert again.get(1) == entry(number)
        parent = (f"{number:064x}", again)
    assert depths == [*range(MAX_DEPTH), 0, 1]
    assert parent is not None and len(parent[1].packs) == 2


def test_a_map_of_full_pages_survives() -> None:
    builder = MapBuilder((PAGE * 2) * MIB, MIB)
    for index in range(PAGE * 2):
        builder.set_blob(index, *entry(index))
    map = builder.finish()
    assert dict(decode_map(encode_map(map, KEYS), KEYS).blobs()) == dict(map.blobs())


@given(st.data())
@settings(max_examples=examples(50), deadline=None)
def test_no_flipped_bit_passes(data: st.DataObject) -> None:
    stored = bytearray(encode_map(build({1: entry(1), 9: ZERO}), KEYS))
    stored[data.draw(st.integers(0, len(stored) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(IntegrityError):
        decode_map(bytes(stored), KEYS)


def test_cut_and_foreign_maps_are_refused() -> None:
    stored = encode_map(build({1: entry(1)}), KEYS)
    for cut in (0, 7, 12, 60, len(stored) - 1):
        with pytest.raises(IntegrityError):
            decode_map(stored[:cut], KEYS)
    with pytest.raises(IntegrityError, match="another repository"):
        decode_map(stored, RepositoryKeys(os.urandom(32), "cd" * 16))
