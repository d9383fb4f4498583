"""The server's own state: an SQLite file, 0600, in a directory of mode 0700. Users, tokens, one-time codes, audit."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from recovery.errors import AccessError, NotFoundError, SpaceError

SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS users (
    name TEXT PRIMARY KEY, role TEXT NOT NULL, hosts TEXT NOT NULL, password TEXT NOT NULL, created REAL NOT NULL);
CREATE TABLE IF NOT EXISTS tokens (
    hash BLOB PRIMARY KEY, actor TEXT NOT NULL, role TEXT NOT NULL, hosts TEXT NOT NULL,
    issued REAL NOT NULL, expires REAL NOT NULL, lifetime REAL NOT NULL);
CREATE TABLE IF NOT EXISTS codes (
    id TEXT PRIMARY KEY, hash BLOB NOT NULL, host TEXT NOT NULL, issued REAL NOT NULL, expires REAL NOT NULL,
    used REAL, used_from TEXT, attempt BLOB, revoked REAL);
CREATE TABLE IF NOT EXISTS audit (
    at REAL NOT NULL, actor TEXT NOT NULL, address TEXT NOT NULL, action TEXT NOT NULL, detail TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS audit_at ON audit (at);
"""


class State:
    """The open state. Thread-safe: one connection behind a lock; every statement is short.

    ``clock`` gives seconds since the epoch; tests give their own.
    """

    def __init__(self, directory: Path, *, create: bool = True, clock: Callable[[], float] = time.time) -> None:
        """Raises NotFoundError when there is none and ``create`` is False, AccessError when it may not be opened."""
        self.directory = directory
        self.clock = clock
        self._lock = threading.RLock()
        path = directory / "server.sqlite"
        try:
            if create:
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
            elif not path.exists():
                raise NotFoundError(
                    f"There is no server state in {directory}.",
                    hint="Start 'rekindle serve' once, or give the right directory with --state.",
                )
            self._connection = sqlite3.connect(path, check_same_thread=False, timeout=10.0, isolation_level=None)
            self._connection.row_factory = sqlite3.Row
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.executescript(_SCHEMA)
            self._connection.execute(
                "INSERT OR IGNORE INTO meta VALUES ('schema', ?), ('code-salt', ?)", (SCHEMA_VERSION, os.urandom(16))
            )
        except (PermissionError, sqlite3.OperationalError, sqlite3.DatabaseError) as error:
            raise AccessError(
                f"The server's state in {directory} cannot be opened: {error}.",
                hint="Run this as the user the server runs as, or as root.",
            ) from error

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """A write transaction: all or nothing, safe against other processes. Raises SpaceError on a full disk."""
        with self._lock:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                try:
                    yield self._connection
                except BaseException:
                    self._connection.execute("ROLLBACK")
                    raise
                self._connection.execute("COMMIT")
            except sqlite3.OperationalError as error:
                if "full" not in str(error):
                    raise
                raise SpaceError(
                    "The disk with the server's state is full.", hint="Make room on the server and try again."
                ) from error

    def rows(self, query: str, *arguments: Any) -> list[sqlite3.Row]:
        """The rows of a SELECT."""
        with self._lock:
            return self._connection.execute(query, arguments).fetchall()

    def audit(self, actor: str, address: str, action: str, detail: str = "") -> None:
        """Remember who did what. Never a secret; a full disk loses the entry, not the request."""
        with contextlib.suppress(SpaceError), self.transaction() as db:
            db.execute("INSERT INTO audit VALUES (?, ?, ?, ?, ?)", (self.clock(), actor, address, action, detail))
            db.execute("DELETE FROM audit WHERE at < ?", (self.clock() - 400 * 86400,))


def find_state(path: Path) -> Path:
    """The state directory meant by ``--state``: the directory itself, or ``.server`` in the repository named."""
    inner = path / ".server"
    return inner if (inner / "server.sqlite").exists() else path
