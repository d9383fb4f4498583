"""Which chunks a repository holds: an SQLite cache, made from the packs' footers and thrown away at will."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path

from recovery.errors import IntegrityError, RekindleError, UsageError
from recovery.format.names import parse_name
from recovery.format.pack import TRAILER_SIZE, PackEntry, read_footer, read_trailer
from recovery.repository.condemned import condemned
from recovery.repository.distrust import distrusted
from recovery.repository.protocols import ChunkLocation, ObjectReader

_SCHEMA = """
CREATE TABLE IF NOT EXISTS packs (number INTEGER PRIMARY KEY, name BLOB UNIQUE NOT NULL);
CREATE TABLE IF NOT EXISTS chunks (id BLOB PRIMARY KEY, pack INTEGER NOT NULL, offset INTEGER NOT NULL,
                                   length INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS chunks_by_pack ON chunks (pack);
"""
#: Below SQLite's default limit of variables in old releases (999).
_BATCH = 500


class SqliteIndex:
    """A ChunkIndex in a file (or in memory: ``":memory:"``). Safe to use from many threads."""

    def __init__(self, path: Path | str) -> None:
        self._lock = threading.Lock()
        self._path = path
        try:
            self._open(path)
        except sqlite3.DatabaseError:
            # It is a cache: a damaged one is made again.
            Path(path).unlink(missing_ok=True)
            self._open(path)

    def _open(self, path: Path | str) -> None:
        try:
            self._database = sqlite3.connect(path, check_same_thread=False, timeout=60)
        except sqlite3.OperationalError as error:
            raise UsageError(
                f"The chunk index '{path}' cannot be opened: {error}.",
                hint="It is a cache: remove it, and it is made anew.",
            ) from error
        self._database.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;" + _SCHEMA)

    def lookup(self, ids: Sequence[bytes]) -> list[ChunkLocation | None]:
        """The location of each chunk id, or None, in the order asked."""
        found: dict[bytes, ChunkLocation] = {}
        with self._lock:
            for at in range(0, len(ids), _BATCH):
                part = ids[at : at + _BATCH]
                marks = ",".join("?" * len(part))
                query = (
                    "SELECT id, name, offset, length FROM chunks JOIN packs ON number = pack "  # noqa: S608 - only marks
                    f"WHERE id IN ({marks})"
                )
                for id, pack, offset, length in self._database.execute(query, part):
                    found[id] = ChunkLocation(pack, offset, length)
        return [found.get(id) for id in ids]

    def add(self, ids: Sequence[bytes], locations: Sequence[ChunkLocation]) -> None:
        """Remember chunks that were just stored; a chunk that is known already keeps its first location."""
        with self._lock, self._database:
            numbers = {location.pack: self._number(location.pack) for location in locations}
            self._database.executemany(
                "INSERT OR IGNORE INTO chunks VALUES (?, ?, ?, ?)",
                ((id, numbers[at.pack], at.offset, at.length) for id, at in zip(ids, locations, strict=True)),
            )

    def add_pack(self, name: str, entries: Sequence[PackEntry]) -> None:
        """Remember a whole pack (hex name); also one without entries, so that it is not read again."""
        with self._lock, self._database:
            number = self._number(bytes.fromhex(name))
            self._database.executemany(
                "INSERT OR IGNORE INTO chunks VALUES (?, ?, ?, ?)",
                ((entry.id, number, entry.offset, entry.length) for entry in entries),
            )

    def _number(self, pack: bytes) -> int:
        self._database.execute("INSERT OR IGNORE INTO packs (name) VALUES (?)", (pack,))
        row = self._database.execute("SELECT number FROM packs WHERE name = ?", (pack,)).fetchone()
        return int(row[0])

    def refresh(self, store: ObjectReader) -> list[str]:
        """Read the footers of packs that are not known yet and forget packs that are gone, not trusted any more, or
        about to be deleted.

        Returns the names of packs whose footer cannot be read: their chunks are not offered for deduplication.
        """
        present = {bytes.fromhex(parsed.digest): info for info in store.list("packs/")
                   if (parsed := parse_name(info.name)) is not None}  # fmt: skip
        for pack in distrusted(store) | condemned(store):
            present.pop(pack, None)
        with self._lock:
            known = {row[0] for row in self._database.execute("SELECT name FROM packs")}
        damaged = []
        for pack in present.keys() - known:
            info = present[pack]
            try:
                self.add_pack(pack.hex(), read_pack_footer(store, info.name, info.size))
            except IntegrityError:
                damaged.append(info.name)
        with self._lock, self._database:
            for pack in known - present.keys():
                number = self._number(pack)
                self._database.execute("DELETE FROM chunks WHERE pack = ?", (number,))
                self._database.execute("DELETE FROM packs WHERE number = ?", (number,))
        return sorted(damaged)

    def counts(self) -> tuple[int, int]:
        """How many packs and chunks are known."""
        with self._lock:
            packs = self._database.execute("SELECT count(*) FROM packs").fetchone()[0]
            chunks = self._database.execute("SELECT count(*) FROM chunks").fetchone()[0]
        return int(packs), int(chunks)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._database.close()


def read_pack_footer(store: ObjectReader, name: str, size: int) -> list[PackEntry]:
    """The entries of a stored pack, by one or two small reads. Raises IntegrityError and what the store raises."""
    # 64 KiB hold about 1,400 entries: nearly always the whole footer.
    tail = bytearray(min(size, 64 * 1024))
    store.read_into(name, size - len(tail), memoryview(tail))
    needed = read_trailer(bytes(tail[-TRAILER_SIZE:]), size).size + TRAILER_SIZE
    if needed > len(tail):
        tail = bytearray(needed)
        store.read_into(name, size - needed, memoryview(tail))
    return read_footer(bytes(tail), size)


def index_path(repository_id: str) -> Path:
    """Where the cache of a repository lies: ``$XDG_CACHE_HOME/rekindle/index/<id>.sqlite``, readable by us only."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rekindle" / "index"
    try:
        base.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise RekindleError(
            f"The cache directory '{base}' cannot be made: {error.strerror}.",
            hint="Set XDG_CACHE_HOME to a directory that can be written.",
        ) from error
    return base / f"{repository_id}.sqlite"
