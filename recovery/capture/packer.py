"""New chunks on their way into the repository: claimed once, framed, packed, stored, then entered in the maps."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from recovery.capture.crew import Channel, Crew, Stopped
from recovery.capture.diskmap import DiskMap
from recovery.capture.figures import Figures
from recovery.format.chunk import FrameEncoder, Payload
from recovery.format.pack import Pack, PackBuilder, pack_buffer
from recovery.repository.protocols import ChunkIndex, ChunkLocation
from recovery.repository.repository import Repository

Place = tuple[DiskMap, int]


class OpenPack:
    """A pack that several workers fill at once. It is complete when it was closed and all frames are in their places;
    whoever does the last of both sends it on."""

    def __init__(self, buffer: memoryview) -> None:
        self.buffer = buffer
        self.builder = PackBuilder(buffer)
        self._lock = threading.Lock()
        # One for closing it.
        self._missing = 1

    def reserve(self, id: bytes, payload: Payload) -> memoryview:
        """Room for a frame, which ``settle`` is told of when it is there. Only before the pack was closed."""
        with self._lock:
            self._missing += 1
        return self.builder.reserve(id, payload.frame_length, payload.plain_length)

    def settle(self, count: int) -> bool:
        """``count`` frames are there, or one less and the pack is closed; whether it is complete now."""
        with self._lock:
            self._missing -= count
            return self._missing == 0


class Packer:
    """Each content is looked up and stored once, however many chunks of the disks have it.

    A chunk id is *claimed* by the first worker that meets it; others that meet it before it is settled only leave
    their place. It is settled when the index knows it or its pack is stored; only then do maps refer to it.
    """

    def __init__(
        self, repository: Repository, index: ChunkIndex, crew: Crew, figures: Figures, uploaders: int
    ) -> None:
        self._repository = repository
        self._index = index
        self._crew = crew
        self._figures = figures
        self._lock = threading.Lock()
        self._claims: dict[bytes, list[Place]] = {}
        # One pack for each uploader, one that waits for them and one that is filled: all the memory for packs.
        buffers = uploaders + 2
        self._free: Channel[memoryview] = Channel(crew, buffers, [pack_buffer() for _ in range(buffers)])
        self._full: Channel[OpenPack] = Channel(crew, buffers + 1)
        self._open: OpenPack | None = None
        # Of its own, because it is held while waiting for a free buffer, which comes when others settle.
        self._pack_lock = threading.Lock()

    def claim(self, chunks: Sequence[tuple[DiskMap, int, bytes]]) -> set[int]:
        """Which of the chunks (disk, index, id) the caller must look up or store, by their place in the sequence."""
        mine: set[int] = set()
        with self._lock:
            for number, (disk, index, id) in enumerate(chunks):
                places = self._claims.setdefault(id, [])
                places.append((disk, index))
                if len(places) == 1:
                    mine.add(number)
        return mine

    def settle(self, id: bytes, location: ChunkLocation, *, added: bool) -> None:
        """The chunk lies at ``location``: enter it in all maps that wait for it."""
        with self._lock:
            places = self._claims.pop(id)
        for number, (disk, index) in enumerate(places):
            disk.set_stored(index, id, location, added=added and number == 0)
            if not (added and number == 0):
                self._figures.skip(disk.length(index))

    def add(self, id: bytes, payload: Payload, encoder: FrameEncoder) -> None:
        """Put a claimed chunk's frame in a pack. Waits while too many packs are on their way. Raises Stopped."""
        with self._pack_lock:
            pack = self._open
            if pack is None:
                buffer = self._free.get()
                if buffer is None:
                    raise Stopped
                pack = self._open = OpenPack(buffer)
            place = pack.reserve(id, payload)
            closed = pack.builder.full
            if closed:
                self._open = None
        # Straight into the pack, and beside the other workers.
        encoder.seal_into(id, payload, place)
        if pack.settle(2 if closed else 1):
            self._full.put(pack)

    def flush(self) -> None:
        """Send the last pack and let the uploaders end, when no worker adds any more. Raises Stopped."""
        if self._open is not None:
            self._open.settle(1)
            self._full.put(self._open)
            self._open = None
        self._full.close()

    def upload(self) -> None:
        """An uploader thread's work: store packs until there are no more."""
        while (complete := self._full.get()) is not None:
            self._store(complete.builder.finish())
            self._free.put(complete.buffer)

    def _store(self, pack: Pack) -> None:
        self._repository.put_pack(pack)
        name = bytes.fromhex(pack.name)
        ids = [entry.id for entry in pack.entries]
        locations = [ChunkLocation(name, entry.offset, entry.length) for entry in pack.entries]
        # Before the claims go: whoever meets the chunk from now on finds it in the index.
        self._index.add(ids, locations)
        self._figures.transfer(len(pack.data), sum(entry.plain_length for entry in pack.entries))
        for id, location in zip(ids, locations, strict=True):
            self.settle(id, location, added=True)
