"""The bytes of a journal point: blocks of 4 KiB, in memory, the newest reading of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from recovery.capture.live.rawread import RawDisk
from recovery.capture.tracking.model import Extents, Piece, TrackedDisk
from recovery.errors import SpaceError
from recovery.format.chunk import is_zero
from recovery.format.journal import BLOCK, Change
from recovery.restore.buffers import page_buffer

#: Read at once, bytes.
_READ = 1024 * 1024
#: Of what reads as zeros (discarded ranges) no bytes are kept, but it has to be read: so many times the limit.
_READ_FACTOR = 4


class TooMuchError(SpaceError):
    """More changed than a journal may hold; a keyframe takes it."""


class JournalCopier:
    """A Copier that keeps every block that changed; None: it reads as zeros."""

    def __init__(self, disks: Sequence[TrackedDisk], limit: int) -> None:
        """``limit``: bytes of blocks that are not zero, of all disks together. Raises DeviceError."""
        self._limit = limit
        self._sizes = {disk.name: disk.size for disk in disks}
        self._raw = {disk.name: RawDisk(disk) for disk in disks}
        self._blocks: dict[str, dict[int, bytes | None]] = {disk.name: {} for disk in disks}
        self._kept = 0
        self._read = 0
        self._buffer = page_buffer(_READ)

    def close(self) -> None:
        """Let go of the disks."""
        for raw in self._raw.values():
            raw.close()

    def copy(self, changed: Mapping[str, Extents]) -> int:
        """See Copier. Raises TooMuchError, DeviceError."""
        total = 0
        for name, extents in self._aligned(changed).items():
            for offset, length in extents.pieces(_READ):
                buffer = self._buffer[:length]
                self._raw[name].read_into(offset, buffer)
                self._take(name, offset, buffer)
                total += length
                self._read += length
                if self._read > self._limit * _READ_FACTOR:
                    raise self._too_much()
        return total

    def remainder(self, changed: Mapping[str, Extents]) -> Mapping[str, Extents]:
        """See Copier."""
        return self._aligned(changed)

    def keep(self, pieces: Sequence[Piece]) -> None:
        """See Copier. Raises TooMuchError."""
        for piece in pieces:
            self._take(piece.disk, piece.offset, piece.data)

    def _aligned(self, changed: Mapping[str, Extents]) -> dict[str, Extents]:
        return {name: extents.aligned(BLOCK, self._sizes[name]) for name, extents in changed.items()}

    def _take(self, name: str, offset: int, data: memoryview) -> None:
        blocks = self._blocks[name]
        for at in range(0, len(data), BLOCK):
            number = (offset + at) // BLOCK
            block = data[at : at + BLOCK]
            before = blocks.get(number)
            now = None if is_zero(block) else bytes(block)
            blocks[number] = now
            self._kept += (len(now) if now else 0) - (len(before) if before else 0)
        if self._kept > self._limit:
            raise self._too_much()

    def _too_much(self) -> TooMuchError:
        return TooMuchError(
            f"More than {self._limit} bytes changed since the last point.",
            hint="A keyframe takes them. Raise limits.journal in agent.toml if that happens often.",
        )

    def changes(self, name: str) -> Iterator[Change]:
        """What became of the disk's blocks, in order; neighbours together."""
        blocks = self._blocks[name]
        start, run, zeros = -1, list[bytes](), 0
        for number in sorted(blocks):
            data = blocks[number]
            if start >= 0 and (number != start + len(run) + zeros or bool(zeros) != (data is None)):
                yield Change(start, len(run) + zeros, None if zeros else b"".join(run))
                start, run, zeros = -1, [], 0
            start = number if start < 0 else start
            if data is None:
                zeros += 1
            else:
                run.append(data)
        if start >= 0:
            yield Change(start, len(run) + zeros, None if zeros else b"".join(run))

    def changed(self, name: str) -> int:
        """Bytes of the blocks of a disk."""
        return len(self._blocks[name]) * BLOCK
