"""Chunk maps in memory: which chunk of content lies at each offset of a disk, and where its frame is.

A map knows the location of every frame, so a restore needs no index. It is kept in columns, in pages of 65,536
chunks; a page without any blob costs nothing, and a map made from its parent shares the pages that did not change.
How maps are stored is in ``mapcodec.py``.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from enum import IntEnum
from typing import NamedTuple

import blake3

from recovery.errors import IntegrityError
from recovery.format.chunk import MAX_CHUNK_SIZE, MIN_CHUNK_SIZE

PAGE = 65_536
#: Chunks in a leaf of the Merkle tree: 1024 ids of 32 bytes; a changed chunk re-hashes 32 KiB.
LEAF = 1024
ID_SIZE = 32
_ZERO_ID = bytes(ID_SIZE)


class Kind(IntEnum):
    """What a chunk is. Both ZERO and UNALLOCATED read as zeros and are not stored; UNALLOCATED was a hole."""

    UNALLOCATED = 0
    ZERO = 1
    BLOB = 2


ZERO = Kind.ZERO
UNALLOCATED = Kind.UNALLOCATED


class MapEntry(NamedTuple):
    """A stored chunk: its id (32 bytes), the pack (32 bytes) and where in it the frame lies."""

    id: bytes
    pack: bytes
    offset: int
    length: int


class Page:
    """The columns of 65,536 chunks (fewer in the last page). ``refs`` are indexes into the map's ``packs``."""

    __slots__ = ("ids", "kinds", "lengths", "offsets", "refs")

    def __init__(self, count: int) -> None:
        self.kinds = bytearray(count)
        self.ids = bytearray(count * ID_SIZE)
        self.refs = array("I", bytes(4 * count))
        self.offsets = array("I", bytes(4 * count))
        self.lengths = array("I", bytes(4 * count))

    def copy(self) -> Page:
        """A page that can be changed without changing this one."""
        page = Page(0)
        page.kinds, page.ids = self.kinds[:], self.ids[:]
        page.refs, page.offsets, page.lengths = self.refs[:], self.offsets[:], self.lengths[:]
        return page


class ChunkMap:
    """The map of one disk: ``size`` bytes in ``count`` chunks of ``chunk_size`` (the last may be shorter).

    ``depth`` is the number of stored maps that must be read before this one; ``packs`` the packs (32 bytes each) that
    entries refer to. Treat it as immutable; MapBuilder makes them.
    """

    def __init__(self, size: int, chunk_size: int) -> None:
        if size < 0 or not MIN_CHUNK_SIZE <= chunk_size <= MAX_CHUNK_SIZE or chunk_size & (chunk_size - 1):
            raise IntegrityError(f"A chunk map of {size} bytes in chunks of {chunk_size} bytes makes no sense.")
        self.size = size
        self.chunk_size = chunk_size
        self.count = -(-size // chunk_size)
        self.depth = 0
        self.packs: list[bytes] = []
        self.pages: list[Page | None] = [None] * (-(-self.count // PAGE))

    def page_count(self, number: int) -> int:
        """How many chunks page ``number`` has."""
        return min(PAGE, self.count - number * PAGE)

    def length(self, index: int) -> int:
        """Plain bytes of chunk ``index``."""
        return min(self.chunk_size, self.size - index * self.chunk_size)

    def get(self, index: int) -> Kind | MapEntry:
        """What chunk ``index`` is. Raises IndexError."""
        if not 0 <= index < self.count:
            raise IndexError(index)
        number, at = divmod(index, PAGE)
        page = self.pages[number]
        if page is None:
            return Kind.UNALLOCATED
        if page.kinds[at] != Kind.BLOB:
            return Kind(page.kinds[at])
        return self._entry(page, at)

    def _entry(self, page: Page, at: int) -> MapEntry:
        id = bytes(page.ids[at * ID_SIZE : (at + 1) * ID_SIZE])
        return MapEntry(id, self.packs[page.refs[at]], page.offsets[at], page.lengths[at])

    def blobs(self) -> Iterator[tuple[int, MapEntry]]:
        """Every stored chunk with its index, in order."""
        for number, page in enumerate(self.pages):
            if page is None:
                continue
            at = page.kinds.find(Kind.BLOB)
            while at >= 0:
                yield number * PAGE + at, self._entry(page, at)
                at = page.kinds.find(Kind.BLOB, at + 1)

    def blob_count(self) -> int:
        """How many chunks are stored ones."""
        return sum(page.kinds.count(Kind.BLOB) for page in self.pages if page is not None)

    def used(self) -> int:
        """Plain bytes in stored chunks."""
        total = self.blob_count() * self.chunk_size
        if self.count and isinstance(self.get(self.count - 1), MapEntry):
            total -= self.chunk_size - self.length(self.count - 1)
        return total

    def zero_runs(self) -> Iterator[tuple[int, int, bool]]:
        """Runs of chunks that read as zeros: (first index, count, allocated), merged over page borders."""
        start, length, allocated = 0, 0, False
        for first, count, kind in self._runs():
            is_allocated = kind == Kind.ZERO
            if length and kind != Kind.BLOB and is_allocated == allocated and start + length == first:
                length += count
                continue
            if length:
                yield start, length, allocated
            start, length, allocated = (first, count, is_allocated) if kind != Kind.BLOB else (0, 0, False)
        if length:
            yield start, length, allocated

    def _runs(self) -> Iterator[tuple[int, int, int]]:
        for number, page in enumerate(self.pages):
            base, count = number * PAGE, self.page_count(number)
            if page is None:
                yield base, count, Kind.UNALLOCATED
                continue
            at = 0
            while at < count:
                kind = page.kinds[at]
                end = min((p for k in Kind if k != kind and (p := page.kinds.find(k, at)) >= 0), default=count)
                yield base + at, end - at, kind
                at = end

    def used_packs(self) -> set[bytes]:
        """The packs that entries really refer to."""
        refs: set[int] = set()
        for page in self.pages:
            if page is None:
                continue
            if page.kinds.count(Kind.BLOB) == len(page.kinds):
                refs.update(page.refs)
            else:
                refs.update(ref for ref, kind in zip(page.refs, page.kinds, strict=True) if kind == Kind.BLOB)
        return {self.packs[ref] for ref in refs}

    def root(self) -> bytes:
        """The Merkle root (32 bytes) of the disk's content: leaves of 1024 ids (zeros: 32 zero bytes), then one hash
        over size, chunk size and all leaves. It does not depend on where the frames lie."""
        return merkle_root(self.size, self.chunk_size, self._leaves())

    def _leaves(self) -> Iterator[bytes]:
        zero_leaf = merkle_leaf(_ZERO_ID * LEAF)
        for number, page in enumerate(self.pages):
            count = self.page_count(number)
            for first in range(0, count, LEAF):
                chunks = min(LEAF, count - first)
                if page is not None:
                    yield merkle_leaf(page.ids[first * ID_SIZE : (first + chunks) * ID_SIZE])
                else:
                    yield zero_leaf if chunks == LEAF else merkle_leaf(_ZERO_ID * chunks)


def merkle_leaf(ids: bytes | bytearray) -> bytes:
    """The hash (32 bytes) of up to 1024 chunk ids in a row."""
    return blake3.blake3(ids).digest()


def merkle_root(size: int, chunk_size: int, leaves: Iterable[bytes]) -> bytes:
    """The Merkle root (32 bytes) of a disk of ``size`` bytes from all of its leaves in order."""
    top = blake3.blake3(b"rekindle merkle root 1" + size.to_bytes(8, "little"))
    top.update(chunk_size.to_bytes(4, "little"))
    for leaf in leaves:
        top.update(leaf)
    return top.digest()


class MapBuilder:
    """Makes a ChunkMap, from nothing (all UNALLOCATED) or from the parent's map, whose entries stay until they are
    set. ``base`` must have the same size and chunk size.
    """

    def __init__(self, size: int, chunk_size: int, base: ChunkMap | None = None) -> None:
        self._map = ChunkMap(size, chunk_size)
        self._own: set[int] = set()
        if base is not None:
            if (base.size, base.chunk_size) != (size, chunk_size):
                raise ValueError("the base map has another size or chunk size")
            self._map.packs = list(base.packs)
            self._map.pages = list(base.pages)
        self._refs = {pack: ref for ref, pack in enumerate(self._map.packs)}

    def page_count(self, number: int) -> int:
        """How many chunks page ``number`` has."""
        return self._map.page_count(number)

    def _page(self, number: int) -> Page:
        page = self._map.pages[number]
        if number not in self._own or page is None:
            page = Page(self._map.page_count(number)) if page is None else page.copy()
            self._map.pages[number] = page
            self._own.add(number)
        return page

    def set_zero(self, index: int, *, allocated: bool = True) -> None:
        """Chunk ``index`` reads as zeros; not ``allocated``: it is a hole."""
        kind = Kind.ZERO if allocated else Kind.UNALLOCATED
        number, at = divmod(index, PAGE)
        page = self._map.pages[number]
        if (Kind.UNALLOCATED if page is None else page.kinds[at]) == kind:
            return
        page = self._page(number)
        page.kinds[at] = kind
        page.ids[at * ID_SIZE : (at + 1) * ID_SIZE] = _ZERO_ID
        page.refs[at] = page.offsets[at] = page.lengths[at] = 0

    def set_blob(self, index: int, id: bytes, pack: bytes, offset: int, length: int) -> None:
        """Chunk ``index`` is chunk ``id``, whose frame lies in ``pack`` (32 bytes) at ``offset``."""
        if not 0 <= index < self._map.count:
            raise IndexError(index)
        number, at = divmod(index, PAGE)
        ref = self._refs.setdefault(pack, len(self._map.packs))
        if ref == len(self._map.packs):
            self._map.packs.append(pack)
        page = self._page(number)
        page.kinds[at] = Kind.BLOB
        page.ids[at * ID_SIZE : (at + 1) * ID_SIZE] = id
        page.refs[at], page.offsets[at], page.lengths[at] = ref, offset, length

    def add_packs(self, packs: Sequence[bytes]) -> None:
        """Enter packs in the table in this order, whether or not an entry refers to them yet."""
        for pack in packs:
            self._refs.setdefault(pack, len(self._map.packs))
            self._map.packs.append(pack)

    def set_page(self, number: int, ids: bytes, refs: array[int], offsets: array[int], lengths: array[int]) -> None:
        """Page ``number`` has stored chunks only; ``refs`` are indexes into the table of packs."""
        count = self._map.page_count(number)
        if len(ids) != count * ID_SIZE or not len(refs) == len(offsets) == len(lengths) == count:
            raise IndexError(number)
        if max(refs) >= len(self._map.packs):
            raise IndexError(max(refs))
        page = Page(0)
        page.kinds, page.ids = bytearray([Kind.BLOB]) * count, bytearray(ids)
        page.refs, page.offsets, page.lengths = refs, offsets, lengths
        self._map.pages[number] = page
        self._own.add(number)

    def finish(self) -> ChunkMap:
        """The map; the builder must not be used afterwards."""
        return self._map
