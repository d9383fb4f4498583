"""The chunks of a consistent point: large passes go straight into the repository, small ones wait in memory, where the
last changes are patched in, so that under the freeze blocks are read and not whole chunks."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator, Mapping, Sequence

from recovery.capture.crew import Channel
from recovery.capture.diskmap import DiskMap
from recovery.capture.figures import Figures
from recovery.capture.hashing import BATCH_BYTES, Batch
from recovery.capture.live.limits import FreezeLimits
from recovery.capture.live.rawread import RawDisk, ReadingCrew
from recovery.capture.sending import Sender
from recovery.capture.sources import Source
from recovery.capture.tracking.model import Extents, Piece, TrackedDisk

Place = tuple[str, int]


class ChunkCopier:
    """A Copier (``tracking.model.Copier``) for the maps of ``disks``, within ``limits``. ``before_rest`` is called
    when the rest is about to be sent.

    Chunks that change in one pass are likely to change in the next: they are held in memory as long as there is room
    and they go on changing. Of a chunk that is not held all must be read under the freeze.
    """

    def __init__(
        self,
        disks: Sequence[DiskMap],
        tracked: Sequence[TrackedDisk],
        sender: Sender,
        limits: FreezeLimits,
        before_rest: Callable[[], None] = lambda: None,
    ) -> None:
        self._disks = {disk.source.name: disk for disk in disks}
        self._sender = sender
        self._before_rest = before_rest
        self._raw = {disk.name: RawDisk(disk) for disk in tracked}
        self._readers = ReadingCrew(self._raw)
        self._slot = max(disk.chunk_size for disk in disks)
        self._most = max(1, limits.held // self._slot)
        count = self._most + max(1, limits.memory // self._slot)
        self._memory = memoryview(mmap.mmap(-1, count * self._slot))
        self._free = list(range(count))
        self._held: dict[Place, memoryview] = {}
        self._slots: dict[Place, int] = {}
        self._is_first = True

    def close(self) -> None:
        """Let go of the disks and the memory."""
        self._readers.close()
        for raw in self._raw.values():
            raw.close()
        self._held.clear()

    def copy(self, changed: Mapping[str, Extents]) -> int:
        """See ``Copier.copy``."""
        places = [
            (name, index)
            for name, extents in changed.items()
            for index in extents.blocks(self._disks[name].chunk_size)
        ]
        is_first, self._is_first = self._is_first, False
        if is_first and len(places) > self._most:
            return self._send(places)
        new = [place for place in places if place not in self._held]
        if len(self._held) + len(new) > self._most:
            self._send_held(set(self._held).difference(places))
        room = self._most - len(self._held)
        # Before they are held: of a chunk that comes in anew all must be read.
        wanted = self.remainder(changed)
        for place in new[:room]:
            self._hold(place)
        parts = [part for name, extents in wanted.items() for part in self._parts(name, extents)]
        self._readers.read(parts)
        return sum(len(part[2]) for part in parts) + self._send(new[room:])

    def remainder(self, changed: Mapping[str, Extents]) -> Mapping[str, Extents]:
        """See ``Copier.remainder``: of chunks that are in memory what changed, else all of the chunk."""
        found: dict[str, Extents] = {}
        for name, extents in changed.items():
            disk = self._disks[name]
            size = disk.chunk_size
            missing = [
                (index * size, disk.length(index)) for index in extents.blocks(size) if (name, index) not in self._held
            ]
            found[name] = extents.union(Extents(missing))
        return found

    def keep(self, pieces: Sequence[Piece]) -> None:
        """See ``Copier.keep``: patch the pieces in, and send all that is in memory."""
        for piece in pieces:
            size = self._disks[piece.disk].chunk_size
            for index in Extents([(piece.offset, len(piece.data))]).blocks(size):
                if (piece.disk, index) not in self._held:
                    self._hold((piece.disk, index))
            for _, offset, place in self._parts(piece.disk, Extents([(piece.offset, len(piece.data))])):
                at = offset - piece.offset
                place[:] = piece.data[at : at + len(place)]
        self._before_rest()
        self._send_held(set(self._held))

    def _hold(self, place: Place) -> None:
        slot = self._slots[place] = self._free.pop()
        length = self._disks[place[0]].length(place[1])
        self._held[place] = self._memory[slot * self._slot : slot * self._slot + length]

    def _parts(self, name: str, extents: Extents) -> Iterator[tuple[str, int, memoryview]]:
        """``(disk, offset, memory)`` of ranges within chunks that are held."""
        size = self._disks[name].chunk_size
        for start, length in extents:
            offset, end = start, start + length
            while offset < end:
                index, within = divmod(offset, size)
                count = min(size - within, end - offset)
                if (name, index) in self._held:
                    yield name, offset, self._held[(name, index)][within : within + count]
                offset += count

    def _feed(self, places: Sequence[Place], batches: Channel[Batch], figures: Figures) -> None:
        for name, first, count in runs(places):
            disk = self._disks[name]
            figures.note = name if len(self._disks) > 1 else ""
            most = max(1, BATCH_BYTES // disk.chunk_size)
            for start in range(first, first + count, most):
                batches.put(Batch(disk, start, min(most, first + count - start)))
        batches.close()

    def _send(self, places: Sequence[Place]) -> int:
        """Read from the disks and send; logical bytes."""
        count = sum(self._disks[name].length(index) for name, index in places)
        if places:
            self._sender.send(count, lambda batches, figures: self._feed(places, batches, figures))
        return count

    def _send_held(self, which: set[Place]) -> None:
        """Send chunks from memory and let go of them."""
        places = sorted(which)
        if not places:
            return
        total = sum(len(self._held[place]) for place in places)
        self._sender.send(
            total,
            lambda batches, figures: self._feed(places, batches, figures),
            lambda source: HeldReader(source, self._disks, self._held),
        )
        for place in places:
            del self._held[place]
            self._free.append(self._slots.pop(place))


class HeldReader:
    """A ChunkReader of chunks in memory."""

    def __init__(self, source: Source, disks: Mapping[str, DiskMap], held: Mapping[Place, memoryview]) -> None:
        self._name, self._size, self._held = source.name, disks[source.name].chunk_size, held

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """See ``ChunkReader``; whole chunks only."""
        buffer[:] = self._held[(self._name, offset // self._size)]

    def close(self) -> None:
        """Nothing to let go of."""


def runs(places: Sequence[Place]) -> Iterator[tuple[str, int, int]]:
    """``(disk, first chunk, count)`` of neighbours in places that are sorted."""
    start = 0
    for at in range(1, len(places) + 1):
        if at == len(places) or places[at] != (places[at - 1][0], places[at - 1][1] + 1):
            name, first = places[start]
            yield name, first, at - start
            start = at
