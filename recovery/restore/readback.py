"""Read back from the disk, past the cache, what was written: a sample, or everything with the Merkle root."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterable, Mapping, Set

from recovery.errors import CancelledError, IntegrityError
from recovery.format.chunk import chunk_id, is_zero
from recovery.format.chunkmap import ID_SIZE, LEAF, ChunkMap, MapEntry, merkle_leaf, merkle_root
from recovery.format.keys import RepositoryKeys
from recovery.restore.buffers import page_buffer
from recovery.restore.crew import work_off
from recovery.restore.target import Target

#: Read by one thread before it takes the next piece, bytes.
_PIECE = 64 * 1024 * 1024
_ZERO_ID = bytes(ID_SIZE)


class Readback:
    """Compares a disk with its map. ``lost`` chunks must be zeros. ``done`` is bytes read back so far."""

    def __init__(
        self,
        map: ChunkMap,
        keys: RepositoryKeys,
        target: Target,
        lost: Set[int],
        describe: Callable[[int], str],
        stop: threading.Event,
        composed: Mapping[int, bytes] | None = None,
    ) -> None:
        """``composed``: ids of chunks that are no longer what the map says; 32 zero bytes for one of zeros."""
        # The mapping itself, empty or not: the ends of the disk are composed after this.
        self._composed = {} if composed is None else composed
        self._map, self._keys, self._target, self._lost = map, keys, target, lost
        self._describe, self._stop = describe, stop
        self._lock = threading.Lock()
        self._open: dict[int, bytearray] = {}
        self._left: dict[int, int] = {}
        self._leaves: dict[int, bytes] = {}
        self.done = 0

    def sample(self, count: int, always: Set[int]) -> list[int]:
        """The indexes of ``count`` random chunks, and those of ``always``, in order."""
        everything = range(self._map.count)
        return sorted(always | set(random.sample(everything, min(count, len(everything)))))

    def check(self, indexes: Iterable[int], workers: int, cancel: threading.Event, tick: Callable[[], None]) -> None:
        """Read these chunks, each once. Raises IntegrityError for the first that is wrong, DeviceError,
        CancelledError."""
        chunks = max(1, _PIECE // self._map.chunk_size)
        try:
            work_off(_pieces(indexes, chunks), workers, self._worker, self._stop, cancel, tick)
        except CancelledError as error:
            raise CancelledError(
                "The restore was stopped while the disk was read back; it is not complete and will not boot.",
                hint="Restore it again to complete it: what is right already is not fetched again.",
            ) from error

    def root(self) -> bytes:
        """The Merkle root of what the disk gave back, once all of its chunks were checked."""
        return merkle_root(self._map.size, self._map.chunk_size, (self._leaves[n] for n in sorted(self._leaves)))

    def _worker(self) -> Callable[[list[int]], None]:
        buffer = page_buffer(self._map.chunk_size)

        def read(piece: list[int]) -> None:
            for index in piece:
                if self._stop.is_set():
                    raise CancelledError("The restore was stopped while the disk was read back.")
                self._keep(index, self._check(index, buffer[: self._map.length(index)]))

        return read

    def _check(self, index: int, plain: memoryview) -> bytes:
        """The id of a chunk as it is on the disk: of its bytes, never taken from the map."""
        self._target.read(index * self._map.chunk_size, plain)
        entry = self._map.get(index)
        wanted = self._composed.get(index, entry.id if isinstance(entry, MapEntry) else _ZERO_ID)
        if wanted != _ZERO_ID and index not in self._lost:
            found = chunk_id(self._keys, plain)
            good = found == wanted
        else:
            good = is_zero(plain)
            found = _ZERO_ID
        if not good:
            raise IntegrityError(
                f"The disk '{self._target.path}' does not give back what was written at "
                f"{self._describe(index * self._map.chunk_size)}.",
                hint="The disk, its cable or controller is failing: choose another disk.",
            )
        return found

    def _keep(self, index: int, id: bytes) -> None:
        number, at = divmod(index, LEAF)
        count = min(LEAF, self._map.count - number * LEAF)
        with self._lock:
            self.done += self._map.length(index)
            if number not in self._open:
                self._open[number], self._left[number] = bytearray(count * ID_SIZE), count
            self._open[number][at * ID_SIZE : (at + 1) * ID_SIZE] = id
            self._left[number] -= 1
            # A leaf of which all was read takes 32 bytes from now on: the ids of a disk of 20 TiB take 640 MiB.
            if not self._left[number]:
                self._leaves[number] = merkle_leaf(self._open.pop(number))


def _pieces(indexes: Iterable[int], chunks: int) -> Iterable[list[int]]:
    piece: list[int] = []
    for index in indexes:
        piece.append(index)
        if len(piece) == chunks:
            yield piece
            piece = []
    if piece:
        yield piece
