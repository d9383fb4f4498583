"""A captured partition as its filesystem knows it, half on the target and half in the repository.

A filesystem that is to be made smaller must be whole while its own tool moves what lies beyond the new end. The
beginning, which stays, is on the target already; what lies beyond is read from the recovery point. So nothing needs
room that is not there: the tool reads the far blocks from the repository and writes them where they will stay.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from recovery.errors import DeviceError
from recovery.restore.view import PointView
from recovery.units import MIB

#: Bytes beyond the new end that tools may write (a journal that is replayed, copies of a superblock): kept in memory.
MOST_BEYOND = 64 * MIB
_PAGE = 4096


class Composed:
    """``size`` bytes: the first ``kept`` lie at ``start`` of the target, the others at ``old_start + kept`` of the
    captured disk (there may be none). A Backing of ``recovery.restore.fuse``."""

    def __init__(
        self, target: str, start: int, kept: int, *, view: PointView | None = None, old_start: int = 0, size: int = 0
    ) -> None:
        """Raises DeviceError when the target cannot be opened."""
        self.size = size or kept
        self._path, self._start, self._kept, self._old_start, self._view = target, start, kept, old_start, view
        self._beyond: dict[int, bytes] = {}
        try:
            self._disk = os.open(target, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise DeviceError(f"'{target}' cannot be opened: {error.strerror}.", hint="See 'dmesg'.") from error

    def read(self, offset: int, length: int) -> bytes:
        """The bytes. Raises OSError and what PointView.read raises."""
        here = max(0, min(length, self._kept - offset))
        found = os.pread(self._disk, here, self._start + offset) if here else b""
        if len(found) < here:
            raise OSError(errno.EIO, f"'{self._path}' ends early")
        return found + self._read_beyond(offset + here, length - here) if length > here else found

    def _read_beyond(self, offset: int, length: int) -> bytes:
        if self._view is None:
            return bytes(length)
        data = bytearray(self._view.read(self._old_start + offset, length).ljust(length, b"\0"))
        for page in range(offset // _PAGE, (offset + length - 1) // _PAGE + 1) if self._beyond else ():
            if page in self._beyond:
                begin, end = max(offset, page * _PAGE), min(offset + length, (page + 1) * _PAGE)
                data[begin - offset : end - offset] = self._beyond[page][begin - page * _PAGE : end - page * _PAGE]
        return bytes(data)

    def write(self, offset: int, data: memoryview) -> None:
        """To the target, or to memory for what lies beyond. Raises OSError, CancelledError."""
        if self._view is not None:
            self._view.stop_if_asked()
        here = max(0, min(len(data), self._kept - offset))
        done = 0
        while done < here:
            done += os.pwrite(self._disk, data[done:here], self._start + offset + done)
        at = offset + here
        while at < offset + len(data):
            page, inside = divmod(at, _PAGE)
            count = min(_PAGE - inside, offset + len(data) - at)
            old = self._beyond.get(page)
            if old is None:
                if (len(self._beyond) + 1) * _PAGE > MOST_BEYOND:
                    raise OSError(errno.ENOSPC, f"more than {MOST_BEYOND} bytes are written beyond the new end")
                old = self._read_beyond(page * _PAGE, _PAGE)
            piece = bytes(data[at - offset : at - offset + count])
            self._beyond[page] = old[:inside] + piece + old[inside + count :]
            at += count

    def sync(self) -> None:
        """Raises OSError."""
        os.fsync(self._disk)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._disk)


class ReadOnly:
    """``size`` bytes from ``start`` of a captured disk. A Backing that takes no writes."""

    def __init__(self, view: PointView, start: int, size: int) -> None:
        self.size = size
        self._view, self._start = view, start

    def read(self, offset: int, length: int) -> bytes:
        """The bytes. Raises what PointView.read raises."""
        return self._view.read(self._start + offset, length).ljust(length, b"\0")

    def write(self, offset: int, data: memoryview) -> None:
        """Raises OSError."""
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    def sync(self) -> None:
        """There is nothing to do."""


def write_all(path: str, writes: list[tuple[int, bytes]]) -> None:
    """Write pieces in their order, each on stable storage before the next. Raises DeviceError."""
    try:
        with Path(path).open("r+b", buffering=0) as disk:
            for offset, data in writes:
                disk.seek(offset)
                if disk.write(data) != len(data):
                    raise OSError(errno.EIO, os.strerror(errno.EIO))
                os.fsync(disk.fileno())
    except OSError as error:
        raise DeviceError(
            f"The partition table cannot be written to '{path}': {error.strerror}.", hint="See 'dmesg'."
        ) from error
