"""``rekindle capture --live``: a recovery point of a host while it runs, from whole disks mounted read-write."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from recovery.capture.busy import parse_mountinfo
from recovery.capture.diskmap import DiskMap
from recovery.capture.figures import STEP
from recovery.capture.live.beside import Beside
from recovery.capture.live.chunks import ChunkCopier
from recovery.capture.live.cut import take_cut
from recovery.capture.live.filesystems import (
    Filesystem,
    find_filesystems,
    hidden_filesystems,
    mount_holding,
    refuse_own_output,
)
from recovery.capture.live.guestclass import with_consistency
from recovery.capture.live.guests import GuestQuiescer
from recovery.capture.live.hostmounts import host_mounter
from recovery.capture.live.limits import DoubtError
from recovery.capture.live.rawvolumes import volume_name
from recovery.capture.live.session import LiveSession
from recovery.capture.live.survey import VmSurvey
from recovery.capture.parent import base_maps, tell_of_clock
from recovery.capture.pipeline import Facts, check_access, commit_point, look
from recovery.capture.request import CaptureRequest
from recovery.capture.sending import Sender
from recovery.capture.sources import Source, check_unchanged, open_sources
from recovery.capture.tracking.model import Extents, TrackedDisk
from recovery.capture.tracking.witness import tracked_disk
from recovery.capture.vmplaces import with_occupancies
from recovery.errors import DeviceError, UsageError
from recovery.events import Listener, Message
from recovery.format.chunk import chunk_size_for
from recovery.format.chunkmap import ChunkMap
from recovery.format.names import check_host
from recovery.format.point import Consistency, LiveFigures, Point, PointSummary
from recovery.repository.attention import RetryTeller, attended
from recovery.repository.protocols import ChunkIndex
from recovery.repository.repository import Repository

_BLKFLSBUF = 0x1261
_STEPS = 4
#: Full reads that are tried when writes were missed.
_TRIES = 3

Bases = dict[str, tuple[str, ChunkMap]]


def capture_live(
    repository: Repository,
    index: ChunkIndex,
    request: CaptureRequest,
    session: LiveSession,
    listener: Listener,
    cancel: threading.Event,
) -> Point:
    """Capture whole disks that the host writes to as one point, consistent at the moment of its freeze.

    With a ``session`` that captured the host's newest point only changed chunks are read. Raises what ``take_cut`` and
    ``pipeline.capture`` raise, and UsageError for what is not a whole disk or would capture itself.
    """
    retries = RetryTeller(listener, STEP)
    with attended(repository.store, retries, cancel):
        check_host(request.host)
        started = time.time()
        check_access(repository, index, request.host, started)
        with open_sources(request.disks, running=True) as sources:
            tracked = [tracked_disk(source.name, source.path) for source in sources]
            _refuse_ourselves(repository, find_filesystems(tracked))
            for source in sources:
                _drop_stale(source.path)
            session.watch(tracked, lambda text: listener(Message(text=text, level="warning", step=STEP)))
            inventory = look(sources, request, listener, _STEPS, host_mounter(tracked), running=True)
            survey = session.survey = VmSurvey(inventory.places, inventory.volumes, tracked)
            session.quiescer = None
            if session.guests is not None:
                session.quiescer = GuestQuiescer(
                    inventory.vms,
                    session.guests,
                    lambda text: listener(Message(text=text, level="warning", step=STEP)),
                    memory=session.guest_memory,
                )
            # Guests last: they are held no longer than it takes.
            beside: list[Beside] = [survey, *([session.quiescer] if session.quiescer else [])]
            parent = repository.latest(request.host)
            tell_of_clock(parent, started, listener)
            bases = session.bases_since(parent) or base_maps(repository, request.host, parent, sources, listener)
            sender = Sender(repository, index, request, listener, cancel, retries)
            for number in range(1, _TRIES + 1):
                disks = [_disk_map(source, bases, repository) for source in sources]
                try:
                    figures = _cut(session, disks, tracked, bases, parent, sender, listener, cancel, beside)
                    break
                except DoubtError as error:
                    session.forget()
                    if number == _TRIES:
                        raise
                    listener(Message(text=f"{error.message} {error.hint}", level="warning", step=STEP))
                    session.distrust(error.doubt, tracked)
            for source in sources:
                check_unchanged(source)
            quiesced = with_consistency(inventory.vms, session.quiescer.found if session.quiescer else None)
            inventory.vms = with_occupancies(quiesced, survey.found)
            consistency = _consistency(tracked, figures, listener)
            facts = Facts(figures.moment, started, parent, consistency, _STEPS, figures)
            point = commit_point(repository, request, disks, inventory, facts, listener, cancel)
            names = {reference.disk: reference.map for reference in point.header.maps}
            session.committed(point.id, {d.source.name: (names[d.source.name], d.finish()) for d in disks})
            return point


def _consistency(tracked: Sequence[TrackedDisk], figures: LiveFigures, listener: Listener) -> Consistency:
    """What was frozen is whole; what nobody froze stood still by proof, but is as a power cut leaves it."""
    suspended = {each.name for each in figures.volumes}
    hidden = [
        each for each in hidden_filesystems(tracked, find_filesystems(tracked))
        # Device-mapper freezes the filesystem that is mounted from a volume which it suspends.
        if volume_name(each.device) not in suspended
    ]  # fmt: skip
    for each in hidden:
        text = f"The filesystem on '{each.source}' is mounted in a container only ('{each.mount}') and was not frozen."
        listener(Message(text=text, level="warning", step=STEP))
    return "crash" if hidden else "filesystem"


def _disk_map(source: Source, bases: Bases, repository: Repository) -> DiskMap:
    name, base = bases.get(source.name, ("", None))
    chunk_size = base.chunk_size if base else chunk_size_for(source.size, repository.file.chunk_size)
    return DiskMap(source, chunk_size, base, name)


def _cut(
    session: LiveSession,
    disks: Sequence[DiskMap],
    tracked: Sequence[TrackedDisk],
    bases: Bases,
    parent: PointSummary | None,
    sender: Sender,
    listener: Listener,
    cancel: threading.Event,
    beside: Sequence[Beside],
) -> LiveFigures:
    first: dict[str, Extents] = {}
    reasons: list[str] = []
    for disk in tracked:
        if why := session.why_full(disk.name, parent, disk.name in bases):
            reasons.append(f"{disk.path}: {why}")
            session.tracker.renew(disk.name)
            first[disk.name] = Extents.whole(disk.size)
        else:
            first[disk.name] = session.tracker.changed().get(disk.name, Extents())
    if reasons:
        # Until this one is committed, changes are known since this read only.
        session.forget()
    for reason in reasons:
        listener(Message(text=f"All of the disk is read and compared. {reason}.", step=STEP))

    def before_rest() -> None:
        sender.end()
        sender.begin("Sending what was read under the freeze", 3, _STEPS)

    sender.begin("Capturing the running disks", 2, _STEPS)
    copier = ChunkCopier(disks, tracked, sender, session.limits, before_rest)
    with contextlib.closing(copier):
        figures = take_cut(session.tracker, tracked, first, copier, session.limits, listener, cancel, beside)
    sender.end()
    return msgspec.structs.replace(figures, full_compare="; ".join(reasons))


def _drop_stale(path: Path) -> None:
    """Forget what the page cache holds of the block device: the filesystems on it write past it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise DeviceError(f"'{path}' cannot be opened: {error.strerror}.", hint="Run as root.") from error
    try:
        with contextlib.suppress(OSError):
            fcntl.ioctl(descriptor, _BLKFLSBUF, 0)
    finally:
        os.close(descriptor)


def _refuse_ourselves(repository: Repository, filesystems: Sequence[Filesystem]) -> None:
    """Raises UsageError when the repository lies on the disks, BusyError when our own output does."""
    outputs = [("output", 1), ("error output", 2)]
    for handler in logging.getLogger().handlers + logging.getLogger("rekindle").handlers:
        if isinstance(handler, logging.FileHandler) and handler.stream is not None:
            outputs.append(("log", handler.stream.fileno()))
    refuse_own_output(filesystems, outputs)
    root = getattr(repository.store, "root", None)
    if isinstance(root, Path):
        holder = mount_holding(str(root.resolve()), parse_mountinfo(Path("/proc/self/mountinfo").read_text()))
        if holder is not None and holder.device in {each.device for each in filesystems}:
            raise UsageError(
                f"The repository '{root}' lies on a disk that is to be captured.",
                hint="Keep the repository on another disk or on a server: it must outlive this one.",
            )
