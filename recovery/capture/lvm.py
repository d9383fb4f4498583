"""LVM2 read straight from the disks: PV label, metadata area, then where each LV's bytes lie.

No device-mapper and no ``lvm`` program: a capture must see the LVs of images that nothing has activated, and must
not activate a host's VGs beside our own. Layout: lvm2's ``lib/format_text/layout.h`` and ``lib/label/label.h``.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from recovery.capture.lvmtext import LvmSyntaxError, parse_config
from recovery.capture.ranges import Extent, cut, read_extents, total
from recovery.capture.thin import ThinPlace
from recovery.errors import IntegrityError
from recovery.layout import LogicalVolume, LvmSegment, VolumeGroup

_SECTOR = 512
_LABEL = b"LABELONE"
_MDA_MAGIC = b" LVM2 x[5A%r0N*>"
_MDA_HEADER_SIZE = 512
_RAW_LOCN_IGNORED = 1


@dataclass(frozen=True)
class PhysicalVolume:
    """A PV found on a disk: its UUID (with dashes), where it lies, and the metadata text it carries (or none)."""

    uuid: str
    where: tuple[Extent, ...]
    metadata: str = ""


@dataclass(frozen=True)
class MappedVolume:
    """An LV with the extents that hold its bytes in order; no extents when it isn't linear or a PV is missing. Of a
    thin volume in a pool that is linear, ``thin`` tells where to look."""

    group: str
    volume: LogicalVolume
    extents: tuple[Extent, ...]
    thin: ThinPlace | None = None

    @property
    def name(self) -> str:
        """``vg/lv``."""
        return f"{self.group}/{self.volume.name}"


def lvm_crc(data: bytes) -> int:
    """LVM's CRC-32: the usual polynomial with its own start value and no final inversion."""
    return zlib.crc32(data, 0xF597A6CF ^ 0xFFFFFFFF) ^ 0xFFFFFFFF


def read_pv(where: Sequence[Extent]) -> PhysicalVolume | None:
    """The PV whose bytes lie in ``where``, or None when there is no PV label. Raises IntegrityError, DeviceError."""
    head = read_extents(where, 0, 4 * _SECTOR)
    for sector in range(4):
        label = head[sector * _SECTOR : (sector + 1) * _SECTOR]
        if label[:8] == _LABEL and label[24:32] == b"LVM2 001":
            header = int.from_bytes(label[20:24], "little")
            return _read_pv_header(tuple(where), label[header:])
    return None


def _read_pv_header(where: tuple[Extent, ...], header: bytes) -> PhysicalVolume:
    raw = header[:32].decode("ascii", "replace")
    cuts = (0, 6, 10, 14, 18, 22, 26, 32)
    uuid = "-".join(raw[a:b] for a, b in zip(cuts, cuts[1:], strict=False))
    areas: list[list[tuple[int, int]]] = [[], []]
    position = 40
    for found in areas:
        while position + 16 <= len(header):
            offset, size = struct.unpack_from("<QQ", header, position)
            position += 16
            if offset == 0:
                break
            found.append((offset, size))
    newest = ""
    problem: IntegrityError | None = None
    for offset, size in areas[1]:
        try:
            text = _read_metadata(where, offset, size, uuid)
        except IntegrityError as error:
            # A PV may carry two copies; one good copy is enough.
            problem = error
        else:
            newest = max(newest, text, key=_seqno)
    if not newest and problem:
        raise problem
    return PhysicalVolume(uuid, where, newest)


def _read_metadata(where: tuple[Extent, ...], offset: int, size: int, uuid: str) -> str:
    header = read_extents(where, offset, _MDA_HEADER_SIZE)
    if len(header) < _MDA_HEADER_SIZE or header[4:20] != _MDA_MAGIC:
        raise IntegrityError(f"The LVM metadata area of PV {uuid} has no valid header.")
    if lvm_crc(header[4:]) != int.from_bytes(header[:4], "little"):
        raise IntegrityError(f"The LVM metadata header of PV {uuid} has a wrong checksum.")
    start, length, checksum, flags = struct.unpack_from("<QQII", header, 40)
    if start == 0 or length == 0 or flags & _RAW_LOCN_IGNORED:
        return ""
    # The area is a ring that starts after its header.
    first = min(length, size - start)
    text = read_extents(where, offset + start, first)
    text += read_extents(where, offset + _MDA_HEADER_SIZE, length - first)
    if lvm_crc(text) != checksum:
        raise IntegrityError(f"The LVM metadata of PV {uuid} has a wrong checksum.")
    return text.rstrip(b"\0").decode("utf-8", "replace")


def _group_of(text: str) -> tuple[str, dict[str, Any]]:
    config = parse_config(text)
    for name, value in config.items():
        if isinstance(value, dict) and "physical_volumes" in value:
            return name, value
    raise LvmSyntaxError("no volume group in it")


def _seqno(text: str) -> int:
    try:
        return int(_group_of(text)[1].get("seqno", 0)) if text else -1
    except LvmSyntaxError:
        return -1


def read_groups(pvs: Iterable[PhysicalVolume]) -> tuple[list[VolumeGroup], list[MappedVolume]]:
    """The volume groups that the PVs form (newest metadata wins) and their LVs with the extents of the linear ones.

    Raises IntegrityError when a PV's metadata passes its checksum but makes no sense.
    """
    found = list(pvs)
    by_uuid = {pv.uuid: pv for pv in found}
    newest: dict[str, tuple[str, dict[str, Any]]] = {}
    for pv in found:
        if not pv.metadata:
            continue
        try:
            name, group = _group_of(pv.metadata)
        except LvmSyntaxError as error:
            raise IntegrityError(f"The LVM metadata of PV {pv.uuid} cannot be read: {error}.") from error
        known = newest.get(str(group.get("id")))
        if known is None or int(group["seqno"]) > int(known[1]["seqno"]):
            newest[str(group.get("id"))] = (name, group)
    groups: list[VolumeGroup] = []
    mapped: list[MappedVolume] = []
    for name, group in newest.values():
        try:
            volumes = _map_group(name, group, by_uuid)
            groups.append(_describe(name, group, volumes))
        except (KeyError, TypeError, ValueError) as error:
            raise IntegrityError(f"The LVM metadata of VG '{name}' is not understood: {error!r}.") from error
        mapped += volumes
    return groups, mapped


def _map_group(name: str, group: dict[str, Any], by_uuid: dict[str, PhysicalVolume]) -> list[MappedVolume]:
    extent_size = int(group["extent_size"]) * _SECTOR
    pvs = {key: (by_uuid.get(str(pv["id"])), pv) for key, pv in group["physical_volumes"].items()}
    described = group.get("logical_volumes", {})
    extents = {key: _extents_of(_segments(lv), pvs, extent_size) for key, lv in described.items()}
    # A snapshot that is hidden names what it is merged into: that has the snapshot's content from its next start on.
    merged = {str(segment["merge"]) for lv in described.values() for segment in _segments(lv) if "merge" in segment}
    volumes: list[MappedVolume] = []
    for lv_name, lv in described.items():
        if "VISIBLE" not in lv.get("status", []):
            continue
        segments = _segments(lv)
        kind = next((kind for kind in map(_segment_kind, segments) if kind != "linear"), "linear")
        alone = kind == "linear" and len(pvs) == 1 and bool(extents[lv_name])
        volume = LogicalVolume(
            name=lv_name,
            size=sum(int(segment["extent_count"]) for segment in segments) * extent_size,
            uuid=str(lv.get("id", "")),
            segment=kind,
            segments=_places(segments, group, extent_size) if alone else (),
        )
        thin = _thin_place(segments, described, extents) if kind == "thin" and lv_name not in merged else None
        volumes.append(MappedVolume(name, volume, extents[lv_name], thin))
    return volumes


def _segments(lv: dict[str, Any]) -> list[dict[str, Any]]:
    segments = [value for key, value in lv.items() if key.startswith("segment") and isinstance(value, dict)]
    return sorted(segments, key=lambda segment: int(segment["start_extent"]))


def _extents_of(
    segments: Sequence[dict[str, Any]], pvs: dict[str, tuple[PhysicalVolume | None, Any]], extent_size: int
) -> tuple[Extent, ...]:
    """The bytes of an LV in order; none when it is not linear, or a PV is missing or cut short: it must not look
    whole then."""
    extents: list[Extent] = []
    for segment in segments:
        if _segment_kind(segment) != "linear":
            return ()
        pv, described = pvs.get(segment["stripes"][0], (None, {}))
        if pv is None:
            return ()
        start = int(described["pe_start"]) * _SECTOR + int(segment["stripes"][1]) * extent_size
        extents += cut(pv.where, start, int(segment["extent_count"]) * extent_size)
    size = sum(int(segment["extent_count"]) for segment in segments) * extent_size
    return tuple(extents) if total(extents) == size else ()


def _thin_place(
    segments: Sequence[dict[str, Any]], described: dict[str, Any], extents: dict[str, tuple[Extent, ...]]
) -> ThinPlace | None:
    """None where not all of it is in the pool (an external origin), or where the pool's own volumes are not linear."""
    if len(segments) != 1 or "external_origin" in segments[0]:
        return None
    pools = _segments(described.get(str(segments[0].get("thin_pool")), {}))
    if len(pools) != 1 or pools[0].get("type") != "thin-pool":
        return None
    metadata, data = extents.get(pools[0]["metadata"], ()), extents.get(pools[0]["pool"], ())
    if not metadata or not data:
        return None
    return ThinPlace(metadata, data, int(segments[0]["device_id"]), int(pools[0]["transaction_id"]))


def _places(segments: Sequence[dict[str, Any]], group: dict[str, Any], extent_size: int) -> tuple[LvmSegment, ...]:
    """Where the segments lie on the group's only PV."""
    start = _extents_start(group)
    return tuple(
        LvmSegment(offset=start + int(s["stripes"][1]) * extent_size, size=int(s["extent_count"]) * extent_size)
        for s in segments
    )


def _extents_start(group: dict[str, Any]) -> int:
    (pv,) = group["physical_volumes"].values()
    return int(pv["pe_start"]) * _SECTOR


def _segment_kind(segment: dict[str, Any]) -> str:
    kind = str(segment.get("type", "striped"))
    return "linear" if kind == "striped" and int(segment.get("stripe_count", 1)) == 1 else kind


def _describe(name: str, group: dict[str, Any], volumes: Sequence[MappedVolume]) -> VolumeGroup:
    extent_size = int(group["extent_size"]) * _SECTOR
    size = sum(int(pv["pe_count"]) for pv in group["physical_volumes"].values()) * extent_size
    used = 0
    for lv in group.get("logical_volumes", {}).values():
        for segment in lv.values():
            # Only segments that name PVs take room; thin volumes and pools lie in hidden LVs which do.
            if isinstance(segment, dict) and segment.get("type") == "striped":
                used += int(segment["extent_count"])
    return VolumeGroup(
        name=name,
        uuid=str(group.get("id", "")),
        size=size,
        free=max(0, size - used * extent_size),
        extent_size=extent_size,
        extents_start=_extents_start(group) if len(group["physical_volumes"]) == 1 else 0,
        pv_uuids=tuple(str(pv["id"]) for pv in group["physical_volumes"].values()),
        volumes=tuple(mapped.volume for mapped in volumes),
    )
