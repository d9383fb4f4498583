"""Several copies of one repository as one store: what one copy lacks is read from the next.

Bytes that arrive but are wrong show only when they are decoded; who decodes asks the copies singly (``copies_of``).
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from recovery.errors import IntegrityError, NotFoundError, RekindleError, UnreachableError, UsageError
from recovery.format.names import parse_name
from recovery.repository.identity import read_repository_file, verify_repository_file
from recovery.repository.protocols import ObjectInfo, ObjectReader, ObjectStore
from recovery.repository.repository import Repository, read_verified

log = logging.getLogger("rekindle.repository")

#: Seconds that a copy may stay silent before the next one is asked (the patience of its store).
NEXT_COPY = 10.0
#: How long a copy that does not answer is asked last, seconds: each attempt waits for the patience of its store.
_ASIDE = 60.0
#: A copy that lost everything has thousands of objects to tell of.
_TOLD = 10
_FAULTS = (NotFoundError, IntegrityError, UnreachableError)

T = TypeVar("T")


class FailoverStore:
    """An ObjectStore that reads from the first of ``copies`` that has what is asked for, and writes nothing.

    ``tell`` hears a sentence each time a copy begins to fail or lacks an object. Thread-safe if the copies are.
    """

    def __init__(self, copies: Sequence[ObjectReader], tell: Callable[[str], None] = log.warning) -> None:
        self.copies = tuple(copies)
        self.location = location_of(self.copies[0])
        self.tell = tell
        self._lock = threading.Lock()
        self._aside = [0.0] * len(self.copies)
        self._told: set[tuple[int, str]] = set()

    @contextlib.contextmanager
    def told(self, tell: Callable[[str], None]) -> Iterator[None]:
        """For the block ``tell`` hears what happens, also what another one has heard before."""
        before, self.tell = self.tell, tell
        with self._lock:
            self._told.clear()
        try:
            yield
        finally:
            self.tell = before

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """What any copy that answers has, with the largest size that it has there. Raises as ObjectReader."""
        found: dict[str, int] = {}
        for infos in self._all(prefix, lambda copy: list(copy.list(prefix))):
            for info in infos:
                found[info.name] = max(info.size, found.get(info.name, 0))
        yield from (ObjectInfo(name, size) for name, size in sorted(found.items()))

    def size(self, name: str) -> int | None:
        """The largest size of any copy that answers; None when none of these has it."""
        sizes = [size for size in self._all(name, lambda copy: copy.size(name)) if size is not None]
        return max(sizes, default=None)

    def get(self, name: str) -> bytes:
        """The whole object from the first copy that has it undamaged, as far as its name tells."""
        parsed = parse_name(name)
        if parsed is None or not parsed.digest:
            return self.first(name, lambda copy: copy.get(name))
        return self.first(name, lambda copy: read_verified(copy, name))

    def read_into(self, name: str, offset: int, buffer: memoryview) -> None:
        """Fill ``buffer`` from the first copy that has these bytes; they may be damaged."""
        self.first(name, lambda copy: copy.read_into(name, offset, buffer))

    def put_if_absent(self, name: str, data: bytes | memoryview) -> bool:
        """Always raises UsageError: which copy should get it?"""
        raise UsageError(f"'{name}' cannot be stored in several copies of a repository at once.")

    def delete(self, name: str) -> None:
        """Always raises UsageError."""
        raise UsageError(f"'{name}' cannot be removed from several copies of a repository at once.")

    def first(self, name: str, read: Callable[[ObjectReader], T]) -> T:
        """What ``read`` returns for the first copy for which it does; ``name`` is what it reads, for people."""
        problems: dict[int, RekindleError] = {}
        for number in self._order():
            try:
                found = read(self.copies[number])
            except _FAULTS as error:
                problems[number] = error
                self._failed(number, name, error)
            else:
                if self._aside[number]:
                    self._answered(number)
                return found
        raise _worst([problems[number] for number in sorted(problems)])

    def _all(self, name: str, ask: Callable[[ObjectReader], T]) -> Sequence[T]:
        """The answers of those copies that answer. Raises what the first said when none did."""
        answers: list[T] = []
        problems: list[RekindleError] = []
        for number in self._order():
            try:
                answers.append(ask(self.copies[number]))
            except _FAULTS as error:
                problems.append(error)
                self._failed(number, name, error)
        if not answers:
            raise _worst(problems)
        return answers

    def _order(self) -> Sequence[int]:
        now = time.monotonic()
        return sorted(range(len(self.copies)), key=lambda number: (self._aside[number] > now, number))

    def _answered(self, number: int) -> None:
        with self._lock:
            was_aside, self._aside[number] = bool(self._aside[number]), 0.0
        if was_aside:
            self.tell(f"{location_of(self.copies[number])} answers again.")

    def _failed(self, number: int, name: str, error: RekindleError) -> None:
        unreachable = isinstance(error, UnreachableError)
        key = (number, "" if unreachable else name)
        with self._lock:
            fresh = not self._aside[number] if unreachable else key not in self._told and len(self._told) < _TOLD
            if unreachable:
                self._aside[number] = time.monotonic() + _ASIDE
            elif fresh:
                self._told.add(key)
            last = fresh and not unreachable and len(self._told) == _TOLD
        if fresh:
            where = location_of(self.copies[number])
            text = error.message if where in error.message else f"{where}: {error.message}"
            self.tell(f"{text} Asking another copy of the repository.")
        if last:
            self.tell("More objects may be damaged or missing; they are not told singly.")


def location_of(store: ObjectReader) -> str:
    """Where a store is, for people."""
    return str(getattr(store, "location", "this place"))


def copies_of(store: ObjectReader) -> tuple[ObjectReader, ...]:
    """The copies that a store reads from, or the store itself; each by its surest way, where it has several."""
    copies = store.copies if isinstance(store, FailoverStore) else (store,)
    return tuple(getattr(copy, "surest", copy) for copy in copies)


def first_readers(store: ObjectReader) -> int:
    """With how many reads at once a store is best begun: its attribute ``readers``, of the first copy."""
    first = store.copies[0] if isinstance(store, FailoverStore) else store
    return int(getattr(first, "readers", 2))


def request_size(store: ObjectReader) -> int:
    """How many bytes are best asked for at once: the first copy's attribute ``request``; 16 MiB hide latency."""
    first = store.copies[0] if isinstance(store, FailoverStore) else store
    return int(getattr(first, "request", 16 * 1024 * 1024))


def with_copies(
    repository: Repository, others: Sequence[ObjectStore], tell: Callable[[str], None] = log.warning
) -> Repository:
    """``repository``, with ``others`` asked in this order for what it lacks.

    Raises UsageError when one of them is another repository, NotFoundError, IntegrityError, UnreachableError.
    """
    for other in others:
        file = read_repository_file(other)
        if file.id != repository.id:
            raise UsageError(
                f"{location_of(other)} is not a copy of the repository in {location_of(repository.store)}: it has the "
                f"id {file.id[:8]} instead of {repository.id[:8]}.",
                hint="Give the location of a copy of the same repository, or none.",
            )
        verify_repository_file(file, repository.keys)
    if not others:
        return repository
    store = repository.store
    first = store.copies if isinstance(store, FailoverStore) else (store,)
    return Repository(FailoverStore((*first, *others), tell), repository.file, repository.keys)


def _worst(problems: Sequence[RekindleError]) -> RekindleError:
    """Which one to raise: a copy that may answer later may have it; else what the first copy said."""
    return next((problem for problem in problems if isinstance(problem, UnreachableError)), problems[0])
