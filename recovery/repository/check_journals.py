"""The check of the journals: is each there and whole, and do they make the roots that points were signed with?"""

from __future__ import annotations

import threading
from collections import defaultdict

from recovery.errors import CancelledError, IntegrityError, NotFoundError
from recovery.format.journalhead import JournalHead, verify_journal
from recovery.format.names import digest, journal_name
from recovery.format.point import JournalRef, Point
from recovery.repository.content import read_head
from recovery.repository.repository import Repository


class JournalCheck:
    """Looks at every journal once. ``faults``: object name -> what is wrong; ``users``: object name -> who needs it,
    ``host point disk``; ``spare`` journals belong to no point (left by a crash between journal and point)."""

    def __init__(self, repository: Repository, *, read_data: bool, cancel: threading.Event) -> None:
        self._repository = repository
        self._read_data = read_data
        self._cancel = cancel
        self._heads: dict[str, JournalHead | None] = {}
        self.faults: dict[str, str] = {}
        self.users: dict[str, set[str]] = defaultdict(set)
        self.spare: list[str] = []
        self.count = 0
        self.bytes_read = 0

    def run(self, points: list[Point]) -> JournalCheck:
        """Check the journals of these points, and whatever else lies there. Raises CancelledError."""
        store = self._repository.store
        present = {info.name: info.size for info in store.list("journals/")}
        for point in points:
            for reference in point.header.journals:
                self._check(point, reference, present)
        self.count = len(present)
        for name in sorted(present.keys() - self.users.keys()):
            self.spare.append(name)
            self._whole(name)
        return self

    def _check(self, point: Point, reference: JournalRef, present: dict[str, int]) -> None:
        host = point.header.host
        user = f"{host} {point.id[:12]} {reference.disk}"
        newest = journal_name(host, reference.journal)
        self.users[newest].add(user)
        head = self._head(newest, reference.head, present)
        if head is None:
            return
        names = [journal_name(host, entry.digest.hex()) for entry in head.chain]
        heads = []
        for name, entry in zip(names, head.chain, strict=True):
            self.users[name].add(user)
            heads.append(self._head(name, entry.head, present))
        base = next((ref.map for ref in point.header.maps if ref.disk == reference.disk), "")
        root = bytes.fromhex(point.disk(reference.disk).base_root)
        for name, one in zip([*names, newest], [*heads, head], strict=True):
            if one is None:
                return  # that one is named already, and this point with it
            if (one.header.host, one.header.disk, one.header.base) != (host, reference.disk, base):
                self._damaged(name, "it belongs to another disk, host or keyframe")
                return
            root = one.root(root)
        if root.hex() != point.disk(reference.disk).root:
            self._damaged(newest, "its root is not the one that the point was signed with")

    def _head(self, name: str, length: int, present: dict[str, int]) -> JournalHead | None:
        """The head of a journal, which is looked at once: all of it when data are read."""
        if self._cancel.is_set():
            raise CancelledError("The check was stopped.")
        if name in self._heads:
            return self._heads[name]
        head = None
        try:
            if name not in present:
                raise NotFoundError("it is missing")
            if self._read_data:
                head = self._whole(name)
            else:
                head = read_head(self._repository, name, length)
                end = head.frames[-1].offset + head.frames[-1].length if head.frames else head.length
                if present[name] != end:
                    raise IntegrityError(f"it has {present[name]} bytes instead of {end}")
        except (IntegrityError, NotFoundError) as error:
            self._damaged(name, error.message)
            head = None
        if head is not None and head.length != length:
            self._damaged(name, "it has another head than its point says")
            head = None
        self._heads[name] = head
        return head

    def _whole(self, name: str) -> JournalHead | None:
        """Every byte and every frame of a journal."""
        try:
            data = self._repository.store.get(name)
            self.bytes_read += len(data)
            if digest(data) != name.rpartition("/")[2]:
                raise IntegrityError("its bytes are not those that were stored")
            return verify_journal(data, self._repository.keys)
        except (IntegrityError, NotFoundError) as error:
            self._damaged(name, error.message)
            return None

    def _damaged(self, name: str, what: str) -> None:
        self.faults.setdefault(name, what)
