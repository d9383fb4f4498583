"""Write what a point holds into a new file: chunk by chunk, side by side, holes left as holes."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from recovery.errors import CancelledError, DeviceError, IntegrityError, SpaceError
from recovery.events import Listener, Progress
from recovery.explore.host import HostView
from recovery.explore.mapped import Mapped, Piece
from recovery.explore.newfiles import NewFiles
from recovery.format.chunk import is_zero
from recovery.format.chunkmap import MapEntry
from recovery.repository.attention import RetryTeller
from recovery.restore.crew import work_off
from recovery.units import MIB, RateMeter

#: A far store answers one request after 30 ms or more; so many chunks of 1 to 4 MiB are on their way at once.
_THREADS = 8
#: So much may wait in memory for a slow disk: less is left to flush at the end, when nothing shows progress.
_FLUSH_EVERY = 64 * MIB
#: Filesystems without holes write zeros when a file grows; in steps, so that the run can be stopped between two.
_GROW_STEP = 16 * MIB


@dataclass(frozen=True)
class Way:
    """How a file is written. ``step``: what its progress belongs to; ``disk``: what it is called there. ``holes``:
    the filesystem keeps them. ``skip_damaged``: what no copy of the repository has is left as zeros. ``teller`` knows
    how the store does, for the progress."""

    step: str = "extract"
    disk: str = ""
    holes: bool = True
    skip_damaged: bool = False
    teller: RetryTeller | None = None


@dataclass(frozen=True)
class _Task:
    """The pieces that lie in one chunk of a disk."""

    disk: str
    index: int
    pieces: tuple[Piece, ...]


@dataclass
class Extracted:
    """``written``: bytes that are not zeros; ``damaged``: (offset, length) in the file that no copy has."""

    name: str
    size: int
    written: int
    seconds: float
    damaged: tuple[tuple[int, int], ...] = ()


@dataclass
class _State:
    done: int = 0
    written: int = 0
    transferred: int = 0
    unflushed: int = 0
    damaged: list[tuple[int, int]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


def stored(view: HostView, mapped: Mapped) -> int:
    """Bytes of it that lie in chunks with content."""
    return sum(
        sum(piece.length for piece in task.pieces)
        for task in _tasks(view, mapped)
        if view.disk(task.disk).stored(task.index)
    )


def pack_ends(view: HostView, mapped: Mapped) -> dict[bytes, int]:
    """Pack -> how many of its bytes the content needs it to have."""
    ends: dict[bytes, int] = {}
    for task in _tasks(view, mapped):
        entry = view.disk(task.disk).map.get(task.index)
        if isinstance(entry, MapEntry):
            ends[entry.pack] = max(ends.get(entry.pack, 0), entry.offset + entry.length)
    return ends


def extract(
    view: HostView,
    mapped: Mapped,
    files: NewFiles,
    name: str,
    listener: Listener,
    cancel: threading.Event,
    way: Way | None = None,
) -> Extracted:
    """Write ``mapped`` into the new file ``name`` of ``files``, which is seen when those are published.

    Raises IntegrityError, UnreachableError, CancelledError, DeviceError, SpaceError, and as ``NewFiles.create``.
    """
    how = way or Way()
    total = mapped.size
    # What lies in no piece is a hole of the file, and is there as soon as the file is.
    state = _State(done=total - sum(piece.length for piece in mapped.pieces))
    started, meter = time.monotonic(), RateMeter()

    def tick() -> None:
        rate = meter.update(state.done)
        listener(
            Progress(step=how.step, disk=how.disk or name, done=state.done, total=total, written=state.written,
                     transferred=state.transferred, rate=rate, eta=meter.eta(total - state.done),
                     retries=how.teller.total if how.teller else 0, note=how.teller.note() if how.teller else "")
        )  # fmt: skip
        if cancel.is_set():
            files.drop()  # nothing of it is seen from now on, however long the last writes take

    descriptor = files.create(name)
    try:
        _grow(descriptor, mapped.size, how, cancel, tick)
        make = lambda: _writer(view, descriptor, state, how)  # noqa: E731
        work_off(_tasks(view, mapped), _THREADS, make, threading.Event(), cancel, tick)
        os.fsync(descriptor)
    except CancelledError:
        raise stopped() from None
    except OSError as error:
        raise _failed(name, error) from error
    finally:
        os.close(descriptor)
    tick()
    if cancel.is_set():
        raise stopped()
    seconds = time.monotonic() - started
    return Extracted(name, mapped.size, state.written, seconds, _joined(state.damaged))


def stopped() -> CancelledError:
    """The run was stopped before its files got their names."""
    return CancelledError("It was stopped. No file was left behind.", hint="Start it again; it begins anew.")


def _failed(name: str, error: OSError) -> DeviceError | SpaceError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return SpaceError(f"There is no room left for {name}.", hint="Choose a place with more room.")
    if error.errno == errno.EFBIG:
        return SpaceError(f"{name} is larger than a file may be there.", hint="Choose a place with ext4 or xfs.")
    return DeviceError(
        f"{name} cannot be written: {error.strerror}.", hint="Look at its disk (dmesg), or choose another."
    )


def _grow(descriptor: int, size: int, way: Way, cancel: threading.Event, tick: Callable[[], None]) -> None:
    """The file at its whole size: a hole, or zeros where there are none."""
    reached = 0 if not way.holes else size
    while reached < size:
        if cancel.is_set():
            raise stopped()
        tick()
        reached = min(size, reached + _GROW_STEP)
        os.truncate(descriptor, reached)
    os.truncate(descriptor, size)


def _writer(view: HostView, descriptor: int, state: _State, way: Way) -> Callable[[_Task], None]:
    def write(task: _Task) -> None:
        source = view.disk(task.disk)
        length = sum(piece.length for piece in task.pieces)
        lost = False
        try:
            chunk = source.chunk(task.index)
        except IntegrityError:
            if not way.skip_damaged:
                raise
            chunk, lost = None, True
        if chunk is not None and way.teller is not None:
            way.teller.over()
        begin = task.index * source.map.chunk_size
        entry = source.map.get(task.index)
        fetched = entry.length if isinstance(entry, MapEntry) else length
        written = 0
        for piece in task.pieces if chunk is not None else ():
            part = memoryview(chunk or b"")[piece.offset - begin : piece.offset - begin + piece.length]
            if not is_zero(part):
                at = 0
                while at < len(part):
                    at += os.pwrite(descriptor, part[at:], piece.at + at)
                written += len(part)
        with state.lock:
            state.written += written
            state.done += length
            state.transferred += 0 if chunk is None else fetched
            state.damaged += [(piece.at, piece.length) for piece in task.pieces] if lost else []
            state.unflushed += written
            flush = state.unflushed >= _FLUSH_EVERY
            state.unflushed = 0 if flush else state.unflushed
        if flush:
            os.fdatasync(descriptor)

    return write


def _joined(ranges: list[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """By offset, neighbours as one."""
    found: list[tuple[int, int]] = []
    for offset, length in sorted(ranges):
        if found and sum(found[-1]) == offset:
            found[-1] = (found[-1][0], found[-1][1] + length)
        else:
            found.append((offset, length))
    return tuple(found)


def _tasks(view: HostView, mapped: Mapped) -> Iterator[_Task]:
    """The chunks that hold it, each with its pieces, in the order of the first of them."""
    chunks: dict[tuple[str, int], list[Piece]] = {}
    for piece in mapped.pieces:
        size = view.disk(piece.disk).map.chunk_size
        at, offset, end = piece.at, piece.offset, piece.offset + piece.length
        while offset < end:
            index = offset // size
            length = min(end, (index + 1) * size) - offset
            chunks.setdefault((piece.disk, index), []).append(Piece(at, piece.disk, offset, length))
            at, offset = at + length, offset + length
    for (disk, index), pieces in chunks.items():
        yield _Task(disk, index, tuple(pieces))
