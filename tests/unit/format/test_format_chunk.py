"""Frames: what goes in comes out, and no altered, moved or truncated frame passes."""

from __future__ import annotations

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recovery.errors import IntegrityError
from recovery.format.chunk import HEADER_SIZE, RAW, ZSTD, FrameDecoder, FrameEncoder, chunk_id, encode_frame, is_zero
from recovery.format.keys import RepositoryKeys
from recovery.units import MIB
from tests.support.examples import examples

KEYS = RepositoryKeys(bytes(range(32)), "ab" * 16)
plain_bytes = st.one_of(
    st.binary(min_size=1, max_size=5000),
    st.integers(1, 3000).map(lambda n: b"rekindle" * n),
    st.just(os.urandom(2**20)),
)


@given(plain_bytes)
@settings(max_examples=examples(60), deadline=None)
def test_a_frame_gives_back_its_chunk_and_nothing_more(plain: bytes) -> None:
    id = chunk_id(KEYS, plain)
    frame = encode_frame(KEYS, id, plain)
    out = bytearray(b"\xee" * (len(plain) + 7))
    assert FrameDecoder(KEYS).decode_into(memoryview(frame), id, memoryview(out)) == len(plain)
    assert out[: len(plain)] == plain
    assert out[len(plain) :] == b"\xee" * 7


@given(plain_bytes, st.data())
@settings(max_examples=examples(80), deadline=None)
def test_every_flipped_bit_is_noticed(plain: bytes, data: st.DataObject) -> None:
    id = chunk_id(KEYS, plain)
    frame = bytearray(encode_frame(KEYS, id, plain))
    position = data.draw(st.integers(0, len(frame) - 1))
    frame[position] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(IntegrityError):
        FrameDecoder(KEYS).decode_into(memoryview(frame), id, memoryview(bytearray(len(plain))))


def test_a_frame_is_bound_to_its_id_and_its_repository() -> None:
    one, two = b"one" * 1000, b"two" * 1000
    id_one, id_two = chunk_id(KEYS, one), chunk_id(KEYS, two)
    frame = bytearray(encode_frame(KEYS, id_one, one))
    out = memoryview(bytearray(3000))
    with pytest.raises(IntegrityError, match="no frame of chunk"):
        FrameDecoder(KEYS).decode_into(memoryview(frame), id_two, out)
    frame[20:52] = id_two  # a forger who writes the other id into the header
    with pytest.raises(IntegrityError, match="altered"):
        FrameDecoder(KEYS).decode_into(memoryview(frame), id_two, out)
    other = RepositoryKeys(bytes(32), "ab" * 16)
    assert chunk_id(other, one) != id_one
    with pytest.raises(IntegrityError, match="altered"):
        FrameDecoder(other).decode_into(memoryview(encode_frame(KEYS, id_one, one)), id_one, out)


def test_incompressible_chunks_are_stored_raw_and_cut_frames_are_refused() -> None:
    plain = os.urandom(65536)
    id = chunk_id(KEYS, plain)
    frame = encode_frame(KEYS, id, plain)
    assert len(frame) == len(plain) + HEADER_SIZE + 16
    for cut in (0, 10, HEADER_SIZE, len(frame) - 1):
        with pytest.raises(IntegrityError):
            FrameDecoder(KEYS).decode_into(memoryview(frame)[:cut], id, memoryview(bytearray(65536)))


def test_a_target_that_is_too_small_is_refused() -> None:
    plain = b"x" * 4096
    id = chunk_id(KEYS, plain)
    with pytest.raises(IntegrityError, match="more than"):
        FrameDecoder(KEYS).decode_into(memoryview(encode_frame(KEYS, id, plain)), id, memoryview(bytearray(4095)))


@given(st.integers(1, 5 * 2**20), st.booleans(), st.data())
@settings(max_examples=examples(30), deadline=None)
def test_zero_is_zero(size: int, dirty: bool, data: st.DataObject) -> None:
    buffer = bytearray(size)
    if dirty:
        buffer[data.draw(st.integers(0, size - 1))] = 1
    assert is_zero(buffer) is not dirty
    assert is_zero(memoryview(buffer)) is not dirty


@pytest.mark.parametrize(
    ("plain", "compression"),
    [
        (os.urandom(MIB), RAW),
        (b"words and words " * 65536, ZSTD),
        # Most of it does not compress, and the samples show the part that does.
        (os.urandom(MIB * 3 // 4) + b"words and words " * 16384, ZSTD),
        # Each third alone looks random, so that samples can't tell: stored as it is, and nothing is lost but room.
        (os.urandom(333_333) * 3, RAW),
    ],
)
def test_what_does_not_compress_is_found_by_samples_and_stored_as_it_is(plain: bytes, compression: int) -> None:
    encoder = FrameEncoder(KEYS)
    payload = encoder.compress(plain)
    assert payload.compression == compression
    id = chunk_id(KEYS, plain)
    frame = bytearray(payload.frame_length)
    encoder.seal_into(id, payload, memoryview(frame))
    out = bytearray(len(plain))
    assert FrameDecoder(KEYS).decode_into(memoryview(frame), id, memoryview(out)) == len(plain)
    assert out == plain
