"""Where the bytes of a thin volume lie in its pool: the B-trees of dm-thin, read straight from the pool's metadata.

No device-mapper and no ``thin_dump``: pools of images that nothing has activated are read, on machines that know none.
Layout: Linux, ``drivers/md/dm-thin-metadata.c`` (superblock, mappings) and ``persistent-data/dm-btree-internal.h``.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from recovery.capture.crc32c import crc32c
from recovery.capture.ranges import Extent
from recovery.errors import IntegrityError
from recovery.format.extents import Run

#: Bytes of a block of metadata: THIN_METADATA_BLOCK_SIZE, the only size there is.
BLOCK = 4096
_SECTOR = 512
_MAGIC = 27022010
_VERSIONS = (1, 2)
_LEAF = 2
#: csum, flags, blocknr, nr_entries, max_entries, value_size, padding
_HEAD = struct.Struct("<IIQIIII")
#: A mapping is a block of the data volume, and in its lowest bits the time at which it was made.
_TIME = 24
#: What the checksums of the two are combined with: SUPERBLOCK_CSUM_XOR, BTREE_CSUM_XOR.
_SUPERBLOCK_XOR, _NODE_XOR = 160774, 121107
#: A tree of 64-bit keys with at least two children a node is no deeper.
_DEEPEST = 64

Reader = Callable[[int, int], bytes]


class _Node(NamedTuple):
    """``values`` of an inner node are blocks of metadata."""

    leaf: bool
    keys: tuple[int, ...]
    values: tuple[int, ...]


class _Stretch(NamedTuple):
    """``chunks`` chunks of a volume from ``at`` on lie in the pool's from ``block`` on."""

    at: int
    block: int
    chunks: int


@dataclass(frozen=True)
class ThinPlace:
    """A thin volume: what its pool's metadata and data volumes lie in, its number in that metadata (device id), and
    the transaction that LVM knows the pool by."""

    metadata: tuple[Extent, ...]
    data: tuple[Extent, ...]
    device: int
    transaction: int


def thin_runs(read: Reader, place: ThinPlace, size: int) -> list[Run]:
    """Where a thin volume of ``size`` bytes lies in its pool's data volume: runs in its order; what is in none was
    never written, and reads as zeros.

    ``read(offset, length)`` gives bytes of the pool's metadata volume. Raises IntegrityError for metadata that make no
    sense, and for a volume that is not in them.
    """
    root, chunk = _volume(read, place)
    runs = (Run(each.at * chunk, each.block * chunk, each.chunks * chunk) for each in _stretches(read, root))
    # A volume may end within a chunk, and may have been made smaller.
    return [Run(run.at, run.offset, min(run.length, size - run.at)) for run in runs if run.at < size]


def thin_start(read: Reader, place: ThinPlace) -> tuple[int, int] | None:
    """Offset and length, in the pool's data volume, of the chunk at the volume's beginning; None when nothing was ever
    written there. Raises as ``thin_runs``."""
    root, chunk = _volume(read, place)
    value = _find(read, root, 0)
    return None if value is None else ((value >> _TIME) * chunk, chunk)


def _volume(read: Reader, place: ThinPlace) -> tuple[int, int]:
    """The root of a volume's mappings, and the size of the pool's chunks."""
    head = read(0, BLOCK)
    if len(head) < BLOCK or struct.unpack_from("<Q", head, 32)[0] != _MAGIC:
        raise IntegrityError("The thin pool's metadata have no superblock.")
    _check(head, _SUPERBLOCK_XOR, 0)
    (version,) = struct.unpack_from("<I", head, 40)
    if version not in _VERSIONS:
        raise IntegrityError(f"The thin pool's metadata have version {version}, which is not known.")
    (mappings,) = struct.unpack_from("<Q", head, 320)
    (sectors,) = struct.unpack_from("<I", head, 336)
    if not sectors:
        raise IntegrityError("The thin pool's metadata give no size of its chunks.")
    (transaction,) = struct.unpack_from("<Q", head, 48)
    # One apart where a power cut came between the pool's metadata and LVM's, which LVM itself mends.
    if abs(transaction - place.transaction) > 1:
        raise IntegrityError(
            f"The thin pool's metadata are of transaction {transaction}, and LVM's of {place.transaction}: the "
            "numbers of its volumes may be others."
        )
    root = _find(read, mappings, place.device)
    if root is None:
        raise IntegrityError(f"The thin pool's metadata have no volume with the number {place.device}.")
    return root, sectors * _SECTOR


def _node(read: Reader, block: int) -> _Node:
    data = read(block * BLOCK, BLOCK)
    if len(data) < BLOCK:
        raise IntegrityError(f"Block {block} of the thin pool's metadata lies beyond their end.")
    _, flags, number, count, room, width, _ = _HEAD.unpack_from(data)
    if number != block or width != 8 or count > room or _HEAD.size + room * 16 > BLOCK:
        raise IntegrityError(f"Block {block} of the thin pool's metadata is no node of its tree.")
    _check(data, _NODE_XOR, block)
    keys = struct.unpack_from(f"<{count}Q", data, _HEAD.size)
    return _Node(bool(flags & _LEAF), keys, struct.unpack_from(f"<{count}Q", data, _HEAD.size + room * 8))


def _find(read: Reader, block: int, key: int) -> int | None:
    """The value of ``key`` in the tree with its root at ``block``."""
    for _ in range(_DEEPEST):
        node = _node(read, block)
        index = bisect_right(node.keys, key) - 1
        if index < 0 or (node.leaf and node.keys[index] != key):
            return None
        block = node.values[index]
        if node.leaf:
            return block
    raise IntegrityError("The tree of the thin pool's metadata has no end.")


def _stretches(read: Reader, root: int) -> list[_Stretch]:
    """All mappings of a volume's tree, in its order."""
    level = [root]
    for _ in range(_DEEPEST):
        inner: dict[int, tuple[int, ...]] = {}
        leaves: dict[int, list[_Stretch]] = {}
        # By their place: a reader that fetches much at once fetches everything only once.
        for block in sorted(level):
            node = _node(read, block)
            if node.leaf:
                leaves[block] = _joined((_Stretch(key, v >> _TIME, 1) for key, v in zip(*node[1:], strict=True)))
            else:
                inner[block] = node.values
        if not inner:
            return _joined(stretch for block in level for stretch in leaves[block])
        if leaves or len(inner) < len(level):
            break
        level = [child for block in level for child in inner[block]]
    raise IntegrityError("The tree of the thin pool's metadata has leaves at several depths, or a node twice.")


def _joined(stretches: Iterable[_Stretch]) -> list[_Stretch]:
    """Neighbours made one."""
    found: list[_Stretch] = []
    for each in stretches:
        last = found[-1] if found else _Stretch(0, 0, 0)
        if each.at < last.at + last.chunks:
            raise IntegrityError("The mappings of the thin pool's metadata are not in order.")
        if last.chunks and each.at == last.at + last.chunks and each.block == last.block + last.chunks:
            found[-1] = _Stretch(last.at, last.block, last.chunks + each.chunks)
        else:
            found.append(each)
    return found


def _check(data: bytes, xor: int, block: int) -> None:
    """The CRC-32C of all but itself stands first (persistent-data/dm-block-manager.c, dm_bm_checksum)."""
    if crc32c(data[4:]) ^ xor != int.from_bytes(data[:4], "little"):
        raise IntegrityError(f"Block {block} of the thin pool's metadata has a wrong checksum.")
