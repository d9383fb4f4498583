"""Reading a disk past the page cache, where the block device may show what is not committed yet."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from recovery.capture.tracking.model import TrackedDisk
from recovery.errors import DeviceError


class RawDisk:
    """A disk opened with O_DIRECT; many threads may read at once. Offsets and lengths are multiples of its sectors,
    buffers lie in pages."""

    def __init__(self, disk: TrackedDisk) -> None:
        self._disk = disk
        try:
            self._descriptor = os.open(disk.path, os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
        except OSError as error:
            raise DeviceError(
                f"'{disk.path}' cannot be read past the page cache: {error.strerror}.",
                hint="Run as root; a running host can only be captured from disks that allow O_DIRECT.",
            ) from error

    def close(self) -> None:
        """Close it."""
        os.close(self._descriptor)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill ``buffer`` from ``offset``. Raises DeviceError."""
        filled = 0
        while filled < len(buffer):
            try:
                count = os.preadv(self._descriptor, [buffer[filled:]], offset + filled)
                if count == 0:
                    raise OSError(errno.EIO, "it ends before its size")
            except OSError as error:
                raise DeviceError(
                    f"'{self._disk.path}' cannot be read at byte {offset + filled}: {error.strerror}.",
                    hint="The disk is failing: look at dmesg and smartctl.",
                ) from error
            filled += count


#: Reads at once: the time of small ones is the disk's latency, mostly.
READERS = 8
#: The priority while programs wait for us: above all that is ordinary.
HURRY = -20

Read = tuple[str, int, memoryview]


class ReadingCrew:
    """Threads that read many small ranges at once; they are there before they are needed."""

    def __init__(self, disks: Mapping[str, RawDisk], *, hurried: bool = False) -> None:
        """``hurried``: they run only for moments, in which all others wait for them."""
        self._disks = disks
        self._threads = ThreadPoolExecutor(
            READERS, "capture-reader", (lambda: set_priority(HURRY)) if hurried else None
        )
        ready = threading.Barrier(READERS + 1)
        for _ in range(READERS):
            self._threads.submit(ready.wait)
        ready.wait()

    def read(self, reads: Sequence[Read], in_time: Callable[[], bool] = lambda: True) -> bool:
        """Do ``reads`` (disk, offset, memory) as long as ``in_time``; whether all were done. Raises DeviceError."""
        share = -(-len(reads) // READERS) or 1
        shares = [reads[start : start + share] for start in range(0, len(reads), share)]
        waiting = [self._threads.submit(self._read_share, each, in_time) for each in shares]
        # All of them, also after one that was late: nobody may write into that memory afterwards.
        done = [each.result() for each in waiting]
        return all(done)

    def _read_share(self, reads: Sequence[Read], in_time: Callable[[], bool]) -> bool:
        for name, offset, memory in reads:
            if not in_time():
                return False
            self._disks[name].read_into(offset, memory)
        return True

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown(wait=True)


def set_priority(nice: int) -> int:
    """Set this thread's niceness where that is allowed; what it was."""
    thread = threading.get_native_id()
    before = os.getpriority(os.PRIO_PROCESS, thread)
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, thread, nice)
    return before
