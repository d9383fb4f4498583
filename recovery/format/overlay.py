"""Journals over a keyframe: which bytes of each chunk come from which journal. Pure.

Nothing is merged beforehand: a chain of 240 journals of a busy disk has millions of extents. Each chunk is resolved
when it is composed, by a look into the sorted columns of each journal, the newest first.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from recovery.errors import IntegrityError
from recovery.format.chunkmap import ID_SIZE, LEAF, PAGE, ChunkMap, merkle_leaf, merkle_root
from recovery.format.journal import BLOCK, FRAME_SIZE
from recovery.format.journalhead import JournalHead

_ZERO_ID = bytes(ID_SIZE)
#: For the parts of a chunk that read as zeros: in no frame.
NOWHERE = -1


class Part(NamedTuple):
    """``length`` bytes at ``at`` of a chunk lie at ``start`` of the plain bytes of frame ``frame`` of journal
    ``journal`` (its place in the chain); ``journal`` NOWHERE: they are zeros."""

    at: int
    length: int
    journal: int
    frame: int
    start: int


class Composed(NamedTuple):
    """How to make a chunk: its parts from journals, disjoint; ``whole``: they cover it, its base is not needed."""

    parts: tuple[Part, ...]
    whole: bool


class Overlay:
    """The journals of one disk, oldest first, over its keyframe's map. ``names`` are the object names of the
    journals."""

    def __init__(self, map: ChunkMap, heads: Sequence[JournalHead], names: Sequence[str]) -> None:
        self.map = map
        self.heads = tuple(heads)
        self.names = tuple(names)
        for head in self.heads:
            if head.header.size != map.size:
                raise IntegrityError("A journal is of a disk of another size than its keyframe.")

    def root(self) -> bytes:
        """The root (32 bytes) that the point is signed with: of the keyframe's map, and of every journal since."""
        root = self.map.root()
        for head in self.heads:
            root = head.root(root)
        return root

    def touched(self) -> list[int]:
        """The indexes of all chunks with a block in a journal, in order."""
        per_chunk = self.map.chunk_size // BLOCK
        found: set[int] = set()
        for head in self.heads:
            for start, count in zip(head.starts, head.counts, strict=True):
                found.update(range(start // per_chunk, (start + count - 1) // per_chunk + 1))
        return sorted(found)

    def compose(self, index: int) -> Composed:
        """How chunk ``index`` is made; the newest journal that has a block wins."""
        per_chunk = self.map.chunk_size // BLOCK
        low = index * per_chunk
        blocks = -(-self.map.length(index) // BLOCK)
        everything, covered = (1 << blocks) - 1, 0
        parts: list[Part] = []
        for number in range(len(self.heads) - 1, -1, -1):
            head = self.heads[number]
            at = max(0, bisect_right(head.starts, low) - 1)
            while at < len(head.starts) and head.starts[at] < low + blocks:
                start, end = max(head.starts[at], low), min(head.starts[at] + head.counts[at], low + blocks)
                if start < end:
                    mask = (((1 << (end - start)) - 1) << (start - low)) & ~covered
                    covered |= mask
                    for first, count in _runs(mask):
                        parts += self._parts(number, at, low, first, count, index)
                at += 1
            if covered == everything:
                break
        return Composed(tuple(parts), covered == everything)

    def _parts(self, number: int, extent: int, low: int, first: int, count: int, index: int) -> Iterator[Part]:
        head = self.heads[number]
        at = first * BLOCK
        length = min(count * BLOCK, self.map.length(index) - at)
        position = head.positions[extent]
        if position < 0:
            yield Part(at, length, NOWHERE, 0, 0)
            return
        position += (low + first - head.starts[extent]) * BLOCK
        while length:
            frame, start = divmod(position, FRAME_SIZE)
            step = min(length, FRAME_SIZE - start)
            yield Part(at, step, number, frame, start)
            at, position, length = at + step, position + step, length - step


def composed_root(map: ChunkMap, composed: Mapping[int, bytes]) -> bytes:
    """The Merkle root (32 bytes) of a disk whose chunks are those of ``map`` but for ``composed``: index -> id
    (32 zero bytes for a chunk of zeros)."""
    by_leaf: dict[int, list[int]] = {}
    for index in composed:
        by_leaf.setdefault(index // LEAF, []).append(index)

    def leaves() -> Iterator[bytes]:
        for number in range(-(-map.count // LEAF)):
            first = number * LEAF
            count = min(LEAF, map.count - first)
            page, at = map.pages[first // PAGE], first % PAGE
            ids = bytearray(count * ID_SIZE) if page is None else page.ids[at * ID_SIZE : (at + count) * ID_SIZE]
            for index in by_leaf.get(number, ()):
                ids[(index - first) * ID_SIZE : (index - first + 1) * ID_SIZE] = composed[index]
            yield merkle_leaf(ids)

    return merkle_root(map.size, map.chunk_size, leaves())


def _runs(mask: int) -> Iterator[tuple[int, int]]:
    """Runs of ones: (first bit, count)."""
    at = 0
    while mask:
        skip = (mask & -mask).bit_length() - 1
        mask >>= skip
        at += skip
        count = (~mask & (mask + 1)).bit_length() - 1
        yield at, count
        mask >>= count
        at += count
