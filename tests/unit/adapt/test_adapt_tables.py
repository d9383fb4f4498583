"""Which partition grows and how far; whether a table is the captured one; where the backup GPT is."""

from __future__ import annotations

import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recovery.adapt.tables import (
    Growth,
    LivePartition,
    LiveTable,
    backup_gpt_lba,
    differences,
    growth,
    parse_sfdisk,
)
from recovery.errors import IntegrityError
from recovery.layout import Partition, PartitionTable
from recovery.units import GIB, MIB, TIB

GPT = LiveTable(
    "gpt",
    512,
    (LivePartition(1, MIB, 256 * MIB, "ESP", "aa"), LivePartition(2, 257 * MIB, GIB, "LINUX", "bb")),
    last_usable=4 * GIB - 34 * 512,
)


def test_the_last_partition_grows_to_the_last_whole_mebibyte() -> None:
    assert growth(GPT, 4 * GIB) == [Growth(2, 257 * MIB, GIB, 4 * GIB - MIB - 257 * MIB)]


def test_less_than_a_mebibyte_of_room_is_none() -> None:
    full = LiveTable("gpt", 512, GPT.partitions, last_usable=257 * MIB + GIB + MIB - 512)
    assert growth(full, 4 * GIB) == []


def test_last_is_the_one_that_ends_last_not_the_highest_number() -> None:
    table = LiveTable("gpt", 512, (LivePartition(1, GIB, GIB, "x"), LivePartition(2, MIB, 5 * MIB, "y")), 4 * GIB)
    assert [step.number for step in growth(table, 4 * GIB)] == [1]


def test_an_mbr_logical_partition_takes_its_container_along() -> None:
    table = LiveTable(
        "mbr",
        512,
        (
            LivePartition(1, MIB, GIB, "83"),
            LivePartition(2, GIB + 2 * MIB, GIB, "5"),
            LivePartition(5, GIB + 3 * MIB, GIB - MIB, "8e"),
        ),
    )
    steps = growth(table, 8 * GIB)
    assert [(s.number, s.start + s.size) for s in steps] == [(2, 8 * GIB), (5, 8 * GIB)]


def test_an_empty_container_behind_is_not_run_over() -> None:
    table = LiveTable("mbr", 512, (LivePartition(1, MIB, GIB, "83"), LivePartition(2, 2 * GIB, GIB, "f")))
    assert growth(table, 8 * GIB) == []


def test_an_esp_that_was_made_at_the_end_is_grown_up_to() -> None:
    esp = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
    table = LiveTable("gpt", 512, (LivePartition(1, MIB, GIB, "x"), LivePartition(2, 3 * GIB, GIB // 2, esp)), 4 * GIB)
    assert [(s.number, s.start + s.size) for s in growth(table, 4 * GIB)] == [(1, 3 * GIB)]


def test_an_mbr_ends_at_two_tebibytes() -> None:
    table = LiveTable("mbr", 512, (LivePartition(1, MIB, GIB, "83"),))
    assert growth(table, 8 * TIB)[0].size == 2 * TIB - MIB


def test_a_disk_without_partitions_has_nothing_to_grow() -> None:
    assert growth(LiveTable("gpt", 512, (), 4 * GIB), 4 * GIB) == []


@given(
    parts=st.lists(st.tuples(st.integers(0, 40), st.integers(1, 40)), min_size=1, max_size=5),
    room=st.integers(0, 200),
    sector=st.sampled_from([512, 4096]),
)
def test_no_start_moves_nothing_shrinks_nothing_overlaps(parts: list[tuple[int, int]], room: int, sector: int) -> None:
    at, made = 256, []
    for number, (gap, size) in enumerate(parts, 1):  # in units of 4 KiB * 97: not aligned to 1 MiB
        at += gap * 97
        made.append(LivePartition(number, at * 4096, size * 97 * 4096, "x"))
        at += size * 97
    disk = (at + room * 97 + 34) * 4096
    table = LiveTable("gpt", sector, tuple(made), last_usable=disk - 34 * 4096)
    steps = growth(table, disk)
    assert len(steps) <= 1
    for step in steps:
        old = made[step.number - 1]
        assert step.start == old.start and step.size > old.size
        assert step.start + step.size <= table.last_usable
        assert all(p.start < step.start for p in made if p.number != step.number)


def test_sfdisk_speaks_in_sectors_of_the_disk() -> None:
    text = json.dumps(
        {
            "partitiontable": {
                "label": "gpt", "lastlba": 1000, "sectorsize": 4096,
                "partitions": [{"node": "/dev/nvme0n1p12", "start": 256, "size": 512, "type": "T", "uuid": "AB-CD"}],
            }
        }
    )  # fmt: skip
    table = parse_sfdisk(text)
    assert table.partitions == (LivePartition(12, MIB, 2 * MIB, "T", "ab-cd"),)
    assert table.last_usable == 1001 * 4096


def test_a_broken_table_is_an_integrity_error() -> None:
    with pytest.raises(IntegrityError, match="cannot be read"):
        parse_sfdisk("{}")


def captured(*partitions: Partition) -> PartitionTable:
    return PartitionTable(kind="gpt", partitions=partitions)


def test_a_grown_partition_is_still_the_captured_one() -> None:
    point = captured(
        Partition(number=1, start=MIB, size=256 * MIB, uuid="AA"), Partition(number=2, start=257 * MIB, size=MIB)
    )
    assert differences(GPT, point) == []


@pytest.mark.parametrize(
    ("partition", "words"),
    [
        (Partition(number=3, start=MIB, size=MIB), "missing"),
        (Partition(number=1, start=2 * MIB, size=MIB), "not where it was"),
        (Partition(number=1, start=MIB, size=GIB), "not where it was"),
        (Partition(number=1, start=MIB, size=MIB, uuid="cc"), "PARTUUID"),
    ],
)
def test_another_table_is_told(partition: Partition, words: str) -> None:
    assert words in differences(GPT, captured(partition))[0]


def test_another_kind_of_table_is_told() -> None:
    assert "mbr" in differences(GPT, PartitionTable(kind="mbr"))[0]


def test_the_primary_header_says_where_the_backup_is() -> None:
    header = bytearray(512)
    header[:8] = b"EFI PART"
    struct.pack_into("<Q", header, 32, 12345)
    assert backup_gpt_lba(bytes(header)) == 12345
    assert backup_gpt_lba(bytes(512)) is None
    assert backup_gpt_lba(b"EFI PART") is None
