"""A disk of a point that can be read at any place: the chunks that are asked for are fetched, and no others."""

from __future__ import annotations

import threading
from collections import OrderedDict

from recovery.repository.content import ChunkReader, DiskContent
from recovery.repository.repository import Repository

#: Chunks that ``read`` remembers: file systems look at the same few again and again.
_KEPT = 32


class ChunkSource:
    """Chunks of one disk, decoded and checked; any number of threads may ask."""

    def __init__(self, repository: Repository, content: DiskContent, disk: str) -> None:
        self.map = content.map
        self._repository, self._content, self._disk = repository, content, disk
        self._own = threading.local()
        self._kept: OrderedDict[int, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def stored(self, index: int) -> bool:
        """Whether anything has to be read for chunk ``index``; else it is zeros."""
        return self._content.stored(index)

    def chunk(self, index: int) -> bytes | None:
        """The content of chunk ``index``; None when it is zeros. A copy that has it damaged is passed over.

        Raises IntegrityError when no copy of the repository has it right, UnreachableError.
        """
        reader: ChunkReader | None = getattr(self._own, "reader", None)
        if reader is None:
            reader = self._own.reader = ChunkReader(self._repository, self._content, self._disk)
        return reader.chunk(index)

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
