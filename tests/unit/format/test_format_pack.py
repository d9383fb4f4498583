"""Packs: the footer finds every frame; without it a scan does."""

from __future__ import annotations

import os

import blake3
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recovery.errors import IntegrityError
from recovery.format.chunk import MAX_CHUNK_SIZE, OVERHEAD, FrameDecoder, FrameEncoder, chunk_id, encode_frame
from recovery.format.keys import RepositoryKeys
from recovery.format.pack import (
    ENTRY,
    TARGET_SIZE,
    TRAILER_SIZE,
    Pack,
    PackBuilder,
    check_frames,
    pack_buffer,
    read_footer,
    rebuild_footer,
)
from tests.support.examples import examples

KEYS = RepositoryKeys(bytes(range(32)), "ab" * 16)


def make_pack(chunks: list[bytes]) -> Pack:
    builder = PackBuilder()
    for plain in chunks:
        id = chunk_id(KEYS, plain)
        builder.add(id, encode_frame(KEYS, id, plain), len(plain))
    return builder.finish()


@given(st.lists(st.binary(min_size=1, max_size=3000), max_size=20))
@settings(max_examples=examples(30), deadline=None)
def test_footer_and_scan_agree_and_lead_to_every_chunk(chunks: list[bytes]) -> None:
    pack = make_pack(chunks)
    assert pack.name == blake3.blake3(bytes(pack.data)).hexdigest()
    entries = read_footer(bytes(pack.data), len(pack.data))
    assert entries == list(pack.entries) == rebuild_footer(pack.data)
    for plain, entry in zip(chunks, entries, strict=True):
        out = bytearray(entry.plain_length)
        frame = memoryview(pack.data)[entry.offset : entry.offset + entry.length]
        FrameDecoder(KEYS).decode_into(frame, entry.id, memoryview(out))
        assert out == plain


def test_a_damaged_or_cut_footer_is_noticed_and_the_frames_are_found_all_the_same() -> None:
    pack = make_pack([os.urandom(2000) for _ in range(5)])
    data = bytearray(pack.data)
    data[-TRAILER_SIZE - 10] ^= 1
    with pytest.raises(IntegrityError, match="footer is damaged"):
        read_footer(bytes(data), len(data))
    for cut in (1, TRAILER_SIZE, TRAILER_SIZE + 60):
        with pytest.raises(IntegrityError):
            read_footer(bytes(pack.data[:-cut]), len(pack.data) - cut)
    assert rebuild_footer(pack.data[: -TRAILER_SIZE - 60]) == list(pack.entries)


def test_a_frame_cut_short_is_left_out_by_the_scan() -> None:
    pack = make_pack([os.urandom(2000), os.urandom(2000)])
    last = pack.entries[1]
    assert rebuild_footer(pack.data[: last.offset + last.length - 1]) == [pack.entries[0]]


def test_frames_may_be_put_in_their_places_in_any_order() -> None:
    chunks = {chunk_id(KEYS, plain): plain for plain in (os.urandom(2000), bytes(90_000), b"text" * 700)}
    encoder, builder, places = FrameEncoder(KEYS), PackBuilder(), []
    for id, plain in chunks.items():
        payload = encoder.compress(plain)
        places.append((id, payload, builder.reserve(id, payload.frame_length, len(plain))))
    for id, payload, place in reversed(places):
        encoder.seal_into(id, payload, place)
    pack = builder.finish()
    assert rebuild_footer(pack.data) == list(pack.entries)
    for entry in pack.entries:
        out = bytearray(entry.plain_length)
        frame = memoryview(pack.data)[entry.offset : entry.offset + entry.length]
        FrameDecoder(KEYS).decode_into(frame, entry.id, memoryview(out))
        assert out == chunks[entry.id]


def test_a_pack_that_is_not_full_has_room_for_the_largest_frame_and_its_size_is_known() -> None:
    builder = PackBuilder()
    largest = OVERHEAD + MAX_CHUNK_SIZE
    small = TARGET_SIZE - builder.size - ENTRY.size - 1
    builder.reserve(bytes(32), small, 1)
    assert not builder.full
    builder.reserve(b"1" * 32, largest, MAX_CHUNK_SIZE)
    assert builder.full
    with pytest.raises(ValueError, match="no room"):
        builder.reserve(b"2" * 32, largest, MAX_CHUNK_SIZE)
    size = builder.size
    assert len(builder.finish().data) == size


def test_memory_of_an_earlier_pack_leaves_nothing_in_the_next() -> None:
    buffer = pack_buffer()
    for size in (9000, 200):
        builder = PackBuilder(buffer)
        builder.add(bytes(32), os.urandom(size), 1)
        pack = builder.finish()
        assert len(read_footer(bytes(pack.data), len(pack.data))) == 1
        assert pack.name == blake3.blake3(bytes(pack.data)).hexdigest()


def test_a_footer_that_names_what_is_not_there_is_found_out_without_keys() -> None:
    pack = make_pack([os.urandom(2000), os.urandom(3000)])
    data = bytes(pack.data)
    check_frames(data, pack.entries)
    first, second = pack.entries
    for wrong in (
        msgspec.structs.replace(first, id=bytes(32)),
        msgspec.structs.replace(first, offset=first.offset + 1),
        msgspec.structs.replace(first, plain_length=1),
        msgspec.structs.replace(first, length=second.length),
        msgspec.structs.replace(second, offset=len(data) - 10),
        msgspec.structs.replace(second, length=5),
    ):
        with pytest.raises(IntegrityError):
            check_frames(data, [second, wrong])
