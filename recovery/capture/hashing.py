"""A worker's loop: read a batch of chunks, name them by their content, ask for all at once, send the new ones."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from recovery.capture.crew import Channel, Crew
from recovery.capture.diskmap import DiskMap
from recovery.capture.figures import Figures
from recovery.capture.packer import Packer
from recovery.capture.reader import SourceReader
from recovery.capture.sources import Source
from recovery.format.chunk import FrameEncoder, chunk_id, is_zero
from recovery.repository.protocols import ChunkIndex
from recovery.repository.repository import Repository

#: Bytes of plain chunks that a worker holds: one look-up for each batch.
BATCH_BYTES = 32 * 1024 * 1024


@dataclass(frozen=True)
class Batch:
    """Neighbouring chunks of a disk, ``BATCH_BYTES`` at most."""

    disk: DiskMap
    first: int
    count: int


class ChunkReader(Protocol):
    """Where a worker reads the chunks of a disk."""

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill ``buffer`` from ``offset``. Raises DeviceError."""

    def close(self) -> None:
        """Let go of it."""


class Worker:
    """The state of one thread: its buffer, compressor and open sources."""

    def __init__(
        self,
        repository: Repository,
        index: ChunkIndex,
        packer: Packer,
        crew: Crew,
        figures: Figures,
        level: int,
        open_reader: Callable[[Source], ChunkReader] = SourceReader,
    ) -> None:
        self._keys = repository.keys
        self._index = index
        self._packer = packer
        self._crew = crew
        self._figures = figures
        self._encoder = FrameEncoder(repository.keys, level)
        # Anonymous memory is page-aligned, as O_DIRECT wants it.
        self._buffer = memoryview(mmap.mmap(-1, BATCH_BYTES))
        self._open_reader = open_reader
        self._readers: dict[str, ChunkReader] = {}

    def run(self, batches: Channel[Batch]) -> None:
        """Work until there are no more batches."""
        try:
            while (batch := batches.get()) is not None:
                self._work(batch)
        finally:
            for reader in self._readers.values():
                reader.close()

    def _work(self, batch: Batch) -> None:
        chunks = self._read(batch)
        claimed = self._packer.claim([(batch.disk, index, id) for index, id, _ in chunks])
        mine = [chunk for number, chunk in enumerate(chunks) if number in claimed]
        if not mine:
            return
        for (_, id, plain), location in zip(mine, self._index.lookup([id for _, id, _ in mine]), strict=True):
            self._crew.check()
            if location is not None:
                self._packer.settle(id, location, added=False)
            else:
                self._packer.add(id, self._encoder.compress(plain), self._encoder)

    def _read(self, batch: Batch) -> list[tuple[int, bytes, memoryview]]:
        """Index, id and content of the batch's chunks that are not zero."""
        disk = batch.disk
        name = disk.source.name
        reader = self._readers.get(name) or self._readers.setdefault(name, self._open_reader(disk.source))
        found: list[tuple[int, bytes, memoryview]] = []
        for number in range(batch.count):
            self._crew.check()
            index = batch.first + number
            length = disk.length(index)
            plain = self._buffer[number * disk.chunk_size : number * disk.chunk_size + length]
            reader.read_into(index * disk.chunk_size, plain)
            if is_zero(plain):
                disk.set_zero(index)
                self._figures.skip(length)
            else:
                found.append((index, chunk_id(self._keys, plain), plain))
            self._figures.look_at(length)
        return found
