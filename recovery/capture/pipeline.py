"""Capture: look at the disks, read what has data, send what the repository lacks, and commit the point last of all."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from recovery import __version__
from recovery.capture.crew import Channel
from recovery.capture.diskmap import DiskMap
from recovery.capture.figures import STEP, Figures
from recovery.capture.hashing import BATCH_BYTES, Batch
from recovery.capture.inventory import Inventory, Mounter, take_inventory
from recovery.capture.mounts import mounted
from recovery.capture.parent import base_maps, tell_of_clock
from recovery.capture.privately import in_private_mounts
from recovery.capture.reader import chunk_runs
from recovery.capture.request import CaptureRequest
from recovery.capture.sending import Sender
from recovery.capture.sources import Source, check_unchanged, open_sources
from recovery.errors import AccessError, CancelledError
from recovery.events import Listener, Message, StepFinished, StepStarted
from recovery.format.chunk import chunk_size_for
from recovery.format.mapcodec import encode_map
from recovery.format.names import check_host, point_name
from recovery.format.point import (
    Consistency,
    DiskMapRef,
    LiveFigures,
    Point,
    PointBody,
    PointDisk,
    PointHeader,
    PointSummary,
)
from recovery.layout import Content
from recovery.repository.attention import RetryTeller, attended
from recovery.repository.protocols import ChunkIndex
from recovery.repository.repository import Repository
from recovery.units import format_size

POINT_VERSION = 1


def capture(
    repository: Repository, index: ChunkIndex, request: CaptureRequest, listener: Listener, cancel: threading.Event
) -> Point:
    """Capture the disks as one new point of the host. Nothing is visible before the point is committed.

    Raises BusyError (a disk in use; another capture of this host finished meanwhile), DeviceError (a disk that cannot
    be read or changed), SpaceError, UnreachableError, CancelledError, and what opening a source raises. What was
    stored before an error is found again by the next capture. A server that does not answer is told of, and
    ``cancel`` ends the wait for it.
    """
    retries = RetryTeller(listener, STEP)
    with attended(repository.store, retries, cancel):
        return _capture(repository, index, request, listener, cancel, retries)


def _capture(
    repository: Repository,
    index: ChunkIndex,
    request: CaptureRequest,
    listener: Listener,
    cancel: threading.Event,
    retries: RetryTeller,
) -> Point:
    check_host(request.host)
    started = time.time()
    check_access(repository, index, request.host, started)
    with open_sources(request.disks, request.image_format) as sources:
        inventory = look(sources, request, listener, 3)
        parent = repository.latest(request.host)
        tell_of_clock(parent, started, listener)
        bases = base_maps(repository, request.host, parent, sources, listener)
        disks = []
        for source in sources:
            name, base = bases.get(source.name, ("", None))
            chunk_size = base.chunk_size if base else chunk_size_for(source.size, repository.file.chunk_size)
            disks.append(DiskMap(source, chunk_size, base, name))
        sender = Sender(repository, index, request, listener, cancel, retries)
        sender.begin("Capturing the disks", 2, 3)
        sender.send(sum(disk.source.size for disk in disks), lambda batches, figures: _feed(disks, batches, figures))
        sender.end()
        for source in sources:
            check_unchanged(source)
        return commit_point(
            repository,
            request,
            disks,
            inventory,
            Facts(started, started, parent, _consistency(request, sources), steps=3),
            listener,
            cancel,
        )


@dataclass(frozen=True)
class Facts:
    """What a point says besides its disks. ``created`` is its time, ``started`` when the capture began; ``steps`` how
    many steps the capture has."""

    created: float
    started: float
    parent: PointSummary | None
    consistency: Consistency
    steps: int
    live: LiveFigures | None = None


def commit_point(
    repository: Repository,
    request: CaptureRequest,
    disks: Sequence[DiskMap],
    inventory: Inventory,
    facts: Facts,
    listener: Listener,
    cancel: threading.Event,
) -> Point:
    """Store the maps of the disks, then the point. Raises BusyError, CancelledError, and what storing raises."""
    begun = time.monotonic()
    listener(StepStarted(step="commit", title="Committing the recovery point", number=facts.steps, of=facts.steps))
    refs: list[DiskMapRef] = []
    packs: set[bytes] = set()
    described: list[PointDisk] = []
    for disk in disks:
        reference, description = _finish_disk(repository, disk, inventory, packs)
        refs.append(reference)
        described.append(description)
    header = PointHeader(
        version=POINT_VERSION,
        repository=repository.id,
        host=request.host,
        created=facts.created,
        parent=facts.parent.id if facts.parent else "",
        maps=tuple(refs),
        retention=request.retention,
    )
    body = PointBody(
        disks=tuple(described),
        consistency=facts.consistency,
        firmware=request.firmware or inventory.firmware.firmware,
        secure_boot=inventory.firmware.secure_boot,
        system=inventory.system,
        volume_groups=tuple(inventory.groups),
        md_arrays=tuple(inventory.arrays),
        luks_volumes=tuple(inventory.encrypted),
        vms=tuple(inventory.vms),
        windows=tuple(inventory.windows),
        note=request.note,
        captured_by=f"rekindle {__version__}",
        duration=time.time() - facts.started,
        live=facts.live,
    )
    if cancel.is_set():
        raise CancelledError("The capture was stopped; nothing of it is visible.", hint="Run it again.")
    point = repository.commit(header, body, packs)
    listener(StepFinished(step="commit", summary=f"point {point.id[:12]}", seconds=time.monotonic() - begun))
    return point


def check_access(repository: Repository, index: ChunkIndex, host: str, now: float) -> None:
    """Ask for two things that only whoever may commit a point of this host may ask for: a capture that runs for hours
    must not be refused at its end. Raises AccessError."""
    index.lookup([bytes(32)])
    try:
        repository.store.size(point_name(host, now, "0" * 64))
    except AccessError as error:
        raise AccessError(
            f"This login may not store points of host '{host}'.",
            hint="Check --host, or log in as a user who may; see 'rekindle user list' on the server.",
        ) from error


def look(
    sources: Sequence[Source],
    request: CaptureRequest,
    listener: Listener,
    steps: int,
    mount: Mounter = mounted,
    *,
    running: bool = False,
) -> Inventory:
    """The inventory, and what it found, told. ``mount`` shows the files of a volume; see ``take_inventory``."""
    begun = time.monotonic()
    listener(StepStarted(step="inventory", title="Looking at the disks", number=1, of=steps))
    inventory = in_private_mounts(
        lambda: take_inventory(
            sources,
            lambda text: listener(Message(text=text, level="warning", step="inventory")),
            mount,
            running=running,
        )
    )
    decision = inventory.firmware
    if request.firmware:
        text = f"Firmware: {request.firmware}, as asked for (the disks say {decision.firmware}: {decision.why})."
    else:
        text = f"Firmware: {decision.firmware}, because {decision.why}."
    for words in (text, *(decision.notes if not request.firmware else ())):
        listener(Message(text=words, step="inventory"))
    summary = (
        f"{len(sources)} disk{'s' if len(sources) != 1 else ''} with {format_size(sum(s.size for s in sources))}, "
        f"{inventory.system.os_name or 'no known operating system'}, {len(inventory.vms)} VMs"
    )
    listener(StepFinished(step="inventory", summary=summary, seconds=time.monotonic() - begun))
    return inventory


def _consistency(request: CaptureRequest, sources: Sequence[Source]) -> Consistency:
    if request.consistency:
        return request.consistency
    # Nobody writes to the sources (that was checked), but an LV may be a snapshot of a host that ran: claim less.
    return "crash" if any(source.may_be_snapshot for source in sources) else "offline"


def _feed(disks: Sequence[DiskMap], batches: Channel[Batch], figures: Figures) -> None:
    """Cut the disks into batches; holes are settled here without being read."""
    for disk in disks:
        figures.note = disk.source.name if len(disks) > 1 else ""
        size = max(1, BATCH_BYTES // disk.chunk_size)
        for first, count, has_data in chunk_runs(disk.source, disk.chunk_size):
            if has_data:
                for start in range(first, first + count, size):
                    batches.put(Batch(disk, start, min(size, first + count - start)))
            else:
                disk.set_hole(first, count)
                length = min(disk.source.size, (first + count) * disk.chunk_size) - first * disk.chunk_size
                figures.look_at(length)
                figures.skip(length)
    batches.close()


def _finish_disk(
    repository: Repository, disk: DiskMap, inventory: Inventory, packs: set[bytes]
) -> tuple[DiskMapRef, PointDisk]:
    source = disk.source
    chunk_map = disk.finish()
    packs |= chunk_map.used_packs() - (disk.base.used_packs() if disk.base is not None else set())
    parent = (disk.base_name, disk.base) if disk.base is not None else None
    name = repository.put_map(encode_map(chunk_map, repository.keys, parent=parent))
    facts = PointDisk(
        name=source.name,
        size=source.size,
        sector_size=inventory.sector_sizes.get(source.name, source.sector_size),
        chunk_size=disk.chunk_size,
        root=chunk_map.root().hex(),
        # Of a file its name only: the path would say more about the place of capture than about the host.
        device=str(source.given) if source.is_device else source.given.name,
        used=chunk_map.used(),
        changed=disk.changed,
        stored=disk.stored,
        table=inventory.tables[source.name],
        content=next((volume.content for volume in inventory.volumes if volume.name == source.name), Content()),
        model=source.identity.model,
        serial=source.identity.serial,
        wwn=source.identity.wwn,
    )
    return DiskMapRef(disk=source.name, map=name), facts
