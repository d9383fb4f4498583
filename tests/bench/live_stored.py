"""What a day of one-minute points takes in the repository, beside the least that it could.

The trace of web server and database is played into a real ext4, a minute's writes at once (the time between is left
out, not the writes), and a real point is made after each: journals, and a keyframe at the end of the hour. Beside it
what is computed from the disk's content before and after each minute: the 4 KiB blocks that differ, compressed as one
stream, and the 1 MiB chunks that differ, each compressed.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import zstandard

from recovery.agent.config import Settings, parse_settings
from recovery.agent.journaling import TooMuchError
from recovery.agent.points import Maker
from recovery.agent.sending import Sender
from recovery.agent.spool import Spool
from recovery.capture.live.limits import DoubtError
from recovery.errors import RekindleError
from recovery.events import ignore
from recovery.format.chunk import is_zero
from recovery.format.point import PointHeader
from recovery.repository.index import SqliteIndex
from recovery.repository.repository import Repository
from recovery.repository.store import open_local
from recovery.units import GIB, KIB, MIB
from tests.bench.bench import Bench
from tests.bench.data import HOST, PASSPHRASE, tree_size
from tests.bench.model import Goal, Measured, Sample, goal
from tests.bench.trace import Player, Trace
from tests.bench.tracked import loop_disk

OURS, KEYFRAME = "stored by us, a minute", "stored by us, the keyframe of the hour"
IDEAL, IDEAL_KEYFRAME = "ideal: 4 KiB blocks, a minute", "ideal: 1 MiB chunks of the hour"
CHUNKS = "1 MiB chunks, a minute"
BLOCK, CHUNK = 4 * KIB, MIB
#: What the 4 KiB blocks and the chunks are compressed with: the level of repository.md's figures, zstd's own default.
_LEVEL = 3
_ROOM = 192 * MIB
_HOUR, _DAY = 60, 24


class Image:
    """The content of a disk as it was at the last look."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.chunks = [b""] * (path.stat().st_size // CHUNK)
        self.look()

    def look(self) -> dict[int, bytes]:
        """The chunks that changed since the last look, as they were before."""
        before: dict[int, bytes] = {}
        with self._path.open("rb", buffering=0) as file:
            for index, known in enumerate(self.chunks):
                now = file.read(CHUNK)
                if now != known:
                    before[index], self.chunks[index] = known, now
        return before


def changed_blocks(before: bytes, now: bytes) -> list[bytes]:
    """The 4 KiB blocks of a chunk that differ. Pure."""
    places = range(0, len(now), BLOCK)
    return [now[at : at + BLOCK] for at in places if now[at : at + BLOCK] != before[at : at + BLOCK]]


def compressed(parts: Sequence[bytes]) -> int:
    """Bytes of the parts as one stream; zeros need none. Pure."""
    stream = zstandard.ZstdCompressor(level=_LEVEL).compressobj()
    return sum(len(stream.compress(part)) for part in parts if not is_zero(part)) + len(stream.flush())


class _Host:
    """The parts of an agent, moved by hand: a point when it is asked for one."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.place = folder / "repository"
        store = open_local(self.place, create=True)
        self._repository = Repository.create(store, PASSPHRASE)[0]
        index = SqliteIndex(":memory:")
        index.refresh(store)
        self._spool, self._stop = Spool(settings.spool, settings.spool_bytes), threading.Event()
        self.maker = Maker(self._repository, index, settings, self._spool, ignore)
        self._rejected: list[str] = []
        self._sender = Sender(self._repository, self._spool, self._stop, self._heard, self._rejected.append)
        self._sender.start()

    def _heard(self, id: str, header: PointHeader, sent: int) -> None:
        """A point came in."""

    def close(self) -> None:
        """End it."""
        self._stop.set()
        self._sender.join(15)
        self.maker.close()

    def stored(self) -> int:
        """Bytes in the repository."""
        return tree_size(self.place)

    def minute(self) -> tuple[str, int]:
        """A point; what it became, and the bytes that it added to the repository."""
        before, kind = self.stored(), "journal"
        try:
            self.maker.journal(self._stop)
        except TooMuchError:
            kind = "keyframe"
        except DoubtError:  # a kernel that loses events: the agent does the same then
            kind = "doubt"
        if kind != "journal":
            self.maker.keyframe(self._stop)
        if not self._spool.wait_empty(120.0) or self._rejected:
            raise RekindleError(
                f"The point did not come into the repository: {self._rejected or self._sender.trouble}"
            )
        return kind, self.stored() - before

    def keyframe(self) -> int:
        """A keyframe; the bytes that it added."""
        before = self.stored()
        self.maker.keyframe(self._stop)
        return self.stored() - before


def stored(bench: Bench, folder: Path) -> tuple[list[Measured], list[Goal], str]:
    """An hour; and a sentence on what a day comes to. Raises CommandError, RekindleError."""
    scale = bench.live
    found = {name: Measured(name=name) for name in (OURS, IDEAL, CHUNKS, KEYFRAME, IDEAL_KEYFRAME)}
    kinds: list[str] = []

    def note(name: str, began: float, size: int, **more: float) -> None:
        figures = {"stored": float(size), **more}
        found[name].samples.append(Sample(seconds=time.monotonic() - began, figures=figures))

    with contextlib.ExitStack() as stack:
        disk = stack.enter_context(loop_disk(folder / "stored-disk", scale.table + _ROOM, direct=False))
        player = Player(disk.mount, Trace(table=scale.table))
        stack.callback(player.close)
        player.prepare()
        host = _Host(folder, _settings(folder, disk.device))
        stack.callback(host.close)
        host.keyframe()
        image = Image(disk.image)
        first = list(image.chunks)
        for number in range(scale.minutes):
            player.play(number)
            began = time.monotonic()
            kind, size = host.minute()
            kinds.append(kind)
            note(OURS, began, size)
            before, began = image.look(), time.monotonic()
            blocks = [block for at, old in before.items() for block in changed_blocks(old, image.chunks[at])]
            note(IDEAL, began, compressed(blocks), changed=float(len(blocks) * BLOCK))
            began = time.monotonic()
            sizes = [compressed([image.chunks[at]]) for at in before]
            note(CHUNKS, began, sum(sizes), changed=float(len(before) * CHUNK))
            if number % 10 == 0:
                bench.say(
                    f"    minute {number}: {kind}, {size / MIB:.1f} MiB; the ideal {compressed(blocks) / MIB:.1f}"
                )
        began = time.monotonic()
        note(KEYFRAME, began, host.keyframe())
        began = time.monotonic()
        pairs = zip(first, image.chunks, strict=True)
        note(IDEAL_KEYFRAME, began, sum(compressed([now]) for old, now in pairs if now != old))
        os.sync()
    return list(found.values()), *_judge(found, kinds)


def _settings(folder: Path, device: str) -> Settings:
    text = (
        f'host = "{HOST}"\ndisks = ["{device}"]\n[repository]\nlocation = "/r"\nsecret_file = "/s"\n'
        f'[limits]\nfreeze = "5s"\n[spool]\ndirectory = "{folder}/spool"\n'
    )
    return parse_settings(text, "agent.toml")


def per_day(minutes: Measured, keyframe: Measured | None) -> float:
    """Bytes of a day: its minutes, and a keyframe an hour."""
    sizes = [sample.figures["stored"] for sample in minutes.samples]
    hourly = keyframe.samples[0].figures["stored"] if keyframe and keyframe.samples else 0.0
    return _DAY * (_HOUR * sum(sizes) / max(1, len(sizes)) + hourly)


def _judge(found: dict[str, Measured], kinds: Sequence[str]) -> tuple[list[Goal], str]:
    ours, ideal = per_day(found[OURS], found[KEYFRAME]), per_day(found[IDEAL], found[IDEAL_KEYFRAME])
    chunks = per_day(found[CHUNKS], None)
    minutes = per_day(found[OURS], None) / per_day(found[IDEAL], None)
    goals = [
        goal("stored a day, of the ideal: 4 KiB blocks and a keyframe an hour", 1.2, ours / ideal, "x", at_most=True),
        goal("stored by the minutes alone, of their 4 KiB blocks", 1.2, minutes, "x", at_most=True),
        goal("stored a day, of points of 1 MiB chunks each minute", 0.2, ours / chunks, "x", at_most=True),
    ]
    odd = len(kinds) - kinds.count("journal")
    text = (
        f"Stored a day: {ours / GIB:.1f} GiB (journals {per_day(found[OURS], None) / GIB:.1f} of it), ideal "
        f"{ideal / GIB:.1f} GiB, points of chunks {chunks / GIB:.1f} GiB; {len(kinds)} minutes, {odd} of them "
        "no journal."
    )
    return goals, text
