"""A disk of a point that can be read at any place: the chunks that are asked for are fetched, and no others."""

from __future__ import annotations

import threading
from collections import OrderedDict

from recovery.errors import IntegrityError, NotFoundError
from recovery.format.chunk import FrameDecoder
from recovery.format.chunkmap import ChunkMap, MapEntry
from recovery.format.names import pack_name
from recovery.repository.failover import copies_of
from recovery.repository.repository import Repository

#: Chunks that ``read`` remembers: file systems look at the same few again and again.
_KEPT = 32


class ChunkSource:
    """Chunks of one disk, decoded and checked; any number of threads may ask."""

    def __init__(self, repository: Repository, map: ChunkMap, disk: str) -> None:
        self.map = map
        self._repository, self._disk = repository, disk
        self._own = threading.local()
        self._kept: OrderedDict[int, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def chunk(self, index: int) -> bytes | None:
        """The content of chunk ``index``; None when it is zeros. A copy that has it damaged is passed over.

        Raises IntegrityError when no copy of the repository has it right, UnreachableError.
        """
        entry = self.map.get(index)
        if not isinstance(entry, MapEntry):
            return None
        decoder = getattr(self._own, "decoder", None)
        if decoder is None:
            decoder = self._own.decoder = FrameDecoder(self._repository.keys)
        frame, plain = bytearray(entry.length), bytearray(self.map.length(index))
        problem: Exception | None = None
        for copy in copies_of(self._repository.store):
            try:
                copy.read_into(pack_name(entry.pack.hex()), entry.offset, memoryview(frame))
                if decoder.decode_into(memoryview(frame), entry.id, memoryview(plain)) == len(plain):
                    return bytes(plain)
            except (IntegrityError, NotFoundError) as error:
                problem = error
        raise IntegrityError(
            f"No copy of the repository has the content of {self._disk} at byte {index * self.map.chunk_size}.",
            hint="Choose another point, or give another copy of the repository with --also.",
        ) from problem

    def read(self, offset: int, length: int) -> bytes:
        """Bytes of the disk; fewer only at its end."""
        parts: list[bytes] = []
        size = self.map.chunk_size
        end = min(offset + length, self.map.size)
        while offset < end:
            index, at = divmod(offset, size)
            part = self._remembered(index)[at : at + end - offset]
            parts.append(part)
            offset += len(part)
        return b"".join(parts)

    def _remembered(self, index: int) -> bytes:
        with self._lock:
            if index in self._kept:
                self._kept.move_to_end(index)
                return self._kept[index]
        found = self.chunk(index) or bytes(self.map.length(index))
        with self._lock:
            self._kept[index] = found
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return found
