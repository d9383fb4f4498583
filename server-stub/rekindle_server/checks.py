"""What an upload must be beyond its hash: a pack with a footer, a map whose packs exist, a point that fits its host.

All of it is readable without keys. A server that refuses half-complete points makes "the point exists" mean "it can
be restored", whatever a client did or where it was interrupted.
"""

from __future__ import annotations

import mmap
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from recovery.errors import BusyError, IntegrityError, NotFoundError
from recovery.format.journal import MAX_CHAIN
from recovery.format.journalhead import journal_header
from recovery.format.mapcodec import MapHeader, map_header
from recovery.format.names import ObjectName, journal_name, map_name, pack_name, parse_name
from recovery.format.pack import TRAILER_SIZE, PackEntry, check_frames, read_footer, read_trailer
from recovery.format.point import JournalRef, PointHeader, decode_header
from rekindle_server.objects import Objects

#: The clear part of a journal is shorter than this: a header of 4 KiB at most, and 36 bytes for each of its chain.
_JOURNAL_CLEAR = 16 + 4096 + MAX_CHAIN * 36


class JournalFacts(NamedTuple):
    """What a journal says in clear: whose it is, its keyframe's map, and the journals before it (digests)."""

    host: str
    disk: str
    base: str
    chain: tuple[str, ...]


def pack_entries(path: Path) -> list[PackEntry]:
    """The entries in the footer of the pack in this file, each of which names a frame that is there.

    Raises IntegrityError.
    """
    size = path.stat().st_size
    with open(path, "rb") as file:
        file.seek(max(0, size - TRAILER_SIZE))
        footer = read_trailer(file.read(), size)
        file.seek(footer.offset)
        entries = read_footer(file.read(), size)
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            check_frames(mapped, entries)
    return entries


def read_map_header(path: Path) -> MapHeader:
    """The clear part of the map in this file. Raises IntegrityError."""
    if path.stat().st_size == 0:
        raise IntegrityError("This is not a chunk map.")
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        view = memoryview(mapped)
        try:
            return map_header(view)
        finally:
            view.release()


def read_journal_header(path: Path) -> JournalFacts:
    """The clear part of the journal in this file. Raises IntegrityError."""
    with open(path, "rb") as file:
        header, chain = journal_header(file.read(_JOURNAL_CLEAR))
    return JournalFacts(header.host, header.disk, header.base, tuple(entry.digest.hex() for entry in chain))


class CommitChecks:
    """Knows which maps hang together. What it remembers is immutable on disk; deletions make it forget."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._lock = threading.Lock()
        self._complete: set[str] = set()
        self._parents: dict[str, str] = {}
        self._points: dict[str, PointHeader] = {}

    def forget(self) -> None:
        """An object was deleted: what was complete may not be any more."""
        with self._lock:
            self._complete.clear()
            self._points.clear()

    def check_map(self, header: MapHeader) -> None:
        """The map's parent and packs exist. Raises NotFoundError."""
        if header.parent and self._objects.size(map_name(header.parent)) is None:
            raise _missing("map", map_name(header.parent))
        for pack in header.packs:
            if self._objects.size(pack_name(pack.hex())) is None:
                raise _missing("map", pack_name(pack.hex()))

    def check_point(self, name: ObjectName, header: PointHeader) -> None:
        """The header fits the name, continues the newest point of the host, and all it names exists.

        Raises IntegrityError, NotFoundError, BusyError (another capture of the host came between).
        """
        if header.host != name.host or round(header.created * 1e6) != name.created:
            raise IntegrityError("The recovery point's name does not fit what it says about itself.")
        newest = self.newest(name.host)
        if header.parent != newest:
            raise BusyError(
                f"Another capture of {name.host} committed a point in the meantime.",
                hint="Start this capture again: what it has uploaded is kept.",
            )
        for reference in header.maps:
            self._check_chain(reference.map)
        for journal in header.journals:
            self._check_journal_of(header, journal)

    def check_journal(self, name: ObjectName, facts: JournalFacts) -> None:
        """The journal is of the host in its name, and its keyframe and the journals before it exist.

        Raises IntegrityError, NotFoundError.
        """
        if facts.host != name.host:
            raise IntegrityError(f"The journal is of host '{facts.host}', not of '{name.host}'.")
        if self._objects.size(map_name(facts.base)) is None:
            raise _missing("journal", map_name(facts.base))
        # They were checked when they came; the last of them names all before it.
        for digest in facts.chain[-1:]:
            if self._objects.size(journal_name(facts.host, digest)) is None:
                raise _missing("journal", journal_name(facts.host, digest))

    def _check_journal_of(self, header: PointHeader, reference: JournalRef) -> None:
        name = journal_name(header.host, reference.journal)
        if self._objects.size(name) is None:
            raise _missing("point", name)
        facts = read_journal_header(self._objects.root / name)
        base = next((ref.map for ref in header.maps if ref.disk == reference.disk), "")
        if (facts.host, facts.disk, facts.base) != (header.host, reference.disk, base):
            raise IntegrityError("A journal of the recovery point belongs to another disk, host or keyframe.")
        for digest in facts.chain:
            if self._objects.size(journal_name(header.host, digest)) is None:
                raise _missing("point", journal_name(header.host, digest))

    def newest(self, host: str) -> str:
        """The id of the newest point of the host, or empty."""
        newest = ""
        for info in self._objects.list(f"points/{host}/"):
            newest = info.name.rpartition("-")[2]
        return newest

    def _check_chain(self, digest: str) -> None:
        while digest and digest not in self._complete:
            path = self._objects.root / map_name(digest)
            if not path.is_file():
                raise _missing("point", map_name(digest))
            header = read_map_header(path)
            self.check_map(header)
            with self._lock:
                self._complete.add(digest)
                self._parents[digest] = header.parent
            digest = header.parent

    def maps_of(self, covers: Callable[[str], bool]) -> set[str]:
        """The maps (digests), with all their parents, of the points of every host that ``covers`` accepts."""
        found: set[str] = set()
        for info in self._objects.list("points/"):
            parsed = parse_name(info.name)
            if parsed is None or not covers(parsed.host):
                continue
            for reference in self._header(info.name).maps:
                current = reference.map
                while current and current not in found:
                    found.add(current)
                    current = self._parent(current)
        return found

    def _header(self, name: str) -> PointHeader:
        header = self._points.get(name)
        if header is None:
            header = self._points[name] = decode_header(self._objects.read(name))
        return header

    def _parent(self, digest: str) -> str:
        parent = self._parents.get(digest)
        if parent is None:
            try:
                parent = read_map_header(self._objects.root / map_name(digest)).parent
            except (FileNotFoundError, IntegrityError):
                parent = ""
            self._parents[digest] = parent
        return parent


def _missing(what: str, name: str) -> NotFoundError:
    return NotFoundError(
        f"The {what} needs {name}, which the server does not have.", hint="Start the capture again: it uploads it."
    )
