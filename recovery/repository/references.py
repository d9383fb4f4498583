"""What points need, from the parts in clear: maps with their parents, packs, journals. Needs no keys.

Of a map all packs count that it or its parents name, used or not: servers ask for each of them when a point comes that
builds on it. That is the newest one of a host; of older ones keys can tell which packs are really used.
"""

from __future__ import annotations

import mmap
from pathlib import Path

from recovery.errors import IntegrityError, NotFoundError, RekindleError
from recovery.format.journal import MAX_CHAIN
from recovery.format.journalhead import journal_header
from recovery.format.mapcodec import MAX_DEPTH, MapHeader, map_header
from recovery.format.names import ObjectName, digest, journal_name, map_name, pack_name, parse_name
from recovery.format.point import PointHeader, decode_header, verify_point
from recovery.repository.repository import Repository
from recovery.repository.store import DirectoryStore

#: The clear part of a journal: a header of 4 KiB at most, and 36 bytes for each of its chain.
_JOURNAL_CLEAR = 16 + 4096 + MAX_CHAIN * 36


class References:
    """Object names that the points added so far need."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.maps: set[str] = set()
        #: Maps all of whose packs are among those needed.
        self._named: set[str] = set()
        self.journals: set[str] = set()
        self.packs: set[str] = set()

    def add(self, header: PointHeader, exact: Repository | None = None) -> None:
        """Whatever this point needs; with its keys (``exact``) only packs that its disks use. Raises IntegrityError
        when that cannot be told, because an object is missing or damaged: then nothing may be taken for spare."""
        try:
            for reference in header.maps:
                self._map(reference.map, packs=exact is None)
                if exact is not None:
                    self.packs.update(pack_name(pack.hex()) for pack in exact.map(reference.map).used_packs())
            for journal in header.journals:
                self._journal(header.host, journal.journal)
        except (OSError, ValueError, IntegrityError, NotFoundError) as error:
            why = error.message if isinstance(error, RekindleError) else str(error)
            raise IntegrityError(
                f"What a point of '{header.host}' needs cannot be told: {why}",
                hint="Run 'rekindle repo check', and bring the object back from a copy of the repository, or remove "
                "the points that it names. Nothing but points was removed, if anything.",
            ) from error

    def _map(self, name: str, *, packs: bool) -> None:
        """A map and its parents, each read once for its name and once for its packs."""
        known, depth = self._named if packs else self.maps, 0
        while name and map_name(name) not in known:
            header = self._map_header(name)
            self.maps.add(map_name(name))
            if packs:
                self._named.add(map_name(name))
                self.packs.update(pack_name(pack.hex()) for pack in header.packs)
            name, depth = header.parent, depth + 1
            if depth > MAX_DEPTH:
                raise IntegrityError("A chain of chunk maps is longer than it can be.")

    def _map_header(self, name: str) -> MapHeader:
        with open(self._root / map_name(name), "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as data:
            view = memoryview(data)
            try:
                return map_header(view)
            finally:
                view.release()

    def _journal(self, host: str, name: str) -> None:
        newest = journal_name(host, name)
        if newest in self.journals:
            return
        with open(self._root / newest, "rb") as file:
            header, chain = journal_header(file.read(_JOURNAL_CLEAR))
        self._map(header.base, packs=False)
        self.journals.add(newest)
        self.journals.update(journal_name(host, entry.digest.hex()) for entry in chain)


def read_header(store: DirectoryStore, name: ObjectName, public_key: bytes) -> PointHeader:
    """The header of the point of that name, signature and name checked. Raises IntegrityError, NotFoundError."""
    stored = f"points/{name.host}/{name.created:016d}-{name.digest}"
    data = store.get(stored)
    try:
        if digest(data) != name.digest:
            raise IntegrityError("its bytes are not those that were stored.")
        verify_point(data, public_key)
        header = decode_header(data)
        if header.host != name.host or round(header.created * 1e6) != name.created:
            raise IntegrityError("it was renamed.")
    except IntegrityError as error:
        raise IntegrityError(
            f"'{stored}' cannot be trusted: {error.message}",
            hint="Run 'rekindle repo check'; bring it back from a copy of the repository, or remove that file. "
            "Nothing but points was removed, if anything: what it needs is not known.",
        ) from error
    return header


def list_names(store: DirectoryStore) -> list[ObjectName]:
    """The names of all points, of each host the oldest first."""
    return [parsed for info in store.list("points/") if (parsed := parse_name(info.name)) is not None]
