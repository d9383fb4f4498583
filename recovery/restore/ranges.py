"""Which bytes of which packs to read, in what order. Pure.

Per pack rather than in disk order: up to three times fewer requests on an old repository. Neighbouring frames are
read together; a frame that several places of the disk need is read and decoded once. What is left of old packs are
small reads: many of them make a batch, which is one request to a store that gathers.
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence, Set
from itertools import groupby
from typing import NamedTuple

from recovery.format.chunkmap import ID_SIZE, PAGE, ChunkMap, Kind

#: Reading over a gap of up to 1 MiB is cheaper than another request; 8-16 MiB a read fill a link in spite of latency.
MAX_GAP = 1024 * 1024
MAX_READ = 16 * 1024 * 1024
#: Where a part costs no request, a gap costs more than it saves, unless it is no larger than what a disk reads ahead.
NO_GAP = 128 * 1024
#: What is read over gaps, as a share of what is needed, where each read is a request.
_OVER_READ = 0.12
#: From so many packs it is guessed how far apart the frames of all packs lie.
_SAMPLE = 500
#: Reads in a batch; ``recovery.repository.parts.MAX_PARTS`` is what a server takes.
_MOST_READS = 128
#: Runs of stored chunks in a page's kinds.
_STORED = re.compile(b"[%c]+" % Kind.BLOB)


class Frame(NamedTuple):
    """A frame to decode: its chunk's id, where it lies in the pack, and the chunk indexes of the disk that hold it."""

    id: bytes
    offset: int
    length: int
    indexes: tuple[int, ...]


class ReadRange(NamedTuple):
    """One read: ``length`` bytes from ``offset`` of ``pack`` (32 bytes), and the frames in it by offset."""

    pack: bytes
    offset: int
    length: int
    frames: list[Frame]


class Batch(NamedTuple):
    """Reads that are made together, ``length`` bytes in all."""

    reads: tuple[ReadRange, ...]
    length: int


class ZeroRange(NamedTuple):
    """``length`` bytes from ``offset`` of the disk that must read as zeros."""

    offset: int
    length: int


def plan_reads(
    map: ChunkMap,
    *,
    without: Set[int] = frozenset(),
    max_gap: int = MAX_GAP,
    max_read: int = MAX_READ,
) -> Iterator[ReadRange]:
    """All reads of a disk but those of chunks ``without``; packs in the order of their first use on it.

    Nothing is read twice, except a frame longer than ``max_read`` (there is none): every chosen stored chunk occurs
    in exactly one frame of one range.
    """
    for ref, runs in _by_pack(map).items():
        yield from coalesce(map.packs[ref], _frames(map, runs, without), max_gap=max_gap, max_read=max_read)


def coalesce(
    pack: bytes, frames: Sequence[Frame], *, max_gap: int = MAX_GAP, max_read: int = MAX_READ
) -> Iterator[ReadRange]:
    """The reads that get these frames of one pack, which are sorted by offset."""
    start = 0
    for at in range(1, len(frames) + 1):
        if at < len(frames):
            end = frames[at - 1].offset + frames[at - 1].length
            close = frames[at].offset - end <= max_gap
            if close and frames[at].offset + frames[at].length - frames[start].offset <= max_read:
                continue
        chosen = list(frames[start:at])
        begin = chosen[0].offset
        yield ReadRange(pack, begin, chosen[-1].offset + chosen[-1].length - begin, chosen)
        start = at


def batch_up(
    reads: Iterable[ReadRange], *, gathered: bool, max_read: int = MAX_READ, most: int = _MOST_READS
) -> Iterator[Batch]:
    """The reads in their order, several to a batch of at most ``max_read`` bytes when they are ``gathered`` by the
    store, else each one a batch."""
    chosen: list[ReadRange] = []
    length = 0
    for read in reads:
        if chosen and (not gathered or length + read.length > max_read or len(chosen) == most):
            yield Batch(tuple(chosen), length)
            chosen, length = [], 0
        chosen.append(read)
        length += read.length
    if chosen:
        yield Batch(tuple(chosen), length)


def suited_gap(map: ChunkMap, *, gathered: bool, most: float = _OVER_READ) -> int:
    """The largest gap to read over: the fewest requests for which the bytes in gaps are at most the share ``most`` of
    those that are needed. The smallest gaps come first, so no other choice saves more requests.

    Looks at a sample of the packs only: of a disk of 20 TiB there are 200,000.
    """
    if gathered:
        return NO_GAP
    groups = list(_by_pack(map).values())
    step = -(-len(groups) // _SAMPLE)
    gaps: list[int] = []
    needed = 0
    for runs in groups[::step] if groups else ():
        frames = _frames(map, runs, frozenset())
        needed += sum(frame.length for frame in frames)
        for left, right in zip(frames, frames[1:], strict=False):
            gap = right.offset - left.offset - left.length
            if 0 < gap <= MAX_GAP:
                gaps.append(gap)
    left_over = most * needed
    for gap in sorted(gaps):
        left_over -= gap
        if left_over < 0:
            return gap - 1
    return MAX_GAP


def plan_zeros(
    map: ChunkMap, *, without: Set[int] = frozenset(), step: int = 256 * 1024 * 1024
) -> Iterator[ZeroRange]:
    """All ranges that must read as zeros, cut into pieces of at most ``step`` bytes (to report progress between)."""
    chunks = max(1, step // map.chunk_size)
    left_out = sorted(without)
    for start, count, _allocated in map.zero_runs():
        borders = left_out[bisect_left(left_out, start) : bisect_left(left_out, start + count)]
        for first, last in zip([start, *(b + 1 for b in borders)], [*borders, start + count], strict=True):
            for at in range(first, last, chunks):
                end = min(at + chunks, last)
                yield ZeroRange(at * map.chunk_size, min(end * map.chunk_size, map.size) - at * map.chunk_size)


def interleave(batches: Iterable[Batch], chunks: int, zeros: Sequence[ZeroRange]) -> Iterator[Batch | ZeroRange]:
    """Both, each in its order and evenly mixed: so the rate of the first minute tells how long the rest will take.

    ``chunks`` is how many stored chunks all ``batches`` have; these are planned a pack at a time, when asked for.
    """
    read = done = 0
    for batch in batches:
        yield batch
        read += sum(len(frame.indexes) for work in batch.reads for frame in work.frames)
        due = len(zeros) * min(read, chunks) // max(1, chunks)
        yield from zeros[done:due]
        done = due
    yield from zeros[done:]


def _by_pack(map: ChunkMap) -> dict[int, array[int]]:
    """For each pack (as a ref), in the order of first use, where its chunks lie on the disk: (first, count) of runs,
    one after another. In runs, because a disk of 20 TiB has twenty million chunks."""
    groups: dict[int, array[int]] = {}
    for number, page in enumerate(map.pages):
        if page is None:
            continue
        for stored in _STORED.finditer(page.kinds):
            at = stored.start()
            for ref, same in groupby(page.refs[at : stored.end()]):
                count = sum(1 for _ in same)
                group = groups.get(ref)
                if group is None:
                    group = groups[ref] = array("I")
                group.extend((number * PAGE + at, count))
                at += count
    return groups


def _frames(map: ChunkMap, runs: array[int], without: Set[int]) -> list[Frame]:
    """The frames of one pack by offset; several indexes with the same offset are one frame."""
    found: dict[int, Frame] = {}
    for first, count in zip(runs[::2], runs[1::2], strict=True):
        number, at = divmod(first, PAGE)
        page = map.pages[number]
        assert page is not None  # noqa: S101 - the run came from this page
        for index in range(first, first + count):
            if index not in without:
                offset = page.offsets[at]
                known = found.get(offset)
                if known is None:
                    id = bytes(page.ids[at * ID_SIZE : (at + 1) * ID_SIZE])
                    found[offset] = Frame(id, offset, page.lengths[at], (index,))
                else:
                    found[offset] = known._replace(indexes=(*known.indexes, index))
            at += 1
    return sorted(found.values(), key=lambda frame: frame.offset)
