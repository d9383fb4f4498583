"""One worker takes a range from the wire to the disk in its own reused buffers: no queue of copies between stages."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence

from recovery.errors import CancelledError, IntegrityError, NotFoundError, RekindleError, UnreachableError
from recovery.events import Level, Listener, Message
from recovery.format.chunk import FrameDecoder, chunk_id
from recovery.format.chunkmap import ChunkMap
from recovery.format.keys import RepositoryKeys
from recovery.format.names import pack_name
from recovery.repository.attention import Aside, RetryTeller
from recovery.repository.failover import copies_of, location_of
from recovery.repository.parts import gathers, read_parts
from recovery.repository.protocols import ObjectReader, Part
from recovery.restore.buffers import page_buffer
from recovery.restore.pace import Pace
from recovery.restore.ranges import MAX_READ, NO_GAP, Batch, Frame, ReadRange, batch_up, coalesce
from recovery.restore.target import Target
from recovery.restore.writes import WRITE_SIZE, Piece, WriteBehind

_RE_READS = 3
_FIRST_WAIT, _LONGEST_WAIT = 1.0, 15.0
#: Lost chunks that are told singly.
_TOLD = 20


class Counters:
    """The figures of a run, added to by all workers."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.transferred = self.written = self.zeroed = self.skipped = self.retries = 0
        #: Indexes of chunks that no copy of the repository has, and that were left as zeros.
        self.lost: set[int] = set()

    def add(
        self, *, transferred: int = 0, written: int = 0, zeroed: int = 0, skipped: int = 0, retries: int = 0
    ) -> None:
        """Add to the figures."""
        with self._lock:
            self.transferred += transferred
            self.written += written
            self.zeroed += zeroed
            self.skipped += skipped
            self.retries += retries

    def lose(self, indexes: Sequence[int], length: int) -> None:
        """These chunks of together ``length`` bytes are zeros for want of their content."""
        with self._lock:
            self.lost.update(indexes)
            self.zeroed += length

    @property
    def done(self) -> int:
        """Logical bytes that are as they should be."""
        return self.written + self.zeroed + self.skipped


class Worker:
    """Fetches, decodes and writes ranges; one for each thread."""

    def __init__(
        self,
        store: ObjectReader,
        keys: RepositoryKeys,
        map: ChunkMap,
        target: Target,
        counters: Counters,
        stop: threading.Event,
        listener: Listener,
        patience: float,
        retries: RetryTeller,
        describe: Callable[[int], str],
        compare: bool,
        pace: Pace,
        writes: WriteBehind,
        skip_damaged: bool = False,
    ) -> None:
        self._store = store
        self._gathered = gathers(store)
        self._map = map
        self._target = target
        self._counters = counters
        self._stop = stop
        self._listener = listener
        self._patience = patience
        self._retries = retries
        self._describe = describe
        self.keys = keys
        self.compare = compare
        self.pace = pace
        self.writes = writes
        self._skip_damaged = skip_damaged
        self._decoder = FrameDecoder(keys)
        self._aside = Aside()
        self._read = page_buffer(MAX_READ)
        self._compared: memoryview | None = None
        self._composing: memoryview | None = None

    @property
    def composing(self) -> memoryview:
        """Memory for the chunks of an OverlayTask; there from the first one on."""
        if self._composing is None:
            self._composing = page_buffer(max(WRITE_SIZE, self._map.chunk_size))
        return self._composing

    def restore(self, batch: Batch) -> None:
        """Take a batch from the repository to the disk; with ``compare`` only what the disk does not hold already.

        Raises IntegrityError, UnreachableError (patience at its end), DeviceError, CancelledError.
        """
        for missing in self._missing(batch) if self.compare else (batch,):
            self._restore(missing)

    def _missing(self, batch: Batch) -> Iterator[Batch]:
        reads: list[ReadRange] = []
        for read in batch.reads:
            frames = []
            for frame in read.frames:
                indexes = tuple(index for index in frame.indexes if not self.holds(index, frame.id))
                if indexes:
                    frames.append(frame._replace(indexes=indexes))
            # Only what differs is fetched: what lies between would be more than the request it saves.
            reads += coalesce(read.pack, frames, max_gap=NO_GAP)
        yield from batch_up(reads, gathered=self._gathered)

    def holds(self, index: int, id: bytes) -> bool:
        """Whether the disk has chunk ``id`` at its place: read from the device itself, compared by its keyed hash."""
        self._stop_if_asked()
        if self._compared is None:
            self._compared = page_buffer(self._map.chunk_size)
        plain = self._compared[: self._map.length(index)]
        self._target.read(index * self._map.chunk_size, plain)
        if chunk_id(self.keys, plain) != id:
            return False
        self._counters.add(skipped=len(plain))
        return True

    def _restore(self, batch: Batch) -> None:
        with self.pace.reading.passed():
            buffers = self._fetch_all(batch)
        self.pace.arrived(batch.length)
        with self.pace.decoding.passed():
            self._write_out(batch, buffers)

    def _fetch_all(self, batch: Batch) -> list[memoryview | None]:
        """The bytes of each read; None for one of which no copy has all: each may have some of its frames, and those
        that are lost are named singly."""
        return self.fetch_parts([Part(pack_name(read.pack.hex()), read.offset, read.length) for read in batch.reads])

    def fetch_parts(self, parts: Sequence[Part]) -> list[memoryview | None]:
        """The bytes of each part, at most MAX_READ in all, until the next call; None as in ``_fetch_all``."""
        buffers: list[memoryview | None] = []
        start = 0
        for part in parts:
            buffers.append(self._read[start : start + part.length])
            start += part.length
        if self._fetch(parts, self._read[:start]):
            return buffers
        if len(parts) == 1:
            return [None]
        return [
            buffer if buffer is not None and self._fetch([part], buffer) else None
            for part, buffer in zip(parts, buffers, strict=True)
        ]

    def _write_out(self, batch: Batch, buffers: Sequence[memoryview | None]) -> None:
        """Decode a batch and have it written; of a read without a buffer each frame is fetched alone."""
        fetched = [
            (frame, read, buffer) for read, buffer in zip(batch.reads, buffers, strict=True) for frame in read.frames
        ]
        # In the order of the disk: what lies side by side there is written at once, wherever it lies in the packs.
        fetched.sort(key=lambda item: item[0].indexes[0])
        out, pieces, filled = self.writes.take(), list[Piece](), 0
        for frame, read, buffer in fetched:
            length = self._map.length(frame.indexes[0])
            if filled + length > len(out):
                self.writes.put(out, pieces)
                out, pieces, filled = self.writes.take(), [], 0
            at = frame.offset - read.offset
            data = None if buffer is None else buffer[at : at + frame.length]
            if self.decode(pack_name(read.pack.hex()), frame, data, out[filled : filled + length]):
                pieces += [Piece(index * self._map.chunk_size, filled, length) for index in frame.indexes]
                filled += length
            else:
                self.lose_chunks(frame.indexes)
        self.writes.put(out, pieces)

    def lose_chunks(self, indexes: Sequence[int]) -> None:
        """These chunks have no content in any copy: they are made zeros, and counted as lost."""
        for index in indexes:
            self._target.zero(index * self._map.chunk_size, self._map.length(index))
        self._counters.lose(indexes, sum(map(self._map.length, indexes)))

    def zero(self, offset: int, length: int) -> None:
        """Make a range of the disk read as zeros."""
        self._target.zero(offset, length)
        self._counters.add(zeroed=length)

    @property
    def stopped(self) -> bool:
        """Whether the restore is to stop."""
        return self._stop.is_set()

    def decode(self, name: str, frame: Frame, data: memoryview | None, out: memoryview) -> bool:
        """Bring the frame's chunk into ``out``: from ``data``, if that was read, else from each copy. False when it
        is lost and that was allowed; raises IntegrityError when it was not."""
        if data is not None:
            try:
                self._decode_once(frame, data, out)
                return True
            except IntegrityError as error:
                self._tell(f"{error.message} Fetching it again.")
        self._counters.add(retries=1)
        try:
            self._rescue(name, frame, out)
            return True
        except (IntegrityError, NotFoundError) as error:
            message = f"{error.message} It belongs to {self._describe(frame.indexes[0] * self._map.chunk_size)}."
            if not self._skip_damaged:
                raise IntegrityError(
                    message,
                    hint=f"The repository is damaged in {name}: nothing wrong was written, but this disk is not "
                    "complete. Give another copy of the repository with --also, restore an older point, or leave what "
                    "is lost as zeros with --skip-damaged ('rekindle repo check --read-data' lists all damage).",
                ) from error
        # Of many, the others are in the log, and all of them in the report.
        level: Level = "warning" if len(self._counters.lost) < _TOLD else "debug"
        self._tell(f"{message} No copy of the repository has it: it is left as zeros.", level)
        return False

    def _rescue(self, name: str, frame: Frame, out: memoryview) -> None:
        """Fetch the frame alone, from every copy in turn: it may have been damaged on its way, or in one copy only.

        Copies that do not answer are waited for until patience ends (UnreachableError: they may have it). Raises what
        the first one said when none has it.
        """
        copies = copies_of(self._store)
        again = memoryview(bytearray(frame.length))
        wait, begin, attempt = _FIRST_WAIT, time.monotonic(), 0
        while True:
            problems: list[RekindleError] = []
            for number, copy in enumerate(copies):
                try:
                    self._read_alone(copy, name, frame, again, out)
                except (IntegrityError, NotFoundError, UnreachableError) as error:
                    problems.append(error)
                    continue
                if number:
                    where = self._describe(frame.indexes[0] * self._map.chunk_size)
                    self._tell(f"{where} was taken from {location_of(copy)}. {problems[0].message}")
                return
            silent = [problem for problem in problems if isinstance(problem, UnreachableError)]
            if not silent:
                raise problems[0]
            attempt += 1
            wait = self._wait(silent[0], begin, attempt, wait)

    def _read_alone(self, copy: ObjectReader, name: str, frame: Frame, again: memoryview, out: memoryview) -> None:
        """One frame from one copy. Damaged as often as this it is damaged where it is stored, not on its way."""
        for attempt in range(_RE_READS):
            self._read_from(copy, [Part(name, frame.offset, frame.length)], again)
            try:
                self._decode_once(frame, again, out)
                return
            except IntegrityError:
                if attempt == _RE_READS - 1:
                    raise
                self._counters.add(retries=1)

    def _decode_once(self, frame: Frame, data: memoryview, out: memoryview) -> None:
        if self._decoder.decode_into(data, frame.id, out) != len(out):
            raise IntegrityError(f"Chunk {frame.id.hex()} has not the length that its place on the disk has.")

    def _fetch(self, parts: Sequence[Part], buffer: memoryview) -> bool:
        """Read parts; False when no copy has all of them. While the server does not answer, wait and try again until
        patience ends."""
        wait, begin, attempt = _FIRST_WAIT, time.monotonic(), 0
        while True:
            try:
                self._read_from(self._store, parts, buffer)
                return True
            except (NotFoundError, IntegrityError):
                return False
            except UnreachableError as error:
                attempt += 1
                wait = self._wait(error, begin, attempt, wait)

    def _read_from(self, store: ObjectReader, parts: Sequence[Part], buffer: memoryview) -> None:
        self._stop_if_asked()
        self._aside.call(lambda: read_parts(store, parts, buffer), self._stop)
        self._retries.over()
        self._counters.add(transferred=len(buffer))

    def _wait(self, error: UnreachableError, begin: float, attempt: int, seconds: float) -> float:
        """Wait before the next attempt; returns how long to wait before the one after. Raises ``error`` when patience,
        which began at ``begin``, is at its end."""
        if time.monotonic() - begin > self._patience:
            raise error
        self._retries(error.message, attempt, seconds)
        self._stop.wait(seconds)
        return min(seconds * 2, _LONGEST_WAIT)

    def _tell(self, text: str, level: Level = "warning") -> None:
        self._listener(Message(level=level, text=text, step="stream"))

    def _stop_if_asked(self) -> None:
        if self._stop.is_set():
            raise CancelledError("The restore was stopped.")
