"""Chunks that journals touched: decoded from the keyframe, overlaid in memory, written once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from recovery.errors import CancelledError
from recovery.format.chunk import chunk_id, is_zero
from recovery.format.chunkmap import ID_SIZE, MapEntry
from recovery.format.journal import MAX_CHAIN
from recovery.format.names import pack_name
from recovery.format.overlay import NOWHERE, Composed, Overlay
from recovery.format.overlay import Part as OverlayPart
from recovery.repository.protocols import Part
from recovery.restore.ranges import MAX_READ, Frame
from recovery.restore.worker import Worker
from recovery.restore.writes import WRITE_SIZE, Piece

#: Decoded frames that are kept: one of each journal of the longest chain, since both go through the disk in order;
#: of 256 KiB each, 64 MiB at most.
_KEPT = MAX_CHAIN + 16
#: Parts in one request: ``recovery.repository.parts.MAX_PARTS`` is what a server takes.
_MOST_PARTS = 128
_ZERO_ID = bytes(ID_SIZE)


class OverlayTask(NamedTuple):
    """Chunks to compose, in order."""

    indexes: tuple[int, ...]


def plan_overlay(touched: Sequence[int], chunk_size: int, without: Iterable[int] = ()) -> Iterator[OverlayTask]:
    """The touched chunks but those ``without``, as many to a task as one buffer of decoded bytes holds. Pure."""
    left_out = set(without)
    chosen = [index for index in touched if index not in left_out]
    size = max(1, WRITE_SIZE // chunk_size)
    for start in range(0, len(chosen), size):
        yield OverlayTask(tuple(chosen[start : start + size]))


class _Needed(NamedTuple):
    """A frame to fetch: its object, and where in the task's buffer which of its bytes go (place, start, length)."""

    name: str
    frame: Frame
    plain_length: int
    journal: int
    number: int
    copies: list[tuple[int, int, int]]


class Overlayer:
    """Composes chunks for all workers of a restore. ``ids``: index -> what the chunk's id is now, 32 zero bytes for
    one of zeros; the disk is read back against these. Thread-safe."""

    def __init__(self, overlay: Overlay) -> None:
        self.overlay = overlay
        self.ids: dict[int, bytes] = {}
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[int, int], bytearray] = OrderedDict()

    def restore(self, task: OverlayTask, worker: Worker) -> None:
        """Compose the chunks of a task and have them written, but those that the disk holds already (when it is
        compared). Raises as Worker.restore."""
        # Composed in the worker's own memory: who held one of the writers' buffers here would wait for the gates below
        # while those who are behind them wait for a buffer.
        map, out, starts, filled = self.overlay.map, worker.composing, list[int](), 0
        for index in task.indexes:
            starts.append(filled)
            filled += map.length(index)
        lost = set[int]()
        waiting: list[_Needed] = []
        zeros: list[tuple[int, int]] = []
        for index, start in zip(task.indexes, starts, strict=True):
            composed = self.overlay.compose(index)
            waiting += self._prepare(index, start, composed, out)
            zeros += [(start + part.at, part.length) for part in composed.parts if part.journal == NOWHERE]
        # Bases lie under what journals say, so they come first.
        bases = [needed for needed in waiting if needed.journal == NOWHERE]
        journals = _merged(needed for needed in waiting if needed.journal != NOWHERE)
        for round in _rounds(bases):
            self._fetch(round, worker, out, lost)
        for at, length in zeros:
            out[at : at + length] = bytes(length)
        missing = [needed for needed in journals if not self._from_kept(needed, out)]
        for round in _rounds(missing):
            self._fetch(round, worker, out, lost)
        pieces: list[Piece] = []
        for index, start in zip(task.indexes, starts, strict=True):
            pieces += self._settle(index, start, out, worker, lost)
        with worker.pace.decoding.passed():
            buffer = worker.writes.take()
            buffer[:filled] = out[:filled]
            worker.writes.put(buffer, pieces)

    def _prepare(self, index: int, start: int, composed: Composed, out: memoryview) -> Iterator[_Needed]:
        """What has to be fetched for a chunk; a base of zeros is put in place at once."""
        map = self.overlay.map
        length = map.length(index)
        entry = map.get(index)
        if not composed.whole and isinstance(entry, MapEntry):
            frame = Frame(entry.id, entry.offset, entry.length, (index,))
            yield _Needed(pack_name(entry.pack.hex()), frame, length, NOWHERE, 0, [(start, 0, length)])
        elif not composed.whole:
            out[start : start + length] = bytes(length)
        for part in composed.parts:
            if part.journal != NOWHERE:
                yield self._journal_frame(part, index, start)

    def _journal_frame(self, part: OverlayPart, index: int, start: int) -> _Needed:
        id, offset, length, plain_length = self.overlay.heads[part.journal].frames[part.frame]
        frame = Frame(id, offset, length, (index,))
        name = self.overlay.names[part.journal]
        place = (start + part.at, part.start, part.length)
        return _Needed(name, frame, plain_length, part.journal, part.frame, [place])

    def _from_kept(self, needed: _Needed, out: memoryview) -> bool:
        key = (needed.journal, needed.number)
        with self._lock:
            plain = self._kept.get(key)
            if plain is not None:
                self._kept.move_to_end(key)
        if plain is None:
            return False
        _copy(needed, memoryview(plain), out)
        return True

    def _fetch(self, round: Sequence[_Needed], worker: Worker, out: memoryview, lost: set[int]) -> None:
        parts = [Part(needed.name, needed.frame.offset, needed.frame.length) for needed in round]
        with worker.pace.reading.passed():
            buffers = worker.fetch_parts(parts)
        worker.pace.arrived(sum(part.length for part in parts))
        with worker.pace.decoding.passed():
            for needed, data in zip(round, buffers, strict=True):
                plain = bytearray(needed.plain_length)
                if not worker.decode(needed.name, needed.frame, data, memoryview(plain)):
                    # Every chunk that needs this frame is lost: their places in the buffer say which.
                    lost.update(at for at, _, _ in needed.copies)
                    continue
                _copy(needed, memoryview(plain), out)
                if needed.journal != NOWHERE:
                    self._keep(needed, plain)

    def _keep(self, needed: _Needed, plain: bytearray) -> None:
        with self._lock:
            self._kept[needed.journal, needed.number] = plain
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)

    def _settle(self, index: int, start: int, out: memoryview, worker: Worker, lost: set[int]) -> Iterator[Piece]:
        """What of a composed chunk is to be written, and its id for the reading back."""
        map = self.overlay.map
        length, offset = map.length(index), index * map.chunk_size
        if any(start <= at < start + length for at in lost):
            worker.lose_chunks((index,))
            return
        if worker.stopped:
            raise CancelledError("The restore was stopped.")
        plain = out[start : start + length]
        id = _ZERO_ID if is_zero(plain) else chunk_id(worker.keys, plain)
        with self._lock:
            self.ids[index] = id
        if id == _ZERO_ID:
            worker.zero(offset, length)
        elif not worker.compare or not worker.holds(index, id):
            yield Piece(offset, start, length)


def _merged(needed: Iterable[_Needed]) -> list[_Needed]:
    """Each frame of a journal once, in the order of journals and frames."""
    found: dict[tuple[int, int], _Needed] = {}
    for one in needed:
        known = found.setdefault((one.journal, one.number), one)
        if known is not one:
            known.copies.extend(one.copies)
    return [found[key] for key in sorted(found)]


def _rounds(needed: Sequence[_Needed]) -> Iterator[list[_Needed]]:
    """As many frames as are fetched at once."""
    chosen: list[_Needed] = []
    length = 0
    for one in needed:
        if chosen and (length + one.frame.length > MAX_READ or len(chosen) == _MOST_PARTS):
            yield chosen
            chosen, length = [], 0
        chosen.append(one)
        length += one.frame.length
    if chosen:
        yield chosen


def _copy(needed: _Needed, plain: memoryview, out: memoryview) -> None:
    for at, start, length in needed.copies:
        out[at : at + length] = plain[start : start + length]
