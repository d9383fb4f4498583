"""Write what a point holds into a new file: chunk by chunk, side by side, holes left as holes."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from recovery.errors import DeviceError, SpaceError, UsageError
from recovery.events import Listener, Progress
from recovery.explore.host import HostView, Mapped, Piece
from recovery.format.chunk import is_zero
from recovery.restore.crew import work_off
from recovery.units import RateMeter, format_size

#: A far store answers one request after 30 ms or more; so many chunks of 1 to 4 MiB are on their way at once.
_THREADS = 8


@dataclass(frozen=True)
class _Task:
    """The pieces that lie in one chunk of a disk."""

    disk: str
    index: int
    pieces: tuple[Piece, ...]


@dataclass
class Extracted:
    """``written``: bytes that are not zeros."""

    path: str
    size: int
    written: int
    seconds: float


@dataclass
class _State:
    done: int = 0
    written: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


def check_room(view: HostView, wanted: list[tuple[Mapped, Path]]) -> None:
    """Raises UsageError for a file that is there already, SpaceError when the content has no room."""
    needed: dict[Path, int] = {}
    for mapped, path in wanted:
        if path.exists() or path.is_symlink():
            raise UsageError(f"{path} is there already, and nothing is overwritten.", hint="Name another folder.")
        needed[path.parent] = needed.get(path.parent, 0) + stored(view, mapped)
    for folder, size in needed.items():
        free = shutil.disk_usage(folder).free
        if size > free:
            raise SpaceError(f"{folder} has {format_size(free)} free, {format_size(size)} are needed.")


def stored(view: HostView, mapped: Mapped) -> int:
    """Bytes of it that lie in chunks with content."""
    return sum(
        sum(piece.length for piece in task.pieces)
        for task in _tasks(view, mapped)
        if view.disk(task.disk).stored(task.index)
    )


def extract(view: HostView, mapped: Mapped, path: Path, listener: Listener, cancel: threading.Event) -> Extracted:
    """Write ``mapped`` into the new file ``path``. What ends early leaves no file.

    Raises IntegrityError, UnreachableError, CancelledError, DeviceError.
    """
    started, state, meter = time.monotonic(), _State(), RateMeter()
    total = sum(piece.length for piece in mapped.pieces)

    def tick() -> None:
        rate = meter.update(state.done)
        listener(
            Progress(step="extract", disk=path.name, done=state.done, total=total, written=state.written, rate=rate,
                     eta=meter.eta(total - state.done))
        )  # fmt: skip

    unfinished = path.with_name(f".{path.name}.part")
    try:
        # As tight as the disk was on the host: a guest's files are in it.
        descriptor = os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise DeviceError(f"{unfinished} cannot be made: {error.strerror}.") from error
    try:
        try:
            os.truncate(descriptor, mapped.size)
            work_off(
                _tasks(view, mapped),
                _THREADS,
                lambda: _writer(view, descriptor, state),
                threading.Event(),
                cancel,
                tick,
            )
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        unfinished.rename(path)
    except OSError as error:
        raise DeviceError(f"{path} cannot be written: {error.strerror}.") from error
    finally:
        unfinished.unlink(missing_ok=True)
    tick()
    return Extracted(str(path), mapped.size, state.written, time.monotonic() - started)


def _writer(view: HostView, descriptor: int, state: _State) -> Callable[[_Task], None]:
    def write(task: _Task) -> None:
        source = view.disk(task.disk)
        chunk = source.chunk(task.index)
        begin = task.index * source.map.chunk_size
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
            state.done += sum(piece.length for piece in task.pieces)

    return write


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
