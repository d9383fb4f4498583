"""Restore one disk: workers in parallel, partition tables and boot sectors last, what matters read back at the end."""

from __future__ import annotations

import contextlib
import os
import random
import threading
import time
from collections.abc import Callable, Iterable, Sequence, Set
from contextlib import AbstractContextManager
from itertools import chain
from pathlib import Path
from typing import Literal

import msgspec

from recovery.errors import IntegrityError, RekindleError
from recovery.events import Listener, Message, Progress
from recovery.format.chunk import chunk_id
from recovery.format.chunkmap import ChunkMap, MapEntry
from recovery.format.overlay import composed_root
from recovery.format.point import Point
from recovery.repository.attention import Aside, RetryTeller, attended
from recovery.repository.content import DiskContent, disk_content
from recovery.repository.failover import NEXT_COPY, FailoverStore, copies_of, first_readers, request_size
from recovery.repository.parts import gathers
from recovery.repository.repository import Repository
from recovery.restore.buffers import page_buffer
from recovery.restore.crew import work_off
from recovery.restore.overlaying import Overlayer, OverlayTask, plan_overlay
from recovery.restore.pace import Pace
from recovery.restore.placed import Extent, Outside, PlacedTarget, clip
from recovery.restore.ranges import (
    Batch,
    Frame,
    ZeroRange,
    batch_up,
    coalesce,
    interleave,
    plan_reads,
    plan_zeros,
    suited_gap,
)
from recovery.restore.readback import Readback
from recovery.restore.report import DiskReport, locate_damage
from recovery.restore.target import Target
from recovery.restore.worker import Counters, Worker
from recovery.restore.writes import WRITE_SIZE, WriteBehind
from recovery.units import MIB, RateMeter, format_duration, format_rate, format_size

Task = Batch | ZeroRange | OverlayTask

#: Seconds without a byte until that is said.
_SILENT = 5.0
#: With 64 chunks compared, a restore that was cut off after 5 % is noticed in 96 of 100 cases.
_COMPARED = 64

#: A server takes 128 connections of one address; and of what a worker keeps, 16 MiB to 24 MiB are buffers.
_MOST_WORKERS = 32
_WORKER_MEMORY = 32 * MIB
#: One connection over 30 ms gives some 70 MB/s (slow starts, and Linux's default send buffer of 4 MiB); and the whole
#: process has 512 MiB.
_MOST_READERS = 12


def worker_count(cores: int, free: int) -> int:
    """How many decode: as many as there are cores, as long as they fit in a quarter of the ``free`` bytes of memory.
    Pure."""
    return max(2, min(cores, _MOST_WORKERS, free // 4 // _WORKER_MEMORY))


def reader_limit(decoders: int, free: int) -> int:
    """How many reads may go on at once beside ``decoders``: a far store wants as many, see ``pace``. Pure."""
    return max(1, min(_MOST_READERS, free // 4 // _WORKER_MEMORY - decoders))


def _free_memory() -> int:
    """Bytes that programs may still take; very many where that is not known."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        lines = []
    found = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    return found[0] if found else 1 << 62


class RestoreOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How to restore. ``workers`` 0: as many as ``worker_count`` says decode, and as many read as ``pace`` finds best.
    ``patience``: seconds to wait for a server that does not answer. ``sample``: chunks read back at the end;
    ``verify_all`` reads back every one, and compares the Merkle root. ``compare``: look at what the disk holds before
    fetching; ``auto`` does when a sample shows that it holds some of it. ``skip_damaged``: what no copy of the
    repository has is left as zeros, and told in the report. ``request``: bytes that are asked for at once, at most
    MAX_READ; 0: as many as suit the source."""

    workers: int = 0
    patience: float = 3600.0
    sample: int = 256
    verify_all: bool = False
    compare: Literal["auto", "always", "never"] = "auto"
    skip_damaged: bool = False
    request: int = 0


def restore_disk(
    repository: Repository,
    point: Point,
    disk_name: str,
    target_path: str,
    listener: Listener,
    cancel: threading.Event,
    options: RestoreOptions | None = None,
    *,
    chunk_map: ChunkMap | None = None,
    extents: Sequence[Extent] | None = None,
) -> DiskReport:
    """Write disk ``disk_name`` of ``point`` onto the block device or file ``target_path``; memory: about 100 MiB.

    Nothing half-written can boot: the first and last chunk (partition tables, boot sectors) are wiped before anything
    else is written, and written when all the rest was read back. With ``extents`` only those parts of the disk are
    restored, each to its place on the target: the report counts what has a place, and no partition table is written.

    Raises CancelledError, IntegrityError, UnreachableError, DeviceError, and what Target raises.
    """
    options, counters, ended = options or RestoreOptions(), Counters(), threading.Event()
    retries = RetryTeller(listener, f"stream:{disk_name}", lambda: counters.add(retries=1))
    try:
        # Where there are other copies, one that does not answer is not waited for: the workers do that.
        patience = options.patience if len(copies_of(repository.store)) == 1 else min(options.patience, NEXT_COPY)
        with attended(repository.store, retries, ended, patience), _copies_told(repository, listener, disk_name):
            if chunk_map is not None:
                content = DiskContent(chunk_map)
            else:
                content = Aside().call(lambda: disk_content(repository, point, disk_name), cancel)
            retries.over()
            with _open_target(target_path, content.map.size, extents) as target:
                return _Restore(
                    repository, point, disk_name, content, target, listener, cancel, options, counters, retries,
                    extents,
                ).run()  # fmt: skip
    finally:
        ended.set()  # whoever was left waiting for the server gives up


def _open_target(path: str, size: int, extents: Sequence[Extent] | None) -> Target:
    return Target(path, size) if extents is None else PlacedTarget(path, extents)


def _copies_told(repository: Repository, listener: Listener, disk: str) -> AbstractContextManager[None]:
    if not isinstance(repository.store, FailoverStore):
        return contextlib.nullcontext()
    return repository.store.told(lambda text: listener(Message(level="warning", text=text, step=f"stream:{disk}")))


class _Restore:
    def __init__(
        self,
        repository: Repository,
        point: Point,
        disk_name: str,
        content: DiskContent,
        target: Target,
        listener: Listener,
        cancel: threading.Event,
        options: RestoreOptions,
        counters: Counters,
        retries: RetryTeller,
        extents: Sequence[Extent] | None = None,
    ) -> None:
        self.repository, self.point, self.disk_name = repository, point, disk_name
        self.map, self.target, self.listener, self.cancel, self.options = (
            content.map, target, listener, cancel, options
        )  # fmt: skip
        self.overlayer = Overlayer(content.overlay) if content.overlay is not None else None
        self.touched = content.overlay.touched() if content.overlay is not None else []
        self.counters, self.retries = counters, retries
        self.moved = (-1, 0.0)
        self.stop = threading.Event()
        self.meter = RateMeter()
        self.step = f"stream:{disk_name}"
        self.verified_bytes = 0
        self.pace = self._pace()
        self.compare = False
        self.placed = extents is not None
        map = self.map
        whole = (Extent(0, map.size, 0),) if extents is None else extents
        #: Chunks of which no byte has a place: they are neither fetched nor read back.
        self.outside = Outside(whole, map.chunk_size, map.count)
        self.touched = [index for index in self.touched if index not in self.outside]
        self.total = sum(
            min(map.size, last * map.chunk_size) - first * map.chunk_size for first, last in self.outside.runs
        )

    def run(self) -> DiskReport:
        start = time.monotonic()
        late = {index for index in (0, self.map.count - 1) if index >= 0 and index not in self.outside}
        self._wipe_ends()
        apart = late.union(self.touched)
        self.compare = self._worth_comparing(apart)
        without: Set[int] = self.outside.and_also(apart) if self.placed else apart
        zeros = list(clip(plan_zeros(self.map, without=apart), self.outside.runs, self.map.chunk_size))
        if self.target.blank:
            self.counters.add(zeroed=sum(zero.length for zero in zeros))
            zeros = []
        gathered = gathers(self.repository.store)
        size = self.options.request or request_size(self.repository.store)
        gap = suited_gap(self.map, gathered=gathered)
        reads = plan_reads(self.map, without=without, max_gap=gap, max_read=size)
        batches = batch_up(reads, gathered=gathered, max_read=size)
        overlaid = plan_overlay(self.touched, self.map.chunk_size, late)
        self._work(chain(interleave(batches, self.map.blob_count(), zeros), overlaid))
        self.target.sync()
        composed = self.overlayer.ids if self.overlayer is not None else {}
        back = Readback(
            self.map, self.repository.keys, self.target, self.counters.lost, self._describe, self.stop, composed
        )
        whole = self.options.verify_all
        chosen: Sequence[int] = range(self.map.count) if whole else back.sample(self.options.sample, late)
        if self.placed:
            chosen = [index for index in chosen if index not in self.outside]
        self._verify(back, chosen, without=late)
        try:
            self._write_ends(late)
            self._verify(back, sorted(late), of=chosen)
            matched = whole and not self.placed and self._root_matches(back)
        except BaseException:
            # It was not complete after all; a target that is gone needs no mark.
            with contextlib.suppress(RekindleError):
                self._wipe_ends(always=True)
            raise
        self._report()
        counters = self.counters
        lost = ((index * self.map.chunk_size, self.map.length(index)) for index in counters.lost)
        return DiskReport(
            disk=self.disk_name, target=self.target.path, logical=self.total, transferred=counters.transferred,
            written=counters.written, zeroed=counters.zeroed, skipped=counters.skipped,
            seconds=time.monotonic() - start, verified=True, verified_bytes=self.verified_bytes,
            root=self.point.disk(self.disk_name).root, root_matched=matched,
            journals=len(self.overlayer.overlay.heads) if self.overlayer is not None else 0,
            damaged=locate_damage(lost, self.point.disk(self.disk_name).table),
        )  # fmt: skip

    def _wipe_ends(self, *, always: bool = False) -> None:
        """Mark the target as incomplete: no partition table, no boot sector, no signature at either end, and that on
        stable storage (a larger disk keeps its old backup GPT or md superblock in its last MiB). A blank one has none
        of it, unless ``always``."""
        if not self.target.blank or always:
            self.target.wipe_ends()

    def _write_ends(self, late: set[int]) -> None:
        """What makes the disk complete: its partition tables and boot sectors, once all else is there and right. The
        beginning comes last, so that whatever ends this in its middle, the disk does not boot."""
        touched = late.intersection(self.touched)
        for index in sorted(late, reverse=True):
            entry = self.map.get(index)
            if index in touched:
                self._work([OverlayTask((index,))])
            elif isinstance(entry, MapEntry):
                frame = Frame(entry.id, entry.offset, entry.length, (index,))
                self._work(batch_up(coalesce(entry.pack, [frame]), gathered=False))
            else:
                self._work([ZeroRange(index * self.map.chunk_size, self.map.length(index))])
            self.target.sync()

    def _worth_comparing(self, apart: set[int]) -> bool:
        """Whether the disk holds part of this point already: after a restore that was cut off, or the host's own disk
        of another day. Then the disk is the state of the restore, and only what differs is fetched."""
        if self.target.blank or self.options.compare != "auto":
            return self.options.compare == "always" and not self.target.blank
        tries = random.sample(range(self.map.count), min(self.map.count, 64 * _COMPARED))
        stored = [index for index in tries if isinstance(self.map.get(index), MapEntry)]
        stored = [index for index in stored if index not in apart and index not in self.outside]
        buffer = page_buffer(self.map.chunk_size)
        for index in random.sample(stored, min(_COMPARED, len(stored))):
            plain, entry = buffer[: self.map.length(index)], self.map.get(index)
            self.target.read(index * self.map.chunk_size, plain)
            if isinstance(entry, MapEntry) and chunk_id(self.repository.keys, plain) == entry.id:
                text = f"The disk holds part of {self.disk_name} already: only what differs is fetched."
                self.listener(Message(text=text, step=self.step))
                return True
        return False

    def _work(self, work: Iterable[Task]) -> None:
        size = max(WRITE_SIZE, self.map.chunk_size)
        with WriteBehind(self.target, size, self.pace.decoding.limit, self.stop, self._count_written) as writes:
            self._work_off(work, writes)

    def _count_written(self, length: int) -> None:
        self.counters.add(written=length)

    def _work_off(self, work: Iterable[Task], writes: WriteBehind) -> None:
        def make_worker() -> Callable[[Task], None]:
            worker = Worker(
                self.repository.store, self.repository.keys, self.map, self.target, self.counters, self.stop,
                self.listener, self.options.patience, self.retries, self._describe, self.compare,
                self.pace, writes, self.options.skip_damaged,
            )  # fmt: skip

            def restore(task: Task) -> None:
                if isinstance(task, ZeroRange):
                    worker.zero(task.offset, task.length)
                elif isinstance(task, OverlayTask):
                    if self.overlayer is not None:
                        self.overlayer.restore(task, worker)
                else:
                    worker.restore(task)

            return restore

        threads = self.pace.threads
        work_off(work, threads, make_worker, self.stop, self.cancel, self._report, lambda: self.pace.threads)

    def _pace(self) -> Pace:
        decoders = self._workers()
        if self.options.workers:
            return Pace(decoders, decoders, self.stop)
        most = reader_limit(decoders, _free_memory())
        return Pace(first_readers(self.repository.store), decoders, self.stop, most=most)

    def _workers(self) -> int:
        return self.options.workers or worker_count(os.cpu_count() or 2, _free_memory())

    def _report(self) -> None:
        rate, now = self.meter.update(self.counters.done), time.monotonic()
        moved = self.counters.done + self.counters.transferred
        if moved != self.moved[0]:
            self.moved = (moved, now)
        silent = now - self.moved[1]
        note = self.retries.note()
        if not note and silent >= _SILENT:
            note = f"nothing arrived for {format_duration(silent)}"
        self._tell_progress(rate=rate, eta=self.meter.eta(self.total - self.counters.done), note=note)

    def _tell_progress(self, *, rate: float = 0.0, eta: float | None = None, note: str = "") -> None:
        counters = self.counters
        self.listener(Progress(
            step=self.step, disk=self.disk_name, done=counters.done, total=self.total,
            transferred=counters.transferred, written=counters.written, skipped=counters.skipped, rate=rate,
            eta=eta, retries=counters.retries, note=note,
        ))  # fmt: skip

    def _verify(
        self, back: Readback, chosen: Sequence[int], *, without: Set[int] = frozenset(), of: Sequence[int] = ()
    ) -> None:
        """Read these chunks back from the disk, ``without`` some; they are part ``of`` those that are read in all."""
        total = self.total if self.options.verify_all else sum(map(self.map.length, of or chosen))
        meter = RateMeter()

        def tick() -> None:
            rate = meter.update(back.done)
            note = f"reading back {format_size(back.done)} of {format_size(total)}"
            self._tell_progress(note=f"{note}, {format_rate(rate)}" if rate else note)

        tick()
        # A reader of the disk waits for it half of the time: two more than there are cores.
        chunks = (index for index in chosen if index not in without)
        back.check(chunks, self._workers() + 2, self.cancel, tick)
        self.verified_bytes = back.done
        tick()

    def _root_matches(self, back: Readback) -> bool:
        """Whether all of the disk, which was read back, has the Merkle root that was signed, or that keyframe and
        journals under the signed root make. Raises IntegrityError when it has another one although nothing was
        lost."""
        if self.overlayer is None:
            wanted = self.point.disk(self.disk_name).root
        else:
            wanted = composed_root(self.map, self.overlayer.ids).hex()
        matched = back.root().hex() == wanted
        if not matched and not self.counters.lost:
            raise IntegrityError(
                f"What '{self.target.path}' gives back has another Merkle root than the one that was signed.",
                hint="The disk is not what was captured. Report this: every chunk of it was right.",
            )
        return matched

    def _describe(self, offset: int) -> str:
        """Where a byte of the disk lies, for people: the partition and what is on it."""
        for partition in self.point.disk(self.disk_name).table.partitions:
            if partition.start <= offset < partition.start + partition.size:
                inside = format_size(offset - partition.start)
                what = f" ({partition.content.kind})" if partition.content.kind else ""
                return f"byte {offset} of {self.disk_name}, {inside} into partition {partition.number}{what}"
        return f"byte {offset} of {self.disk_name}"
