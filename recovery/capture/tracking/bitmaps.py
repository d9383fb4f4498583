"""How the changed blocks of several disks lie in memory that the kernel's program writes and we read. Pure.

There are two halves: the program marks in one of them while the other is read and cleared; a switch exchanges them. A
half is made of elements of 4096 bytes (the array's value size, so that the program reaches all of it by one look-up);
a disk takes whole elements, one bit a block, the least significant bit of each byte first.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from recovery.capture.tracking.extents import Extents
from recovery.capture.tracking.model import FINEST, MEMORY_BUDGET

ELEMENT_BYTES = 4096
ELEMENT_BLOCKS = ELEMENT_BYTES * 8
#: Bytes compared with zeros at once: nearly all of a bitmap is zero.
_PIECE = 1 << 16
_ZEROS = bytes(_PIECE)
_MARKED = re.compile(rb"\xff+|[^\x00\xff]")


@dataclass(frozen=True)
class Layout:
    """``elements`` of each half, and the first one of each disk within a half."""

    block_size: int
    sizes: tuple[int, ...]
    first: tuple[int, ...]
    elements: int

    def blocks(self, disk: int) -> int:
        """Blocks of the disk, the last one perhaps cut."""
        return -(-self.sizes[disk] // self.block_size)

    def place(self, half: int, disk: int) -> tuple[int, int]:
        """``(start, end)`` in bytes of a disk's bits in a half."""
        start = (half * self.elements + self.first[disk]) * ELEMENT_BYTES
        return start, start + -(-self.blocks(disk) // ELEMENT_BLOCKS) * ELEMENT_BYTES


def choose_block_size(sizes: Sequence[int], budget: int = MEMORY_BUDGET) -> int:
    """The finest block, 4096 bytes or more, with which both halves fit in ``budget`` bytes."""
    block = FINEST
    while layout(sizes, block).elements * ELEMENT_BYTES * 2 > budget and block < 1 << 30:
        block *= 2
    return block


def layout(sizes: Sequence[int], block_size: int) -> Layout:
    """The layout for disks of ``sizes`` bytes."""
    first: list[int] = []
    elements = 0
    for size in sizes:
        first.append(elements)
        elements += -(-size // (block_size * ELEMENT_BLOCKS))
    return Layout(block_size, tuple(sizes), tuple(first), max(1, elements))


def _runs_in_byte(value: int) -> tuple[tuple[int, int], ...]:
    runs: list[tuple[int, int]] = []
    at = 0
    while at < 8:
        if value >> at & 1:
            start = at
            while at < 8 and value >> at & 1:
                at += 1
            runs.append((start, at - start))
        else:
            at += 1
    return tuple(runs)


_RUNS = tuple(_runs_in_byte(value) for value in range(256))


def dirty_pieces(memory: memoryview, start: int, end: int) -> Iterator[tuple[int, bytes]]:
    """``(place, bytes)`` of the pieces of ``[start, end)`` that are not all zero."""
    for place in range(start, end, _PIECE):
        # Copied first: bytes are compared by memcmp, views one item after another (30 times slower).
        piece = memory[place : min(end, place + _PIECE)].tobytes()
        if piece != _ZEROS and piece.count(0) != len(piece):
            yield place, piece


def read_bits(memory: memoryview, layout: Layout, half: int, disk: int) -> Extents:
    """The changed ranges of a disk that a half holds, in bytes of the disk."""
    block, size = layout.block_size, layout.sizes[disk]
    start, end = layout.place(half, disk)

    def pairs() -> Iterator[tuple[int, int]]:
        for place, piece in dirty_pieces(memory, start, end):
            for found in _MARKED.finditer(piece):
                bit = (place - start + found.start()) * 8
                if piece[found.start()] == 0xFF:
                    yield bit * block, min(size, (bit + 8 * len(found.group())) * block)
                else:
                    for first, count in _RUNS[piece[found.start()]]:
                        yield (bit + first) * block, min(size, (bit + first + count) * block)

    return Extents.from_ranges(pairs())


def clear_bits(memory: memoryview, layout: Layout, half: int) -> None:
    """Make a half all zero, touching only what is not."""
    start = half * layout.elements * ELEMENT_BYTES
    for place, piece in dirty_pieces(memory, start, start + layout.elements * ELEMENT_BYTES):
        memory[place : place + len(piece)] = _ZEROS[: len(piece)]
