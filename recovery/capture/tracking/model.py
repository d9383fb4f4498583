"""What trackers of changed blocks are, as types: a disk that is tracked, the Tracker protocol, and doubts.

A tracker knows which blocks of whole disks were written (discards and write-zeroes count) between two *switches*. It
belongs to one user: ``switch`` hands out what changed since the last ``switch`` and begins the next era. Whoever needs
changes since longer ago (an hourly keyframe) keeps the union of what the switches gave. ::

    tracker.start(disks)
    tracker.renew(disk.name)           # before a full read: changes from now on count
    ... read all of the disk ...
    changed = tracker.switch()         # what may differ from what was read; read these ranges again, and so on
    if doubt := tracker.doubt(name):   # the changes are not complete: only a full read will do, after renew()

A consistent point on top of it: ``recovery.capture.live.cut.take_cut(tracker, disks, first, copier, limits, listener,
cancel) -> LiveFigures`` (``first``: what the first pass reads, by disk; an empty Extents when nothing). It raises what
``Doubt`` says, a remainder that does not shrink and a freeze that took too long as errors; the copy is then void.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, Protocol

import msgspec

from recovery.capture.tracking.extents import NONE, Extents, Pair

__all__ = ["NONE", "Cause", "Copier", "Doubt", "Extents", "Method", "Pair", "Piece", "TrackedDisk", "Tracker"]

#: How changes become known: eBPF on the block layer's completions, the tracefs ring buffer, not at all (full compare).
Method = Literal["ebpf", "tracefs", "scan"]

#: Why a disk's changes are not known completely.
Cause = Literal[
    "new",  # nothing was read since tracking of this disk began (first point, restart of the agent, reboot)
    "missed",  # the kernel's buffer or log of events overflowed
    "counters",  # sectors seen and sectors in /sys/block/X/stat differ
    "resized",
    "replaced",  # the device went away, or another one has its number now
    "passthrough",  # commands written past the block layer (SG_IO)
    "untracked",  # no tracker works for this disk (lockdown, bio-based or zoned disk, iostats off)
]

#: Smallest block that a map resolves, bytes.
FINEST = 4096
#: Bytes of memory that the maps of all disks together may take: with the agent itself less than 256 MiB.
MEMORY_BUDGET = 176 * 1024 * 1024


class TrackedDisk(msgspec.Struct, frozen=True, kw_only=True):
    """A whole disk (never a partition or an LV). ``size`` is bytes; ``sequence`` is the kernel's diskseq, which no
    other device of this boot has (0 before Linux 5.15)."""

    name: str
    path: Path
    major: int
    minor: int
    size: int
    kernel_name: str
    """Its folder in /sys/block."""
    sequence: int = 0


class Doubt(msgspec.Struct, frozen=True, kw_only=True):
    """Why the changes of a disk can't be trusted; ``text`` is a sentence for people, stored in the point."""

    cause: Cause
    text: str


class Tracker(Protocol):
    """One thread at a time may call these, except ``close``. Names are those of the disks given to ``start``."""

    @property
    def method(self) -> Method:
        """How it works."""

    @property
    def block_size(self) -> int:
        """Bytes of the smallest range that it tells apart (a power of two, 4096 at least)."""

    def start(self, disks: Sequence[TrackedDisk]) -> None:
        """Begin to watch; every disk is in doubt ('new') until it was renewed. Call it once.

        Raises DeviceError when this kernel does not allow this method.
        """

    def renew(self, disk: str) -> None:
        """Forget the disk's doubt and what changed so far: the caller begins a full read of it now."""

    def switch(self, *, frozen: bool = False) -> Mapping[str, Extents]:
        """End the era: what was written since the last switch (or renew), for each disk, aligned to ``block_size``.

        Every write that completed before the call is in it; one that completes later is in the next one at the
        latest. ``frozen``: return as soon as possible, because filesystems wait; writes of what is not frozen that
        complete at this very moment may come with the next switch.
        """

    def peek(self) -> Mapping[str, Extents]:
        """What was written since the last switch; it stays for the next one."""

    def check(self, disk: str) -> bool:
        """Compare with the kernel's own counters, if nothing is written right now; whether it could be compared.
        A difference puts the disk in doubt. Exact under a freeze."""

    def doubt(self, disk: str) -> Doubt | None:
        """Why the changes since ``renew`` are not complete, or None. Looks at the device too (resized, replaced)."""

    def close(self) -> None:
        """Stop watching and free the kernel's objects. Twice is harmless."""


class Copier(Protocol):
    """Whoever takes the bytes of a consistent point (``recovery.capture.live.cut.take_cut``): chunks or a journal.

    ``copy`` is called for each pass of the pre-copy, then ``remainder`` and ``keep`` once each for the last one.
    """

    def copy(self, changed: Mapping[str, Extents]) -> int:
        """Read these ranges of the disks, which go on changing, and keep what was read; later passes overwrite it.
        Returns the bytes read."""

    def remainder(self, changed: Mapping[str, Extents]) -> Mapping[str, Extents]:
        """Filesystems are frozen: which ranges must be read now, so that with ``changed`` read the copy is whole.
        At least ``changed``. Must neither read, write, log nor wait."""

    def keep(self, pieces: Sequence[Piece]) -> None:
        """The remainder, read under the freeze, after the thaw. The copy is now the disk of that moment."""


class Piece(msgspec.Struct, frozen=True):
    """``data`` was read at ``offset`` of a disk under the freeze."""

    disk: str
    offset: int
    data: memoryview
