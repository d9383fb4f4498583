"""The beginning of an LVM physical volume written for a smaller one, on which the volumes lie otherwise. Pure.

Layout: lvm2's ``lib/label/label.h`` and ``lib/format_text/layout.h``.

What the metadata says besides sizes and places (UUIDs, tags, names, permissions) stays. The text is written anew, with
the next sequence number, at the beginning of the ring that holds it; a second copy at the end is not kept.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

from recovery.capture.lvm import lvm_crc
from recovery.capture.lvmtext import LvmSyntaxError, parse_config
from recovery.errors import IntegrityError
from recovery.layout import VolumePlacement

_SECTOR = 512
_LABEL, _TYPE = b"LABELONE", b"LVM2 001"
_MAGIC = b" LVM2 x[5A%r0N*>"
#: The label's checksum covers what follows it; its header's length, where the physical volume's header begins.
_CRC_FROM = 20
_AREA_HEADER = 512
_PAIR = struct.Struct("<QQ")


def new_head(old: bytes, size: int, volumes: Sequence[VolumePlacement]) -> bytes:
    """``old``: the captured bytes in front of the first extent; ``size``: that of the new physical volume.

    Raises IntegrityError when they are not what the recovery point says.
    """
    at = next((n for n in range(0, 4 * _SECTOR, _SECTOR) if old[n : n + 8] == _LABEL), None)
    if at is None or old[at + 24 : at + 32] != _TYPE:
        raise _wrong("there is no label of LVM2")
    label, area, length = _new_label(old[at : at + _SECTOR], size)
    if area + length > len(old):
        raise _wrong("its metadata lies behind its volumes")
    text = _new_text(_text(old, area, length), size, volumes)
    if len(text) > length // 2 - _AREA_HEADER:  # LVM keeps the text before beside the next one
        raise _wrong("its metadata has no room")
    head = bytearray(len(old))
    head[at : at + _SECTOR] = label
    head[area : area + _AREA_HEADER + len(text)] = _area_header(area, length, text) + text
    return bytes(head)


def _wrong(why: str) -> IntegrityError:
    return IntegrityError(
        f"The LVM physical volume cannot be made smaller: {why}.", hint="Restore to a disk of at least the same size."
    )


def _new_label(sector: bytes, size: int) -> tuple[bytes, int, int]:
    """The label with the new size and its first metadata area only; where that area is, and how long."""
    if int.from_bytes(sector[16:20], "little") != lvm_crc(sector[_CRC_FROM:]):
        raise _wrong("its label has a wrong checksum")
    start = int.from_bytes(sector[20:24], "little")
    header = sector[start:]
    lists, position = list[list[tuple[int, int]]](), 40
    for _ in range(2):  # data areas, then metadata areas; each list ends with a pair of zeros
        lists.append([])
        while (pair := _PAIR.unpack_from(header, position)) != (0, 0):
            lists[-1].append(pair)
            position += 16
        position += 16
    data, metadata = lists
    if not metadata:
        raise _wrong("it holds no metadata")
    areas = b"".join(_PAIR.pack(*pair) for pair in (*data, (0, 0), metadata[0], (0, 0)))
    new = sector[:start] + header[:32] + struct.pack("<Q", size) + areas + header[position:]
    new = new[:_SECTOR].ljust(_SECTOR, b"\0")
    return new[:16] + struct.pack("<I", lvm_crc(new[_CRC_FROM:])) + new[_CRC_FROM:], *metadata[0]


def _text(old: bytes, area: int, length: int) -> dict[str, Any]:
    header = old[area : area + _AREA_HEADER]
    if header[4:20] != _MAGIC or lvm_crc(header[4:]) != int.from_bytes(header[:4], "little"):
        raise _wrong("the header of its metadata is damaged")
    start, size, checksum = struct.unpack_from("<QQI", header, 40)
    first = min(size, length - start)  # the area is a ring that begins behind its header
    text = old[area + start : area + start + first] + old[area + _AREA_HEADER :][: size - first]
    if lvm_crc(text) != checksum:
        raise _wrong("its metadata has a wrong checksum")
    try:
        return parse_config(text.rstrip(b"\0").decode())
    except (LvmSyntaxError, UnicodeDecodeError) as error:
        raise _wrong(f"its metadata is not understood ({error})") from error


def _new_text(config: dict[str, Any], size: int, volumes: Sequence[VolumePlacement]) -> bytes:
    group = next((v for v in config.values() if isinstance(v, dict) and "physical_volumes" in v), None)
    try:
        assert group is not None  # noqa: S101 - read as a KeyError below
        extent = int(group["extent_size"]) * _SECTOR
        ((pv_name, pv),) = group["physical_volumes"].items()
        start = int(pv["pe_start"]) * _SECTOR
        known = group["logical_volumes"]
        if set(known) != {volume.name for volume in volumes}:
            raise _wrong("its volumes are not those of the recovery point")
        for volume in volumes:
            _move(known[volume.name], volume, pv_name, start, extent)
        pv["dev_size"], pv["pe_count"] = size // _SECTOR, (size - start) // extent
        group["seqno"] = int(group["seqno"]) + 1
    except (AssertionError, KeyError, TypeError, ValueError) as error:
        raise _wrong(f"its metadata is not understood ({error!r})") from error
    return (write_config(config) + "\n").encode() + b"\0"


def _move(lv: dict[str, Any], volume: VolumePlacement, pv: str, start: int, extent: int) -> None:
    pieces = sorted((v for k, v in lv.items() if k.startswith("segment") and isinstance(v, dict)),
                    key=lambda piece: int(piece["start_extent"]))  # fmt: skip
    places = [(start + int(p["stripes"][1]) * extent, int(p["extent_count"]) * extent) for p in pieces]
    if places != [(old.offset, old.size) for old in volume.old] or any(p["type"] != "striped" for p in pieces):
        raise _wrong(f"{volume.name} does not lie where the recovery point says")
    for key in [key for key in lv if key.startswith("segment") and key != "segment_count"]:
        del lv[key]
    lv["segment_count"] = 1
    lv["segment1"] = {
        "start_extent": 0, "extent_count": volume.size // extent, "type": "striped", "stripe_count": 1,
        "stripes": [pv, (volume.start - start) // extent],
    }  # fmt: skip


def write_config(section: dict[str, Any], indent: str = "") -> str:
    """LVM's metadata language, as ``lvmtext.parse_config`` reads it."""
    lines = []
    for name, value in section.items():
        if isinstance(value, dict):
            lines.append(f"{indent}{name} {{\n{write_config(value, indent + chr(9))}\n{indent}}}")
        elif isinstance(value, list):
            lines.append(f"{indent}{name} = [{', '.join(map(_scalar, value))}]")
        else:
            lines.append(f"{indent}{name} = {_scalar(value)}")
    return "\n".join(lines)


def _scalar(value: str | int | float) -> str:
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return str(value)


def _area_header(area: int, length: int, text: bytes) -> bytes:
    place = struct.pack("<QQII", _AREA_HEADER, len(text), lvm_crc(text), 0) + bytes(24)
    header = (_MAGIC + struct.pack("<IQQ", 1, area, length) + place).ljust(_AREA_HEADER - 4, b"\0")
    return struct.pack("<I", lvm_crc(header)) + header
