"""Points that wait for the server: files in order, bounded, on a filesystem that is not tracked.

A file is one object: its name, a newline, its bytes. What it holds is encrypted already, and immutable: it is sent as
it is. The order is that of the format: journals, then their point. Files survive the agent; a point that was cut off
has no file of its own, and its journals do no harm.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from recovery.errors import IntegrityError, RekindleError, SpaceError
from recovery.format.names import parse_name
from recovery.format.point import PointHeader, decode_header

_FILE = re.compile(r"(\d{12})\.object")


class Waiting(NamedTuple):
    """An object in the spool: its place in the order, its name and bytes."""

    number: int
    name: str
    data: bytes


class Spool:
    """The queue; one thread adds, another takes. ``limit`` is bytes."""

    def __init__(self, directory: Path, limit: int) -> None:
        """Raises RekindleError when the directory cannot be made or read."""
        self._directory, self._limit = directory, limit
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            directory.chmod(0o700)
            for left in directory.glob("*.writing"):
                left.unlink()
            found = [(int(match[1]), path.stat().st_size) for path in directory.iterdir()
                     if (match := _FILE.fullmatch(path.name))]  # fmt: skip
        except OSError as error:
            raise RekindleError(f"The spool '{directory}' cannot be used: {error.strerror}.") from error
        self._sizes = dict(sorted(found))
        self._next = max(self._sizes, default=0) + 1

    @property
    def used(self) -> int:
        """Bytes that wait."""
        with self._lock:
            return sum(self._sizes.values())

    @property
    def limit(self) -> int:
        """Bytes that may wait."""
        return self._limit

    @property
    def count(self) -> int:
        """Objects that wait."""
        with self._lock:
            return len(self._sizes)

    def has_room(self, size: int) -> bool:
        """Whether so many bytes more may wait."""
        return self.used + size <= self._limit

    def add(self, objects: Sequence[tuple[str, bytes]]) -> None:
        """Add a point's objects in their order; all or, when there is no room, none (SpaceError)."""
        encoded = [name.encode() + b"\n" + data for name, data in objects]
        if not self.has_room(sum(map(len, encoded))):
            raise SpaceError(
                f"The spool is full: {self.used} of {self._limit} bytes wait for the server.",
                hint="No point is made until there is room; what changes meanwhile will be in the next one.",
            )
        written: list[tuple[int, int]] = []
        try:
            for data in encoded:
                number = self._next + len(written)
                self._write(number, data)
                written.append((number, len(data)))
        except OSError as error:
            for number, _ in written:
                self._path(number).unlink(missing_ok=True)
            raise SpaceError(f"The spool '{self._directory}' cannot be written: {error.strerror}.") from error
        with self._changed:
            self._sizes.update(written)
            self._next += len(written)
            self._changed.notify_all()

    def _write(self, number: int, data: bytes) -> None:
        temporary = self._path(number).with_suffix(".writing")
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(self._path(number))

    def first(self, timeout: float) -> Waiting | None:
        """The object that is to be sent next; None when there is none within ``timeout`` seconds.

        Raises IntegrityError for one that is damaged.
        """
        with self._changed:
            if not self._sizes:
                self._changed.wait(timeout)
            if not self._sizes:
                return None
            number = min(self._sizes)
        return self._read(number)

    def _read(self, number: int) -> Waiting:
        try:
            name, _, data = self._path(number).read_bytes().partition(b"\n")
        except OSError as error:
            raise IntegrityError(f"An object in the spool cannot be read: {error.strerror}.") from error
        if parse_name(name.decode(errors="replace")) is None:
            raise IntegrityError("An object in the spool is damaged.")
        return Waiting(number, name.decode(), data)

    def done(self, number: int) -> None:
        """That object is stored."""
        self._path(number).unlink(missing_ok=True)
        with self._changed:
            self._sizes.pop(number, None)
            self._changed.notify_all()

    def clear(self) -> int:
        """Throw all away; returns how many objects that were."""
        with self._changed:
            numbers = list(self._sizes)
            self._sizes.clear()
            self._changed.notify_all()
        for number in numbers:
            self._path(number).unlink(missing_ok=True)
        return len(numbers)

    def wait_empty(self, timeout: float) -> bool:
        """Wait until nothing waits any more; whether that came within ``timeout`` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._sizes, timeout)

    def newest_point(self) -> tuple[str, PointHeader] | None:
        """The id and header of the last point that waits. Raises IntegrityError."""
        with self._lock:
            numbers = sorted(self._sizes, reverse=True)
        for number in numbers:
            waiting = self._read(number)
            parsed = parse_name(waiting.name)
            if parsed is not None and parsed.kind == "point":
                return parsed.digest, decode_header(waiting.data)
        return None

    def _path(self, number: int) -> Path:
        return self._directory / f"{number:012d}.object"
