"""Writes that go on while the cores decode: decoded buffers go to a few threads that do nothing but write."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import NamedTuple

from recovery.errors import CancelledError
from recovery.restore.buffers import page_buffer
from recovery.restore.target import Target

#: Bytes written at once at most: of 4 MiB much is in the processor's cache still, and of less each costs a switch of
#: threads.
WRITE_SIZE = 4 * 1024 * 1024

_TICK = 0.1


def writer_count(decoders: int) -> int:
    """How many writes go on at once. Two keep a disk busy, but where decoders take all cores a writer waits for one
    between two writes: on 2 cores, to a disk of 3 GB/s, four took an eighth off a restore. Pure."""
    return max(4, 2 + decoders // 4)


class Piece(NamedTuple):
    """``length`` bytes from ``start`` of a buffer belong at ``offset`` of the disk."""

    offset: int
    start: int
    length: int


class WriteBehind:
    """Writes buffers to a target in threads of its own, in no order. For use in a ``with`` block: at its end all that
    was given is written. Thread-safe.

    There is a buffer for each of the ``decoders`` and each writer, so memory is bounded, and who decodes faster than
    the disk takes it waits. The first error sets ``stop`` and is raised at the end of the block, in place of the
    CancelledErrors that it caused; nothing more is written after it.
    """

    def __init__(
        self, target: Target, size: int, decoders: int, stop: threading.Event, written: Callable[[int], None]
    ) -> None:
        """Buffers of ``size`` bytes. ``written`` hears of each piece that is written how many bytes it has."""
        self._target, self._stop, self._written = target, stop, written
        writers = writer_count(decoders)
        self._size, self._left = size, decoders + writers
        self._free: queue.SimpleQueue[memoryview] = queue.SimpleQueue()
        self._jobs: queue.SimpleQueue[tuple[memoryview, list[Piece]] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._error: BaseException | None = None
        self._threads = [threading.Thread(target=self._write, name=f"write-{n}") for n in range(writers)]

    def take(self) -> memoryview:
        """A buffer to fill, given back by ``put``. Raises CancelledError when the restore stops."""
        if self._stop.is_set():
            raise CancelledError("The restore was stopped.")
        with self._lock:
            fresh = self._left > 0 and self._free.empty()
            self._left -= fresh
        if fresh:
            return page_buffer(self._size)
        while True:
            if self._stop.is_set():
                raise CancelledError("The restore was stopped.")
            try:
                return self._free.get(timeout=_TICK)
            except queue.Empty:
                continue

    def put(self, buffer: memoryview, pieces: list[Piece]) -> None:
        """Have all ``pieces`` of ``buffer`` written; it is not the caller's any more."""
        self._jobs.put((buffer, joined(pieces)))

    def _write(self) -> None:
        while (job := self._jobs.get()) is not None:
            buffer, pieces = job
            try:
                for offset, start, length in pieces:
                    if self._stop.is_set():
                        break
                    self._target.write(offset, buffer[start : start + length])
                    self._written(length)
            except BaseException as error:
                with self._lock:
                    self._error = self._error or error
                self._stop.set()
            self._free.put(buffer)

    def __enter__(self) -> WriteBehind:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()
        if self._error is not None and (error is None or isinstance(error, CancelledError)):
            raise self._error


def joined(pieces: Iterable[Piece]) -> list[Piece]:
    """The same bytes in fewer pieces: those that lie side by side both in the buffer and on the disk are one. Pure."""
    found: list[Piece] = []
    for piece in sorted(pieces):
        last = found[-1] if found else None
        if last and (last.offset + last.length, last.start + last.length) == piece[:2]:
            found[-1] = last._replace(length=last.length + piece.length)
        else:
            found.append(piece)
    return found
