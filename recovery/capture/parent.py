"""The host's previous point, as the base of the new one: which of its disks is which of ours."""

from __future__ import annotations

from collections.abc import Sequence

from recovery.capture.sources import Source
from recovery.errors import AccessError, RekindleError
from recovery.events import Listener, Message
from recovery.format.chunkmap import ChunkMap
from recovery.format.point import Point, PointDisk, PointSummary
from recovery.repository.clock import TOLERANCE, utc
from recovery.repository.repository import Repository


def match_disks(sources: Sequence[Source], disks: Sequence[PointDisk]) -> dict[str, PointDisk]:
    """Source name -> the parent's disk that it was, each at most once: by WWN, serial, else name and size.

    Serial number and WWN decide first for all sources, so that exchanged cables or arguments do not mix disks up.
    """
    found: dict[str, PointDisk] = {}
    left = list(disks)
    for rule in (_same_wwn, _same_serial, _same_file, _same_name):
        for source in sources:
            if source.name in found:
                continue
            disk = next((disk for disk in left if rule(source, disk)), None)
            if disk is not None:
                found[source.name] = disk
                left.remove(disk)
    return found


def _same_wwn(source: Source, disk: PointDisk) -> bool:
    return bool(source.identity.wwn) and source.identity.wwn == disk.wwn


def _same_serial(source: Source, disk: PointDisk) -> bool:
    identity = source.identity
    return bool(identity.serial) and (identity.serial, identity.model) == (disk.serial, disk.model)


def _same_file(source: Source, disk: PointDisk) -> bool:
    return not source.identity.serial and source.given.name == disk.device and source.size == disk.size


def _same_name(source: Source, disk: PointDisk) -> bool:
    return source.name == disk.name and source.size == disk.size


def tell_of_clock(parent: PointSummary | None, now: float, listener: Listener) -> None:
    """Say it when the newest point of the host is dated after this machine's ``now`` (seconds since the epoch): points
    go forward in time, so the new one gets a time that is not its own."""
    if parent is None or parent.created <= now + TOLERANCE:
        return
    text = (
        f"The newest point of {parent.host} is dated {utc(parent.created)}, this machine's clock says {utc(now)}: one "
        "of them is wrong. The new point is dated just after that one. Set the clock ('date'), and keep it set by NTP."
    )
    listener(Message(text=text, level="warning"))


def base_maps(
    repository: Repository, host: str, parent: PointSummary | None, sources: Sequence[Source], listener: Listener
) -> dict[str, tuple[str, ChunkMap]]:
    """Source name -> (stored name, map) in the parent point, where it can be read and the size is the same."""
    if parent is None:
        return {}
    try:
        point = repository.point(host, parent.id)
    except AccessError:
        # A token of role 'capture' may not read; then every chunk is looked up and the map is stored whole.
        return {}
    except RekindleError as error:
        listener(Message(text=f"The previous point is not used as a base: {error.message}", level="warning"))
        return {}
    found: dict[str, tuple[str, ChunkMap]] = {}
    for name, disk in match_disks(sources, point.body.disks).items():
        found_map = _read_map(repository, point, disk, listener)
        source = next(source for source in sources if source.name == name)
        if found_map and found_map[1].size == source.size:
            found[name] = found_map
    return found


def _read_map(
    repository: Repository, point: Point, disk: PointDisk, listener: Listener
) -> tuple[str, ChunkMap] | None:
    try:
        chunk_map = repository.base_map(point, disk.name)
    except RekindleError as error:
        listener(
            Message(text=f"The previous map of {disk.name} is not used as a base: {error.message}", level="warning")
        )
        return None
    return next(ref.map for ref in point.header.maps if ref.disk == disk.name), chunk_map
