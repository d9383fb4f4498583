"""Writes behind the decoders: every piece lands, memory is bounded, the first error ends it and is what is raised."""

from __future__ import annotations

import ctypes
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recovery.errors import CancelledError, DeviceError
from recovery.restore.buffers import page_buffer
from recovery.restore.target import Target
from recovery.restore.writes import Piece, WriteBehind, joined, writer_count

MIB = 2**20
BLOCK = 4096


class Slow(Target):
    """A disk that takes its time, and may fail."""

    def __init__(self, path: str, size: int, seconds: float = 0.0, fails_at: int = -1) -> None:
        super().__init__(path, size)
        self.seconds, self.fails_at = seconds, fails_at
        self.at_once = self.most = self.writes = 0
        self._counting = threading.Lock()

    def write(self, offset: int, data: memoryview) -> None:
        with self._counting:
            self.at_once += 1
            self.writes += 1
            self.most = max(self.most, self.at_once)
        try:
            time.sleep(self.seconds)
            if offset == self.fails_at:
                raise DeviceError("The disk is gone.")
            super().write(offset, data)
        finally:
            with self._counting:
                self.at_once -= 1


def test_all_pieces_land_where_they_belong(tmp_path: Path) -> None:
    path, written = tmp_path / "out", list[int]()
    with Target(str(path), 64 * BLOCK) as target, WriteBehind(
        target, 4 * BLOCK, 2, threading.Event(), written.append
    ) as writes:  # fmt: skip
        for number in range(16):
            buffer = writes.take()
            for block in range(4):
                buffer[block * BLOCK : (block + 1) * BLOCK] = bytes([1 + number * 4 + block]) * BLOCK
            # Backwards on the disk, so that no two lie side by side in both.
            writes.put(buffer, [Piece((number * 4 + 3 - block) * BLOCK, block * BLOCK, BLOCK) for block in range(4)])
    data = path.read_bytes()
    for number in range(16):
        for block in range(4):
            at = (number * 4 + 3 - block) * BLOCK
            assert data[at : at + BLOCK] == bytes([1 + number * 4 + block]) * BLOCK
    assert sum(written) == 64 * BLOCK


def test_who_decodes_faster_than_the_disk_writes_waits_for_a_buffer(tmp_path: Path) -> None:
    seen: set[int] = set()
    with Slow(str(tmp_path / "out"), MIB, 0.01) as target:
        with WriteBehind(target, BLOCK, 2, threading.Event(), lambda _: None) as writes:
            for number in range(40):
                buffer = writes.take()
                seen.add(ctypes.addressof(ctypes.c_char.from_buffer(buffer)))
                writes.put(buffer, [Piece(number * BLOCK, 0, BLOCK)])
        assert target.writes == 40
        assert target.most == writer_count(2) == 4
    assert len(seen) <= 2 + writer_count(2)


def test_the_first_error_stops_all_and_is_raised_instead_of_what_it_caused(tmp_path: Path) -> None:
    stop = threading.Event()
    with Slow(str(tmp_path / "out"), 64 * MIB, 0.002, fails_at=8 * BLOCK) as target:
        with (
            pytest.raises(DeviceError, match="gone"),
            WriteBehind(target, BLOCK, 2, stop, lambda _: None) as writes,
        ):
            for number in range(10_000):
                writes.put(writes.take(), [Piece(number * BLOCK, 0, BLOCK)])
        assert stop.is_set()
        assert target.writes < 20


def test_an_error_of_the_last_write_is_raised_too(tmp_path: Path) -> None:
    with (
        Slow(str(tmp_path / "out"), MIB, 0.05, fails_at=0) as target,
        pytest.raises(DeviceError),
        WriteBehind(target, BLOCK, 2, threading.Event(), lambda _: None) as writes,
    ):
        writes.put(writes.take(), [Piece(0, 0, BLOCK)])


def test_after_a_stop_nothing_is_written_any_more(tmp_path: Path) -> None:
    stop, written = threading.Event(), list[int]()
    with Slow(str(tmp_path / "out"), MIB) as target:
        with WriteBehind(target, BLOCK, 2, stop, written.append) as writes:
            buffer = writes.take()
            stop.set()
            writes.put(buffer, [Piece(0, 0, BLOCK)])
            with pytest.raises(CancelledError):
                writes.take()
        assert (target.writes, written) == (0, [])


@given(st.lists(st.integers(0, 30), unique=True, max_size=30), st.integers(1, 4))
def test_joined_pieces_write_the_same_bytes(blocks: list[int], copies: int) -> None:
    pieces = [
        Piece((block + copy * 40) * 10, start * 10, 10) for start, block in enumerate(blocks) for copy in range(copies)
    ]

    def effect(given: list[Piece]) -> dict[int, int]:
        return {offset + at: start + at for offset, start, length in given for at in range(length)}

    assert effect(joined(pieces)) == effect(pieces)
    assert len(joined(pieces)) <= len(pieces)


def test_neighbours_are_one_write() -> None:
    assert joined([Piece(0, 0, 5), Piece(5, 5, 5), Piece(100, 5, 5), Piece(10, 10, 2)]) == [
        Piece(0, 0, 12),
        Piece(100, 5, 5),
    ]


@pytest.mark.parametrize("size", [4096, 12345, 2 * MIB, 5 * MIB])
def test_buffers_are_aligned_and_zero(size: int) -> None:
    buffer = page_buffer(size)
    assert len(buffer) == size
    assert ctypes.addressof(ctypes.c_char.from_buffer(buffer)) % (2 * MIB if size >= 2 * MIB else 4096) == 0
    assert not any(buffer)
