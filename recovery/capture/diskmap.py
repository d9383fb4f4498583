"""The chunk map of one disk while it is captured, and the figures about it. Safe to use from many threads."""

from __future__ import annotations

import threading

from recovery.capture.sources import Source
from recovery.format.chunkmap import PAGE, ChunkMap, Kind, MapBuilder, MapEntry
from recovery.repository.protocols import ChunkLocation

#: What is known of a chunk: it was set; it differs from the base now.
_SET, _DIFFERS = 1, 2


class DiskMap:
    """``base`` is the map of the same disk in the parent point, if there is one of the same size.

    ``stored`` counts the bytes of frames that this disk added to the repository, ``changed`` the logical bytes that
    differ from the base (with no base: all that are not zero).
    """

    def __init__(self, source: Source, chunk_size: int, base: ChunkMap | None, base_name: str) -> None:
        self.source = source
        self.chunk_size = chunk_size
        self.base = base
        self.base_name = base_name
        self.changed = 0
        self.stored = 0
        self._builder = MapBuilder(source.size, chunk_size, base)
        self._state = bytearray(-(-source.size // chunk_size))
        self._lock = threading.Lock()

    def length(self, index: int) -> int:
        """Plain bytes of chunk ``index``."""
        return min(self.chunk_size, self.source.size - index * self.chunk_size)

    def set_hole(self, first: int, count: int) -> None:
        """Chunks that the source has not allocated."""
        if self.base is None:
            return  # a new map is all holes
        index = first
        while index < first + count:
            if self.base.pages[index // PAGE] is None:
                # Holes there already: 64 GiB at once, so that a large sparse disk costs nothing.
                index = (index // PAGE + 1) * PAGE
            else:
                self.set_zero(index, allocated=False)
                index += 1

    def set_zero(self, index: int, *, allocated: bool = True) -> None:
        """A chunk that reads as zeros. The last word on a chunk counts, however often it is set."""
        was_stored = self.base is not None and isinstance(self.base.get(index), MapEntry)
        with self._lock:
            self._builder.set_zero(index, allocated=allocated)
            self._note(index, was_stored)

    def set_stored(self, index: int, id: bytes, location: ChunkLocation, *, added: bool = False) -> None:
        """A chunk whose frame lies at ``location``; ``added``: it was stored for this very chunk."""
        before = self.base.get(index) if self.base is not None else Kind.UNALLOCATED
        same = isinstance(before, MapEntry) and before.id == id
        with self._lock:
            if self._state[index] or not (isinstance(before, MapEntry) and same and before.pack == location.pack):
                # Also when only the place differs: the index knows which packs are really there.
                self._builder.set_blob(index, id, location.pack, location.offset, location.length)
            self._note(index, not same)
            self.stored += location.length if added else 0

    def _note(self, index: int, differs: bool) -> None:
        was = bool(self._state[index] & _DIFFERS)
        self._state[index] = _SET | (_DIFFERS if differs else 0)
        self.changed += self.length(index) * (differs - was)

    def finish(self) -> ChunkMap:
        """The map; nothing may be set afterwards."""
        return self._builder.finish()
