"""What a web server and a database write, minute after minute: the same for everybody who plays it.

Per minute: 600 transactions that each change five pages of 8 KiB, spread evenly over the table (a hard case: real ones
are more skewed), with a record of 8 KiB in a log that goes round; 1200 lines of an access log; 120 files of sessions
and 6 uploads. That is 30 MiB, with what ext4 writes of its own 38 MiB. Half of a page does not compress. The decisions
are pure; ``Player`` writes.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from recovery.commands import run
from recovery.units import KIB, MIB

MINUTE = 60.0
PAGE, LOG_RECORD, _ROW = 8 * KIB, 8 * KIB, 128
TABLE, LOG, ACCESS = "table", "log", "access.log"
_LOG_SIZE = 16 * MIB
_PAGES = 5
_LINES, _SESSIONS, _UPLOADS = 1200, 120, 6
_SESSION_FILES, _UPLOAD_FILES = 500, 60
_UPLOAD = 128 * KIB
_TEXT = (b"customer order shipped invoice paid address street city country " * 3)[:_ROW]


@dataclass(frozen=True)
class Write:
    """``data`` at ``offset`` of ``file``, ``at`` seconds into the minute; without an offset at its end. ``new``: the
    file is made anew; ``sync``: the writer waits until it is on stable storage."""

    at: float
    file: str
    data: bytes
    offset: int | None = None
    new: bool = False
    sync: bool = False


@dataclass(frozen=True)
class Trace:
    """``table`` bytes of the database, ``transactions`` a minute; ``seed`` decides everything else."""

    table: int = 256 * MIB
    transactions: int = 600
    seed: int = 5

    def page(self, source: random.Random) -> bytes:
        """Rows of which half is noise and half are words."""
        noise = source.randbytes(PAGE // 2)
        return b"".join(noise[at : at + _ROW] + _TEXT for at in range(0, len(noise), _ROW))

    def minute(self, number: int) -> list[Write]:
        """The writes of a minute, in their order."""
        source = random.Random(f"{self.seed} {number}")
        made = [*self._database(number, source), *self._web(number, source)]
        return sorted(made, key=lambda write: write.at)

    def _database(self, number: int, source: random.Random) -> Iterator[Write]:
        pages = self.table // PAGE
        for index in range(self.transactions):
            at = MINUTE * index / self.transactions
            record = (number * self.transactions + index) * LOG_RECORD % _LOG_SIZE
            yield Write(at, LOG, source.randbytes(LOG_RECORD), record, sync=True)
            for _ in range(_PAGES):
                yield Write(at, TABLE, self.page(source), source.randrange(pages) * PAGE)

    def _web(self, number: int, source: random.Random) -> Iterator[Write]:
        for index in range(_LINES):
            client = ".".join(str(source.randrange(256)) for _ in range(4))
            line = (
                f'{client} - [{number}:{index}] "GET /item/{source.randrange(10**6)}" 200 {source.randrange(10**5)}\n'
            )
            yield Write(MINUTE * index / _LINES, ACCESS, line.encode())
        for index in range(_SESSIONS):
            name = f"session-{source.randrange(_SESSION_FILES)}"
            text = f"user={source.randrange(10**5)};cart={source.getrandbits(2048):x};".encode() * 3
            yield Write(MINUTE * index / _SESSIONS, name, text, new=True)
        for index in range(_UPLOADS):
            name = f"upload-{(number * _UPLOADS + index) % _UPLOAD_FILES}"
            yield Write(MINUTE * index / _UPLOADS, name, source.randbytes(_UPLOAD), new=True)


class Player:
    """Plays a trace into ``folder``."""

    def __init__(self, folder: Path, trace: Trace) -> None:
        self._folder, self._trace = folder, trace
        self._open: dict[str, int] = {}

    def prepare(self) -> None:
        """The table and the log as they are before the first minute, on stable storage."""
        source = random.Random(self._trace.seed)
        with (self._folder / TABLE).open("wb") as file:
            for _ in range(self._trace.table // PAGE):
                file.write(self._trace.page(source))
        with (self._folder / LOG).open("wb") as file:
            for _ in range(_LOG_SIZE // MIB):
                file.write(source.randbytes(MIB))
        self._settle()

    def play(self, number: int, *, seconds: float = 0.0) -> None:
        """A minute's writes within ``seconds`` as the trace spreads them, and each waited for as a database does; 0:
        at once, with one wait at the end (what is on the disk afterwards is the same)."""
        begun = time.monotonic()
        for write in self._trace.minute(number):
            if seconds:
                time.sleep(max(0.0, begun + write.at * seconds / MINUTE - time.monotonic()))
            self._do(write, sync=bool(seconds))
        if seconds:
            time.sleep(max(0.0, begun + seconds - time.monotonic()))
        else:
            self._settle()

    def _settle(self) -> None:
        """Everything is on stable storage: of this filesystem, others have their own work."""
        run(["sync", "--file-system", self._folder])

    def _do(self, write: Write, *, sync: bool) -> None:
        if write.new:
            (self._folder / write.file).write_bytes(write.data)
            return
        if write.file not in self._open:
            end = os.O_APPEND if write.offset is None else 0
            self._open[write.file] = os.open(self._folder / write.file, os.O_WRONLY | os.O_CREAT | end, 0o600)
        descriptor = self._open[write.file]
        if write.offset is None:
            os.write(descriptor, write.data)
        else:
            os.pwrite(descriptor, write.data, write.offset)
        if sync and write.sync:
            os.fdatasync(descriptor)

    def close(self) -> None:
        """Let go of the files."""
        while self._open:
            os.close(self._open.popitem()[1])
