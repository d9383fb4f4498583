"""A table written anew says what the landing says, as our parser and (for GPT) its checksums confirm."""

from __future__ import annotations

import zlib

import pytest

from recovery.adapt.newtable import Write, new_table
from recovery.capture.rawtable import parse_table
from recovery.layout import Landing, Partition, PartitionTable
from recovery.units import MIB

SIZE = 800 * MIB
LINUX = "0fc63daf-8483-4772-8e79-3d69d8477de4"
UUIDS = tuple(f"{n:08d}-2222-3333-4444-555566667777" for n in range(3))


def disk_of(writes: list[Write], sector: int) -> PartitionTable:
    content: dict[int, bytes] = {}
    for offset, data in writes:
        assert offset % sector == len(data) % sector == 0
        content[offset] = data

    def read(offset: int, length: int) -> bytes:
        found = bytearray(length)
        for at, data in content.items():
            start, end = max(at, offset), min(at + len(data), offset + length)
            if start < end:
                found[start - offset : end - offset] = data[start - at : end - at]
        return bytes(found)

    found = parse_table(read, SIZE, sector)
    assert not found.problem
    if found.table.kind == "gpt":  # the backup alone is as good
        del content[sector]
        backup = parse_table(read, SIZE, sector)
        assert "backup" in backup.problem
        assert backup.table == found.table
    return found.table


def head_of(writes: list[Write]) -> bytes:
    head = bytearray(64 * 1024)
    for offset, data in writes:
        if offset < len(head):
            head[offset : offset + len(data)] = data
    return bytes(head)


def gpt(sector: int, *places: tuple[int, int]) -> Landing:
    parts = tuple(
        Partition(number=n * 3 + 1, start=start, size=size, type=LINUX, uuid=UUIDS[n], name=f"part {n}",
                  flags=("required",) if n == 0 else ())
        for n, (start, size) in enumerate(places)
    )  # fmt: skip
    table = PartitionTable(kind="gpt", uuid="9f0c6a1e-5d9b-4c7e-8a54-000000000001", partitions=parts)
    return Landing(sector_size=sector, table=table, placements=())


@pytest.mark.parametrize("old", [512, 4096])
@pytest.mark.parametrize("new", [512, 4096])
def test_a_gpt_keeps_all_but_the_places(old: int, new: int) -> None:
    before = new_table(
        gpt(old, (MIB, 100 * MIB), (200 * MIB, 300 * MIB)), SIZE, b"\xeb\x63GRUB".ljust(65536, b"\0"), old
    )
    first = disk_of(before, old)
    entries = next(data for offset, data in before if offset == 2 * old)
    # Attributes that only the captured bytes know (GPT's bit 60: read-only).
    changed = bytearray(entries)
    changed[48 + 7] |= 0x10
    head = bytearray(head_of(before))
    head[2 * old : 2 * old + len(entries)] = changed
    head[old + 88 : old + 92] = zlib.crc32(bytes(changed)).to_bytes(4, "little")
    landing = gpt(new, (2 * MIB, 50 * MIB), (52 * MIB, 300 * MIB))
    after = new_table(landing, SIZE, bytes(head), old)
    found = disk_of(after, new)
    assert [(p.start, p.size) for p in found.partitions] == [(2 * MIB, 50 * MIB), (52 * MIB, 300 * MIB)]
    assert [(p.number, p.uuid, p.name, p.type, p.flags) for p in found.partitions] == [
        (p.number, p.uuid, p.name, p.type, p.flags) for p in first.partitions
    ]
    assert found.uuid == first.uuid
    written = next(data for offset, data in after if offset == 2 * new)
    assert written[48 + 7] & 0x10
    last = after[-1]
    assert last.offset == 0 and last.data[:6] == b"\xeb\x63GRUB" and len(last.data) == new


def test_a_damaged_table_is_made_from_what_the_point_says() -> None:
    found = disk_of(new_table(gpt(512, (MIB, 100 * MIB)), SIZE, bytes(65536), 512), 512)
    (part,) = found.partitions
    assert (part.name, part.uuid, part.flags) == ("part 0", UUIDS[0], ("required",))


@pytest.mark.parametrize("sector", [512, 4096])
def test_an_mbr_with_logical_partitions(sector: int) -> None:
    lead = 2 * sector
    parts = (
        Partition(number=1, start=MIB, size=100 * MIB, type="83", flags=("boot",)),
        Partition(number=2, start=200 * MIB - lead, size=300 * MIB + lead, type="05"),
        Partition(number=5, start=200 * MIB, size=100 * MIB, type="82"),
        Partition(number=6, start=310 * MIB, size=190 * MIB, type="8e"),
    )
    table = PartitionTable(kind="mbr", uuid="deadbeef", partitions=parts)
    head = bytearray(65536)
    head[440:444] = bytes.fromhex("efbeadde")
    found = disk_of(new_table(Landing(sector_size=sector, table=table, placements=()), SIZE, bytes(head), 512), sector)
    assert found.uuid == "deadbeef"
    assert [(p.number, p.start, p.size, p.type) for p in found.partitions] == [
        (p.number, p.start, p.size, p.type) for p in parts
    ]
    assert "boot" in found.partitions[0].flags


def test_a_disk_without_a_table_gets_none() -> None:
    assert new_table(Landing(sector_size=512, table=PartitionTable(), placements=()), SIZE, bytes(65536), 512) == []
