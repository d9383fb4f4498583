"""Pages of the kernel's trace ring buffer (``trace_pipe_raw``) and events in them. Pure: bytes in, values out.

A page: u64 time, a long ``commit`` whose low 20 bits are the bytes of events that follow and whose bit 31 says that
events were lost before them. An event: u32 whose low 5 bits are the type, then data (include/linux/ring_buffer.h).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from recovery.errors import DeviceError

_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")
_LENGTH_MASK, _LOST_FLAG = 0xFFFFF, 1 << 31
_LONG_RECORD, _PADDING, _TIME_EXTEND, _TIME_STAMP = 0, 29, 30, 31
_FIELD = re.compile(r"field:[^;]*?(\w+)(?:\[\d*\])?;\s*offset:(\d+);\s*size:(\d+);")
_ID = re.compile(r"^ID: (\d+)$", re.MULTILINE)


@dataclass(frozen=True)
class EventFormat:
    """Where the fields of ``block_rq_complete`` lie within its record."""

    number: int
    dev: int
    sector: int
    sectors: int
    operation: int
    operation_size: int


@dataclass(frozen=True)
class Completion:
    """A request completed: ``device`` is the kernel's dev_t (major << 20 | minor), ``operation`` as in ``W``, ``FWS``,
    ``D``; offsets in sectors of 512 bytes."""

    device: int
    sector: int
    sectors: int
    operation: str


def parse_format(text: str) -> EventFormat:
    """From ``events/block/block_rq_complete/format``. Raises DeviceError."""
    fields = {name: (int(offset), int(size)) for name, offset, size in _FIELD.findall(text)}
    number = _ID.search(text)
    try:
        if number is None or (fields["sector"][1], fields["nr_sector"][1], fields["dev"][1]) != (8, 4, 4):
            raise KeyError("ID")
        return EventFormat(
            int(number[1]), fields["dev"][0], fields["sector"][0], fields["nr_sector"][0], *fields["rwbs"]
        )
    except KeyError as error:
        raise DeviceError(
            f"The kernel's event block_rq_complete is not as expected ({error}).",
            hint="Without it all of the disk is read and compared each time.",
        ) from error


def parse_data_start(text: str) -> int:
    """Where events begin in a page, from ``events/header_page``. Raises DeviceError."""
    fields = {name: int(offset) for name, offset, _ in _FIELD.findall(text)}
    if fields.get("commit") != 8 or "data" not in fields:
        raise DeviceError(
            "The kernel's ring buffer is not as expected.",
            hint="Without it all of the disk is read and compared each time.",
        )
    return fields["data"]


def read_page(page: bytes, start: int, form: EventFormat) -> tuple[list[Completion], bool]:
    """The completions in a page, and whether events were lost before it. Raises DeviceError when it is no page."""
    try:
        commit = _U64.unpack_from(page, 8)[0]
        end = start + (commit & _LENGTH_MASK)
        if end > len(page):
            raise ValueError("it is cut short")
        records = list(_records(page, start, end))
        completions = [
            _completion(page, at, form) for at in records if page[at : at + 2] == form.number.to_bytes(2, "little")
        ]
    except (struct.error, ValueError, IndexError) as error:
        raise DeviceError(f"A page of the kernel's ring buffer is not understood: {error}.") from error
    return completions, bool(commit & _LOST_FLAG)


def _records(page: bytes, at: int, end: int) -> Iterator[int]:
    """The places of the records' data."""
    while at < end:
        head = _U32.unpack_from(page, at)[0]
        kind = head & 31
        if kind in (_TIME_EXTEND, _TIME_STAMP):
            at += 8
        elif kind == _PADDING:
            if head >> 5 == 0:
                return  # to the end of the page
            at += 4 + _length(page, at)
        elif kind == _LONG_RECORD:
            yield at + 8
            at += 4 + _length(page, at)
        else:
            yield at + 4
            at += 4 + kind * 4


def _length(page: bytes, at: int) -> int:
    length = int(_U32.unpack_from(page, at + 4)[0])
    if length < 4:
        raise ValueError("an event has no length")
    return (length + 3) // 4 * 4


def _completion(page: bytes, at: int, form: EventFormat) -> Completion:
    text = page[at + form.operation : at + form.operation + form.operation_size]
    return Completion(
        _U32.unpack_from(page, at + form.dev)[0],
        _U64.unpack_from(page, at + form.sector)[0],
        _U32.unpack_from(page, at + form.sectors)[0],
        text.split(b"\0", 1)[0].decode("ascii", "replace"),
    )
