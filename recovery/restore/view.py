"""Bytes of a captured disk read at random, from the repository: for tools that work on it beside a restore."""

from __future__ import annotations

import threading
from collections import OrderedDict

from recovery.errors import CancelledError, IntegrityError, NotFoundError, RekindleError, UnreachableError
from recovery.format.chunk import FrameDecoder
from recovery.format.chunkmap import ChunkMap, MapEntry
from recovery.format.names import pack_name
from recovery.repository.failover import copies_of
from recovery.repository.repository import Repository
from recovery.units import MIB

#: Bytes of chunks that are kept: what tools read is near what they read before.
_KEPT = 32 * MIB
_TRIES = 3


class PointView:
    """A disk of a point, for reading. Thread-safe, one read at a time; takes about 40 MiB."""

    def __init__(
        self, repository: Repository, map: ChunkMap, stop: threading.Event, *, skip_damaged: bool = False
    ) -> None:
        """``skip_damaged``: what no copy of the repository has reads as zeros."""
        self._repository, self._map, self._stop, self._skip_damaged = repository, map, stop, skip_damaged
        self._decoder = FrameDecoder(repository.keys)
        self._kept: OrderedDict[int, bytes] = OrderedDict()
        self._lock = threading.Lock()
        self.size = map.size

    def read(self, offset: int, length: int) -> bytes:
        """The bytes, fewer at the end of the disk. Raises IntegrityError, NotFoundError, UnreachableError,
        CancelledError."""
        self.stop_if_asked()
        length = max(0, min(length, self.size - offset))
        found = []
        with self._lock:
            while length:
                index, at = divmod(offset, self._map.chunk_size)
                count = min(length, self._map.length(index) - at)
                chunk = self._chunk(index)
                found.append(bytes(count) if chunk is None else chunk[at : at + count])
                offset, length = offset + count, length - count
        return b"".join(found)

    def stop_if_asked(self) -> None:
        """Raises CancelledError when the restore is to stop."""
        if self._stop.is_set():
            raise CancelledError(
                "The restore was stopped while the disk was laid out anew; it is not complete and will not boot.",
                hint="Restore it again to complete it: what is right already is not fetched again.",
            )

    def _chunk(self, index: int) -> bytes | None:
        """A chunk's bytes; None for zeros."""
        entry = self._map.get(index)
        if not isinstance(entry, MapEntry):
            return None
        if index in self._kept:
            self._kept.move_to_end(index)
            return self._kept[index]
        try:
            plain = self._fetch(entry, self._map.length(index))
        except (IntegrityError, NotFoundError):
            if not self._skip_damaged:
                raise
            plain = bytes(self._map.length(index))
        self._kept[index] = plain
        while len(self._kept) * self._map.chunk_size > _KEPT and len(self._kept) > 2:
            self._kept.popitem(last=False)
        return plain

    def _fetch(self, entry: MapEntry, length: int) -> bytes:
        """From the first copy that has it undamaged. One that does not answer may have it: that is said first."""
        frame, out = memoryview(bytearray(entry.length)), memoryview(bytearray(length))
        problems: list[RekindleError] = []
        for copy in copies_of(self._repository.store):
            for _ in range(_TRIES):
                try:
                    copy.read_into(pack_name(entry.pack.hex()), entry.offset, frame)
                    if self._decoder.decode_into(frame, entry.id, out) != length:
                        raise IntegrityError(f"Chunk {entry.id.hex()} has not the length that its place has.")
                    return bytes(out)
                except IntegrityError as error:
                    problems.append(error)
                except (NotFoundError, UnreachableError) as error:
                    problems.append(error)
                    break
        silent = [problem for problem in problems if isinstance(problem, UnreachableError)]
        raise (silent or problems)[0]
