"""When the changes of a disk may be believed."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recovery.capture.tracking.doubts import Seen, difference
from recovery.capture.tracking.ringbuffer import EventFormat, parse_data_start, parse_format, read_page
from recovery.capture.tracking.witness import Totals, parse_stat
from recovery.errors import DeviceError

KERNEL = Totals(100, 5000, 40)


def seen(requests: int, written: int, discarded: int, misses: int = 0) -> Seen:
    return Seen(Totals(requests, written, discarded), misses)


@pytest.mark.parametrize(
    ("observers", "believed"),
    [
        ([seen(100, 5000, 40)], True),
        ([seen(99, 4992, 40)], False),
        ([seen(100, 5000, 32)], False),
        ([seen(101, 5008, 40)], False),
        # One copy missed nested completions, and says so; another one missed nothing.
        ([seen(90, 4900, 40, 10), seen(100, 5000, 40)], True),
        # A loss that all share: the copy that was never interrupted did not see all either.
        ([seen(90, 4900, 40, 9), seen(99, 4990, 40)], False),
        # Each was interrupted at some time; what each lacks is explained.
        ([seen(98, 4990, 40, 2), seen(97, 4980, 40, 5), seen(99, 4995, 40, 1)], True),
        ([seen(98, 4990, 40, 2), seen(97, 4980, 40, 2), seen(99, 4995, 40, 1)], False),
        ([seen(98, 5001, 40, 2), seen(97, 4980, 40, 5), seen(99, 4995, 40, 1)], False),
    ],
)
def test_difference(observers: list[Seen], believed: bool) -> None:
    assert (difference(KERNEL, observers) == "") == believed


def test_the_kernels_counters() -> None:
    text = "  11 0 1696 30 22 3 3333 44 0 5 6 77 8 9999 10 11 12\n"
    assert parse_stat(text) == Totals(22 + 77, 3333, 9999)
    for damaged in ("", "1 2 3", "a b c d e f g h i j k l m n o"):
        with pytest.raises(ValueError, match="counters|invalid"):
            parse_stat(damaged)


FORMAT = """name: block_rq_complete
ID: 1200
format:
\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;
\tfield:dev_t dev;\toffset:8;\tsize:4;\tsigned:0;
\tfield:sector_t sector;\toffset:16;\tsize:8;\tsigned:0;
\tfield:unsigned int nr_sector;\toffset:24;\tsize:4;\tsigned:0;
\tfield:char rwbs[10];\toffset:34;\tsize:10;\tsigned:0;
"""
PAGE = """\tfield: u64 timestamp;\toffset:0;\tsize:8;\tsigned:0;
\tfield: local_t commit;\toffset:8;\tsize:8;\tsigned:1;
\tfield: char data;\toffset:16;\tsize:4080;\tsigned:0;
"""


def record(device: int, sector: int, sectors: int, operation: str, *, long: bool = False) -> bytes:
    body = bytearray(44)
    struct.pack_into("<H", body, 0, 1200)
    struct.pack_into("<I", body, 8, device)
    struct.pack_into("<QI", body, 16, sector, sectors)
    body[34 : 34 + len(operation)] = operation.encode()
    head = struct.pack("<II", 0, len(body) + 4) if long else struct.pack("<I", len(body) // 4)
    return head + bytes(body)


def page(events: bytes, *, lost: bool = False) -> bytes:
    return struct.pack("<QQ", 1, len(events) | (1 << 31 if lost else 0)) + events + bytes(4080 - len(events))


def test_completions_in_a_page() -> None:
    form = parse_format(FORMAT)
    assert form == EventFormat(1200, 8, 16, 24, 34, 10) and parse_data_start(PAGE) == 16
    events = (
        record(1 << 20, 8, 16, "WS")
        + struct.pack("<II", 30, 5)  # a time extension
        + record(2 << 20, 1 << 40, 2048, "D", long=True)
        + struct.pack("<I", 2) + struct.pack("<HHI", 7, 0, 0)  # another event
        + struct.pack("<I", 29)  # padding to the end
    )  # fmt: skip
    found, lost = read_page(page(events, lost=True), 16, form)
    assert lost
    assert [(each.device, each.sector, each.sectors, each.operation) for each in found] == [
        (1 << 20, 8, 16, "WS"),
        (2 << 20, 1 << 40, 2048, "D"),
    ]
    assert read_page(page(b""), 16, form) == ([], False)


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_damaged_pages_are_refused_or_understood(events: bytes) -> None:
    form = parse_format(FORMAT)
    for data in (page(events), page(events)[: 16 + len(events)], events):
        try:
            read_page(data, 16, form)
        except DeviceError:
            continue


def test_unknown_formats_are_refused() -> None:
    for text in ("", FORMAT.replace("size:8", "size:4"), FORMAT.replace("rwbs", "other")):
        with pytest.raises(DeviceError):
            parse_format(text)
    with pytest.raises(DeviceError):
        parse_data_start(PAGE.replace("commit", "other"))
