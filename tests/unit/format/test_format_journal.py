"""Journals: what goes in comes out, over any chain; and nothing that was cut, altered, exchanged or forged passes."""

from __future__ import annotations

import os
import random
from typing import Any

import blake3
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recovery.errors import IntegrityError
from recovery.format.chunk import FrameDecoder, chunk_id, is_zero
from recovery.format.chunkmap import MapBuilder
from recovery.format.journal import (
    BLOCK,
    FRAME_SIZE,
    MAX_CHAIN,
    ChainEntry,
    Change,
    Journal,
    JournalHeader,
    encode_journal,
)
from recovery.format.journalhead import decode_head, journal_header, verify_journal
from recovery.format.keys import RepositoryKeys
from recovery.format.overlay import NOWHERE, Overlay, composed_root
from tests.support.examples import examples

KEYS = RepositoryKeys(bytes(range(32)), "ab" * 16)
CHUNK = 256 * 1024
#: Two whole chunks, and a short one that ends in half a block.
SIZE = 2 * CHUNK + 3 * BLOCK + 512
BLOCKS = -(-SIZE // BLOCK)


def header(**other: Any) -> JournalHeader:
    fields: dict[str, Any] = {
        "repository": KEYS.repository_id, "host": "hv1", "disk": "disk1", "size": SIZE, "base": "cd" * 32,
        "parent_point": "ef" * 32,
    }  # fmt: skip
    return JournalHeader(**(fields | other))


def data(start: int, count: int, seed: int) -> bytes:
    length = min(SIZE, (start + count) * BLOCK) - start * BLOCK
    return random.Random(seed).randbytes(length)


@st.composite
def minutes(draw: st.DrawFn) -> list[Change]:
    """Changes of one minute, in order and disjoint."""
    found: list[Change] = []
    at = 0
    while at < BLOCKS and len(found) < 6:
        start = draw(st.integers(at, BLOCKS - 1))
        count = draw(st.integers(1, min(90, BLOCKS - start)))
        seed = draw(st.integers(0, 999))
        found.append(Change(start, count, None if seed % 3 == 0 else data(start, count, seed)))
        at = start + count
    return found


def chain_of(steps: list[list[Change]]) -> list[Journal]:
    made: list[Journal] = []
    root = bytes(32)
    for step in steps:
        chain = [ChainEntry(bytes.fromhex(journal.digest), journal.head) for journal in made]
        made.append(encode_journal(KEYS, header(), chain, root, step))
        root = made[-1].root
    return made


@given(st.lists(minutes(), min_size=1, max_size=5), st.integers(0, 2**30))
@settings(max_examples=examples(60), deadline=None)
def test_a_chain_of_journals_over_a_keyframe_is_the_disk(steps: list[list[Change]], seed: int) -> None:
    disk = bytearray(random.Random(seed).randbytes(SIZE))
    builder = MapBuilder(SIZE, CHUNK)
    for index in range(3):
        plain = disk[index * CHUNK : (index + 1) * CHUNK]
        builder.set_blob(index, chunk_id(KEYS, plain), bytes(32), 16, 100)
    base, map = bytes(disk), builder.finish()
    for step in steps:
        for start, count, new in step:
            end = min(SIZE, (start + count) * BLOCK)
            disk[start * BLOCK : end] = bytes(end - start * BLOCK) if new is None else bytes(new)
    journals = chain_of(steps)
    heads = [decode_head(journal.data[: journal.head], KEYS) for journal in journals]
    overlay = Overlay(map, heads, [journal.digest for journal in journals])
    decoder, ids = FrameDecoder(KEYS), dict[int, bytes]()
    touched = overlay.touched()
    assert touched == sorted({block * BLOCK // CHUNK for step in steps for start, count, _ in step
                              for block in range(start, start + count)})  # fmt: skip
    for index in range(3):
        wanted = bytes(disk[index * CHUNK : (index + 1) * CHUNK])
        chunk = bytearray(base[index * CHUNK : (index + 1) * CHUNK])
        composed = overlay.compose(index)
        assert index in touched or not composed.parts
        if composed.whole:
            chunk[:] = os.urandom(len(chunk))
        for part in composed.parts:
            if part.journal == NOWHERE:
                chunk[part.at : part.at + part.length] = bytes(part.length)
                continue
            frame = heads[part.journal].frames[part.frame]
            stored = memoryview(journals[part.journal].data)[frame.offset : frame.offset + frame.length]
            decoded = memoryview(bytearray(frame.plain_length))
            assert decoder.decode_into(stored, frame.id, decoded) == frame.plain_length
            chunk[part.at : part.at + part.length] = decoded[part.start : part.start + part.length]
        assert chunk == wanted
        ids[index] = bytes(32) if is_zero(wanted) else chunk_id(KEYS, wanted)
    whole = MapBuilder(SIZE, CHUNK)
    for index, id in ids.items():
        if any(id):
            whole.set_blob(index, id, bytes(32), 16, 100)
    assert composed_root(map, {index: ids[index] for index in touched}) == whole.finish().root()
    root = map.root()
    for head in heads:
        root = head.root(root)
    assert overlay.root() == root


def test_the_root_is_bound_to_every_byte_and_to_what_was_before() -> None:
    change = [Change(3, 2, data(3, 2, 1))]
    one = encode_journal(KEYS, header(), [], bytes(32), change)
    head = decode_head(one.data, KEYS)
    assert head.root(bytes(32)) == one.root
    others = [
        encode_journal(KEYS, header(), [], b"x" * 32, change),
        encode_journal(KEYS, header(), [], bytes(32), [Change(3, 2, data(3, 2, 2))]),
        encode_journal(KEYS, header(), [], bytes(32), [Change(4, 2, data(3, 2, 1))]),
        encode_journal(KEYS, header(), [], bytes(32), [Change(3, 2, None)]),
        encode_journal(KEYS, header(host="hv2"), [], bytes(32), change),
        encode_journal(KEYS, header(disk="disk2"), [], bytes(32), change),
        encode_journal(KEYS, header(parent_point="00" * 32), [], bytes(32), change),
        encode_journal(KEYS, header(), [ChainEntry(bytes(32), 99)], bytes(32), change),
    ]
    assert len({one.root, *(other.root for other in others)}) == len(others) + 1
    # Nothing of one journal can be laid into another, not even the same bytes of the same place.
    frames = {decode_head(other.data, KEYS).frames[0].id for other in others if decode_head(other.data, KEYS).frames}
    assert len(frames - {head.frames[0].id}) >= 5


def sample() -> Journal:
    changes = [Change(0, 2, data(0, 2, 5)), Change(7, 80, data(7, 80, 6)), Change(100, 9, None),
               Change(BLOCKS - 1, 1, data(BLOCKS - 1, 1, 7))]  # fmt: skip
    return encode_journal(KEYS, header(), [ChainEntry(bytes(range(32)), 777)], bytes(32), changes)


def test_a_journal_says_what_it_is_without_keys_and_what_it_holds_with_them() -> None:
    journal = sample()
    clear, chain = journal_header(journal.data)
    assert (clear.host, clear.disk, clear.size, clear.chain_count) == ("hv1", "disk1", SIZE, 1)
    assert chain == (ChainEntry(bytes(range(32)), 777),)
    head = verify_journal(journal.data, KEYS)
    assert head.length == journal.head and journal.blocks == 92
    assert journal.digest == blake3.blake3(journal.data).hexdigest()
    assert journal.plain == sum(frame.plain_length for frame in head.frames) == 82 * BLOCK + 512
    assert [frame.plain_length for frame in head.frames] == [FRAME_SIZE, journal.plain - FRAME_SIZE]
    empty = encode_journal(KEYS, header(), [], bytes(32), [])
    assert not verify_journal(empty.data, KEYS).frames


@given(st.data())
@settings(max_examples=examples(150), deadline=None)
def test_no_flipped_bit_and_no_cut_passes(draw: st.DataObject) -> None:
    stored = bytearray(sample().data)
    if draw.draw(st.booleans()):
        stored[draw.draw(st.integers(0, len(stored) - 1))] ^= 1 << draw.draw(st.integers(0, 7))
    else:
        del stored[draw.draw(st.integers(0, len(stored) - 1)) :]
    with pytest.raises(IntegrityError):
        verify_journal(bytes(stored), KEYS)


@given(st.binary(max_size=400), st.integers(0, 120))
@settings(max_examples=examples(150), deadline=None)
def test_rubbish_is_refused_and_nothing_else(rubbish: bytes, keep: int) -> None:
    for bad in (rubbish, sample().data[:keep] + rubbish):
        for read in (lambda b: verify_journal(b, KEYS), lambda b: decode_head(b, KEYS), journal_header):
            try:
                read(bad)
            except IntegrityError:
                continue
            # The part in clear may be all that is whole.
            assert read is journal_header


def test_what_only_the_keys_of_a_writer_could_make_wrong_is_refused() -> None:
    with pytest.raises(ValueError, match="out of order"):
        encode_journal(KEYS, header(), [], bytes(32), [Change(5, 2, None), Change(6, 1, None)])
    with pytest.raises(ValueError, match="outside"):
        encode_journal(KEYS, header(), [], bytes(32), [Change(BLOCKS, 1, None)])
    with pytest.raises(ValueError, match="have 4096 bytes"):
        encode_journal(KEYS, header(), [], bytes(32), [Change(BLOCKS - 1, 1, bytes(4096))])
    with pytest.raises(ValueError, match="at most"):
        encode_journal(KEYS, header(), [ChainEntry(bytes(32), 99)] * MAX_CHAIN, bytes(32), [])
    whole = encode_journal(KEYS, header(size=SIZE + BLOCK), [], bytes(32), [Change(BLOCKS, 1, None)])
    smaller = whole.data.replace(f'"size":{SIZE + BLOCK}'.encode(), f'"size":{SIZE}'.encode())
    with pytest.raises(IntegrityError):
        decode_head(smaller, KEYS)  # the header is bound to the index
    with pytest.raises(IntegrityError, match="another repository"):
        decode_head(sample().data, RepositoryKeys(os.urandom(32), "cd" * 16))


@pytest.mark.parametrize("change", [{"version": 2}, {"block_size": 512}, {"cipher": "none"}, {"chain_count": 5000}])
def test_a_journal_of_another_release_is_refused(change: dict[str, Any]) -> None:
    encoded = msgspec.json.encode(msgspec.structs.replace(header(), **change))
    data = b"RKJOURN\x01" + len(encoded).to_bytes(4, "little") + encoded
    with pytest.raises(IntegrityError):
        journal_header(data)


def test_a_frame_laid_into_another_journal_does_not_decode() -> None:
    one = encode_journal(KEYS, header(), [], bytes(32), [Change(0, 1, data(0, 1, 1))])
    other = encode_journal(KEYS, header(parent_point="11" * 32), [], bytes(32), [Change(0, 1, data(0, 1, 1))])
    assert len(one.data) == len(other.data)
    with pytest.raises(IntegrityError):
        verify_journal(one.data[: one.head] + other.data[other.head :], KEYS)
