"""A consistent point: copy while the host works, again what changed meanwhile, then freeze and read the small rest.

As live migration does it. The proof that the copy is the disk of one moment: filesystems are frozen, the last changes
are read, and then the tracker has seen no write since they were asked for, and agrees with the kernel's counters.
"""

from __future__ import annotations

import mmap
import threading
import time
from collections.abc import Mapping, Sequence

import msgspec

from recovery.capture.live.beside import Beside, surrounded
from recovery.capture.live.filesystems import Filesystem, find_filesystems, hidden_filesystems, swap_areas
from recovery.capture.live.holder import FreezeTimeoutError, Holder, How, Thawed, sync_mounts
from recovery.capture.live.limits import DoubtError, FreezeLimits, NotStillError
from recovery.capture.live.rawread import HURRY, RawDisk, Read, ReadingCrew, set_priority
from recovery.capture.live.rawvolumes import RawVolume, find_raw_volumes, write_out
from recovery.capture.tracking.model import NONE, Copier, Extents, Piece, TrackedDisk, Tracker
from recovery.errors import CancelledError
from recovery.events import Listener, Message
from recovery.format.point import FrozenFilesystem, LiveFigures, LivePass, SuspendedVolume
from recovery.units import format_size

#: Of the freeze's limit, how much the last reads may take by estimate before a freeze is tried. The rest is for the
#: freezing itself, which waits for the filesystems' journals.
_SHARE = 0.3
#: Times that the rest is read again when something wrote meanwhile, under one freeze.
_ROUNDS = 4
#: A pass that leaves more than this much of the pass before it does not shrink the rest. So many in a row end the
#: pre-copy where the rest is at most ``_NEAR`` times what a freeze may read, else so many: the host pays for each.
_SHRINKING, _STUCK, _NEAR, _STUCK_FAR = 0.9, 3, 2.0, 2
#: Of the time that is left of a freeze, how much may be spent on looking at where files lie.
_LOOKING = 0.5
_STEP = "capture"
_READ_BYTES = 1024 * 1024


class _Attempt(msgspec.Struct):
    """A freeze: ``why`` it failed, or the pieces read; ``unread``: what changed and was not taken."""

    how: list[How]
    pieces: list[Piece]
    moment: float = 0.0
    seconds: float = 0.0
    why: str = ""
    unread: dict[str, Extents] = {}
    volumes: list[RawVolume] = []


def take_cut(
    tracker: Tracker,
    disks: Sequence[TrackedDisk],
    first: Mapping[str, Extents],
    copier: Copier,
    limits: FreezeLimits,
    listener: Listener,
    cancel: threading.Event,
    beside: Sequence[Beside] = (),
) -> LiveFigures:
    """Give ``copier`` the content of the disks at one moment, given that it has all but ``first`` already. ``beside``
    hears of each freeze.

    Raises DoubtError (``tracker.renew`` and a full ``first`` will do), NotStillError (the rest does not shrink, or
    something writes past the filesystems), BusyError (frozen by somebody else), DeviceError, CancelledError; then
    what the copier has is void. Nothing is frozen afterwards, whatever happens.
    """
    filesystems = find_filesystems(disks)
    with Holder(filesystems) as holder, _Cut(tracker, disks, copier, limits, listener, cancel, holder, beside) as cut:
        return cut.take(filesystems, first)


class _Cut:
    def __init__(
        self,
        tracker: Tracker,
        disks: Sequence[TrackedDisk],
        copier: Copier,
        limits: FreezeLimits,
        listener: Listener,
        cancel: threading.Event,
        holder: Holder,
        beside: Sequence[Beside],
    ) -> None:
        self._beside = beside
        self._tracker, self._disks, self._copier, self._holder = tracker, disks, copier, holder
        self._limits, self._listener, self._cancel = limits, listener, cancel
        self._passes: list[LivePass] = []
        #: Bytes a second that the last pass read.
        self._rate = 0.0
        self._raw = {disk.name: RawDisk(disk) for disk in disks}
        # Threads and memory are there before anything is frozen.
        self._readers = ReadingCrew(self._raw, hurried=True)
        self._arena = mmap.mmap(-1, limits.memory)

    def __enter__(self) -> _Cut:
        return self

    def __exit__(self, *ignored: object) -> None:
        self._readers.close()
        for raw in self._raw.values():
            raw.close()

    def take(self, filesystems: Sequence[Filesystem], first: Mapping[str, Extents]) -> LiveFigures:
        self._filesystems = filesystems
        # Of containers: they can't be frozen by us, but written out.
        self._hidden = [each.reach for each in hidden_filesystems(self._disks, filesystems)]
        self._check_doubts()
        self._pass(first)
        pending: Mapping[str, Extents] = {}
        why = ""
        for number in range(1, self._limits.attempts + 1):
            self._shrink(pending)
            attempt = self._freeze()
            if not attempt.why:
                self._check_doubts()
                self._copier.keep(attempt.pieces)
                frozen, suspended = ([round(each, 1) for each in some]
                                     for some in (self._thawed.milliseconds, self._thawed.volumes))  # fmt: skip
                return LiveFigures(
                    moment=attempt.moment,
                    tracker=self._tracker.method,
                    passes=tuple(self._passes),
                    filesystems=tuple(
                        FrozenFilesystem(mount=each.mount, kind=each.kind, how=how, milliseconds=time_)
                        for each, how, time_ in zip(filesystems, attempt.how, frozen, strict=True)
                    ),
                    volumes=tuple(
                        SuspendedVolume(name=each.name, milliseconds=time_)
                        for each, time_ in zip(attempt.volumes, suspended, strict=True)
                    ),
                    freeze_milliseconds=max((*frozen, *suspended), default=0.0),
                    remainder=sum(len(piece.data) for piece in attempt.pieces),
                    attempts=number,
                )
            self._check_doubts()
            why, pending = attempt.why, attempt.unread
            self._listener(Message(text=f"Freeze {number} was given up: {why}.", level="warning", step=_STEP))
        raise NotStillError(
            f"The disks did not come to rest in {self._limits.attempts} freezes: {why}.",
            hint="Stop what writes most (or what writes to a partition directly), allow a longer freeze, or capture "
            "snapshots.",
        )

    def _check_doubts(self) -> None:
        if self._cancel.is_set():
            raise CancelledError("The capture was stopped; nothing of it is visible.", hint="Run it again.")
        for disk in self._disks:
            if doubt := self._tracker.doubt(disk.name):
                raise DoubtError(str(disk.path), doubt)

    def _pass(self, changed: Mapping[str, Extents]) -> None:
        begun = time.monotonic()
        count = self._copier.copy(changed)
        seconds = time.monotonic() - begun
        self._passes.append(LivePass(bytes=count, seconds=round(seconds, 3)))
        # A pass that read next to nothing says nothing about the disk's speed.
        if count >= _READ_BYTES or not self._rate:
            self._rate = max(count, _READ_BYTES) / max(seconds, 0.001)

    def _rest(self) -> int:
        """Bytes that would have to be read if all were frozen now."""
        return sum(extents.bytes for extents in self._copier.remainder(self._tracker.peek()).values())

    def _shrink(self, pending: Mapping[str, Extents]) -> None:
        """Pass after pass, until the rest can be read in time. Raises NotStillError when it does not shrink."""
        before: int | None = None
        stuck = 0
        for _ in range(self._limits.passes):
            self._write_out()
            self._pass(_union(pending, self._tracker.switch()))
            pending = {}
            self._check_doubts()
            # What is in memory still is written out before the freeze, so it counts.
            self._write_out()
            rest = self._rest()
            excess = max(rest / self._limits.memory, rest / self._rate / (self._limits.freeze * _SHARE))
            if excess <= 1.0:
                return
            stuck = stuck + 1 if before is not None and rest > before * _SHRINKING else 0
            if stuck >= (_STUCK if excess <= _NEAR else _STUCK_FAR):
                break
            before = rest
        raise NotStillError(
            f"Too much is written: after {len(self._passes)} passes {format_size(rest)} are left to read, more than "
            f"{self._limits.freeze * 1000:.0f} ms allow.",
            hint="Capture when less is written, allow a longer freeze, or capture snapshots. Nothing was stored as "
            "a point: without a freeze it would not be consistent.",
            # Then more chunks in memory, of which blocks are read, do not help either.
            hopeless=self._written() > _SHRINKING * self._passes[-1].bytes,
        )

    def _written(self) -> int:
        """Bytes of blocks that were written since the last pass began."""
        return sum(extents.bytes for extents in self._tracker.peek().values())

    def _freeze(self) -> _Attempt:
        with surrounded(self._beside):
            return self._freeze_host()

    def _freeze_host(self) -> _Attempt:
        """Freeze, read the rest, thaw. Between freeze and thaw nothing is written, logged or started."""
        swap = swap_areas(self._disks)
        self._write_out()
        # As late as can be: VMs start and stop.
        volumes = find_raw_volumes(self._disks, self._filesystems)
        begun = time.monotonic()
        deadline = begun + self._limits.freeze
        usual = set_priority(HURRY)
        try:
            try:
                how = self._holder.freeze(self._limits.freeze, volumes)
            except FreezeTimeoutError as error:
                return _Attempt([], [], why=error.message.rstrip("."))
            try:
                attempt = self._read_rest(how, swap, deadline)
                attempt.volumes = volumes
                if not attempt.why:
                    # Last, so that it never costs the point: a share of what time is left.
                    now = time.monotonic()
                    for each in self._beside:
                        each.frozen(now + (deadline - now) * _LOOKING)
            finally:
                self._thawed: Thawed = self._holder.thaw()
        finally:
            set_priority(usual)
        if self._thawed.expired and not attempt.why:
            attempt.why = f"{self._limits.freeze * 1000:.0f} ms were not enough"
            attempt.unread = _union(attempt.unread, _places(attempt.pieces))
        return attempt

    def _write_out(self) -> None:
        """What is in memory of filesystems and volumes, so that the freeze does not wait for that."""
        self._holder.sync()
        write_out(find_raw_volumes(self._disks, self._filesystems))
        sync_mounts(self._hidden)

    def _read_rest(self, how: list[How], swap: Mapping[str, Extents], deadline: float) -> _Attempt:
        # What can't be frozen is written out now, when nobody else writes; below it is proven to stay still.
        self._holder.sync("still", how)
        moment = time.time()
        taken: dict[str, Extents] = {}
        attempt = _Attempt(how, [], moment)
        used = 0
        for _ in range(_ROUNDS):
            changed = self._tracker.switch(frozen=True)
            taken = _union(taken, changed)
            attempt.unread = taken
            wanted = self._copier.remainder(changed)
            size = sum(extents.bytes for extents in wanted.values())
            if used + size > self._limits.memory:
                attempt.why = f"{format_size(size)} were left to be read"
                return attempt
            if not self._read(wanted, used, attempt.pieces, deadline):
                attempt.why = f"{self._limits.freeze * 1000:.0f} ms were not enough to read {format_size(size)}"
                return attempt
            used += size
            written = {name: extents.minus(swap.get(name, NONE)) for name, extents in self._tracker.peek().items()}
            if not any(written.values()):
                break
        else:
            places = ", ".join(
                f"{disk.path} at byte {offset}" for disk in self._disks for offset, _ in list(written[disk.name])[:1]
            )
            attempt.why = f"something writes past the frozen filesystems ({places})"
            return attempt
        for disk in self._disks:
            if not self._tracker.check(disk.name):
                attempt.why = f"the kernel's counters of {disk.path} did not come to rest"
                return attempt
        attempt.unread = {}
        return attempt

    def _read(self, wanted: Mapping[str, Extents], used: int, pieces: list[Piece], deadline: float) -> bool:
        """Read into the arena; whether there was time."""
        reads: list[Read] = []
        for name, extents in wanted.items():
            for offset, length in extents.pieces(_READ_BYTES):
                place = memoryview(self._arena)[used : used + length]
                used += length
                pieces.append(Piece(name, offset, place))
                reads.append((name, offset, place))
        return self._readers.read(reads, lambda: time.monotonic() < deadline)


def _union(one: Mapping[str, Extents], other: Mapping[str, Extents]) -> dict[str, Extents]:
    return {name: one.get(name, NONE).union(other.get(name, NONE)) for name in {**one, **other}}


def _places(pieces: Sequence[Piece]) -> dict[str, Extents]:
    found: dict[str, list[tuple[int, int]]] = {}
    for piece in pieces:
        found.setdefault(piece.disk, []).append((piece.offset, len(piece.data)))
    return {name: Extents(pairs) for name, pairs in found.items()}
