"""Which chunks are stored: the SQLite index, kept up to date with the packs' footers in the background."""

from __future__ import annotations

import logging
import sqlite3
import struct
import threading
from collections.abc import Sequence
from pathlib import Path

from recovery.errors import RekindleError, UsageError
from recovery.format.pack import PackEntry
from recovery.repository.index import SqliteIndex
from recovery.repository.store import open_local

log = logging.getLogger("rekindle.server")

ID_SIZE = 32
#: present, pack, offset, length
ANSWER = struct.Struct("<B32sII")
MAX_IDS = 65536
#: Packs also appear without us: a capture into the directory, a copy. Seconds between looking.
REFRESH_EVERY = 300.0
#: How long a look-up waits for the index of a server that just started; a chunk not known yet is only sent again.
PATIENCE = 60.0


class ChunkLookup:
    """The chunk index of the server. Thread-safe."""

    def __init__(self, root: Path, state_directory: Path) -> None:
        self.store = open_local(root)
        self._index = SqliteIndex(state_directory / "index.sqlite")
        self._stop = False
        self._wake = threading.Event()
        self.ready = threading.Event()
        self._thread = threading.Thread(target=self._keep_fresh, name="chunk-index", daemon=True)

    def start(self) -> None:
        """Begin to read the footers of packs that are not known yet."""
        self._thread.start()

    def close(self) -> None:
        """Stop the background work."""
        self._stop = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)
        self._index.close()

    def answer(self, request: bytes) -> bytes:
        """The binary answer to a binary question (docs/architecture.md). Raises UsageError."""
        if len(request) % ID_SIZE or len(request) > MAX_IDS * ID_SIZE:
            raise UsageError(f"A look-up is a multiple of {ID_SIZE} bytes, at most {MAX_IDS} ids.")
        self.ready.wait(PATIENCE)
        ids = [request[i : i + ID_SIZE] for i in range(0, len(request), ID_SIZE)]
        return b"".join(
            bytes(ANSWER.size) if found is None else ANSWER.pack(1, found.pack, found.offset, found.length)
            for found in self._index.lookup(ids)
        )

    def add(self, pack: str, entries: Sequence[PackEntry]) -> None:
        """Remember the chunks of a pack (hex name) that was just stored."""
        self._index.add_pack(pack, entries)

    def refresh_soon(self) -> None:
        """Look at the packs again now: some were removed."""
        self._wake.set()

    def _keep_fresh(self) -> None:
        while not self._stop:
            self._wake.clear()
            try:
                for name in self._index.refresh(self.store):
                    log.warning("%s is damaged; 'rekindle repo check' says what it hurts", name)
                self.ready.set()
            except (RekindleError, OSError, sqlite3.Error) as error:
                log.warning("The chunk index could not be refreshed: %s", error)
            self._wake.wait(REFRESH_EVERY)
