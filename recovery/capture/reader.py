"""Reading a source chunk by chunk: which chunks have data (holes are never read), and their bytes."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator

from recovery.capture.sources import Source, open_plain, open_raw
from recovery.errors import DeviceError

#: After a failed read the chunk is tried again in pieces of this size, to name the offset that cannot be read.
_PIECE = 4096


def chunk_runs(source: Source, chunk_size: int) -> Iterator[tuple[int, int, bool]]:
    """``(first chunk, count, has data)`` over the whole source in order; runs with data and holes take turns.

    A chunk has data when any byte of it is allocated. Where the file system can't tell, all of it is data.
    """
    count = -(-source.size // chunk_size)
    descriptor = open_plain(source)
    try:
        start, at = 0, 0
        while at < count:
            begin, end = _next_data(descriptor, at * chunk_size, source.size)
            first = max(at, begin // chunk_size) if begin < source.size else count
            last = min(count, -(-end // chunk_size))
            if first > at:
                # A run of data may go on right behind another one that ended within the same chunk.
                if at > start:
                    yield start, at - start, True
                yield at, first - at, False
                start = first
            at = max(last, first)
        if at > start:
            yield start, at - start, True
    finally:
        _close(descriptor)


def _close(descriptor: int) -> None:
    # Closing a file whose FUSE daemon died fails too, and must not hide the error that came before it. Nothing
    # can be lost: nothing was written.
    with contextlib.suppress(OSError):
        os.close(descriptor)


def _next_data(descriptor: int, offset: int, size: int) -> tuple[int, int]:
    """The next data range at or behind ``offset``; ``(size, size)`` when only a hole follows."""
    try:
        begin = os.lseek(descriptor, offset, os.SEEK_DATA)
        return begin, min(size, os.lseek(descriptor, begin, os.SEEK_HOLE))
    except OSError as error:
        if error.errno == errno.ENXIO:
            return size, size
        # Block devices and some file systems do not know holes.
        return offset, size


class SourceReader:
    """One worker's descriptor on a source; not for two threads at once."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._descriptor, self._direct = open_raw(source)

    def close(self) -> None:
        """Close the descriptor."""
        _close(self._descriptor)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill ``buffer`` (page-aligned) from ``offset``. Raises DeviceError naming the offset; never gives zeros
        for what could not be read."""
        if not self._direct and self._read_cached(offset, buffer):
            return
        filled = 0
        while filled < len(buffer):
            try:
                count = os.preadv(self._descriptor, [buffer[filled:]], offset + filled)
            except OSError as error:
                if error.errno == errno.EINVAL and self._direct:
                    self._without_direct()
                    continue
                raise self._name_the_place(offset + filled, len(buffer) - filled, error) from error
            if count == 0:
                raise DeviceError(
                    f"'{self._source.given}' ends at byte {offset + filled}, but it had {self._source.size} bytes.",
                    hint="It was cut while it was read; capture it again when nothing changes it.",
                )
            filled += count
        if not self._direct:
            os.posix_fadvise(self._descriptor, offset, len(buffer), os.POSIX_FADV_DONTNEED)

    def _read_cached(self, offset: int, buffer: memoryview) -> bool:
        """Take what the page cache holds already, and leave it there: somebody else wants it. What we bring in for
        ourselves is dropped again."""
        try:
            return os.preadv(self._descriptor, [buffer], offset, os.RWF_NOWAIT) == len(buffer)
        except OSError:
            return False

    def _without_direct(self) -> None:
        if self._direct:
            # The new one first: when it can't be had, there is still one to close.
            plain = open_plain(self._source)
            _close(self._descriptor)
            self._descriptor, self._direct = plain, False

    def _name_the_place(self, offset: int, length: int, error: OSError) -> DeviceError:
        self._without_direct()
        for piece in range(offset, offset + length, _PIECE):
            try:
                os.pread(self._descriptor, min(_PIECE, offset + length - piece), piece)
            except OSError:
                offset = piece
                break
        return DeviceError(
            f"'{self._source.given}' cannot be read at byte {offset}: {error.strerror}.",
            hint="The disk is failing: look at dmesg and smartctl, copy it with ddrescue and capture the copy.",
        )
