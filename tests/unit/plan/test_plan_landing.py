"""Whatever the disk and the target: partitions of a landing lie in order, apart, aligned and on the disk."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recovery.format.point import JournalRef, PointDisk
from recovery.layout import Content, Landing, Partition, PartitionTable, TableKind
from recovery.plan.build import build_plan
from recovery.plan.landing import NoRoom, land, needs_landing, real_partitions
from recovery.plan.minimum import minimum, why_not
from recovery.plan.names import BIOS_BOOT
from recovery.units import GIB, MIB
from tests.unit.plan.hosts import choices, codes, disk, point, recorded, shrinkable

CONTENTS = [
    Content(),
    Content(kind="xfs", block_size=4096),
    Content(kind="vfat", block_size=512),
    Content(kind="swap"),
    Content(kind="ext4", block_size=4096, used=300 * MIB, minimum=280 * MIB),
    Content(kind="ext4", block_size=4096, used=2 * GIB),
    Content(kind="btrfs", block_size=4096, used=GIB, minimum=GIB),
    Content(kind="LVM2_member"),
]


@st.composite
def disks(draw: st.DrawFn) -> PointDisk:
    kind: TableKind = draw(st.sampled_from(["gpt", "mbr"]))
    sector = draw(st.sampled_from([512, 4096]))
    first = draw(st.sampled_from([MIB, 63 * 512, 34 * 512])) if sector == 512 else MIB
    count = draw(st.integers(1, 4 if kind == "gpt" else 3))
    parts, at = [], first
    for number in range(1, count + 1):
        size = draw(st.integers(1, 6000)) * draw(st.sampled_from([sector, MIB, MIB]))
        type = draw(st.sampled_from(["x", "x", BIOS_BOOT])) if kind == "gpt" else "83"
        content = Content() if type == BIOS_BOOT else draw(st.sampled_from(CONTENTS))
        parts.append(Partition(number=number, start=at, size=size, type=type, content=content))
        at += size + draw(st.sampled_from([0, 0, MIB, 7 * sector]))
    if kind == "mbr" and draw(st.booleans()):
        start = at
        inside = []
        for number in range(5, 5 + draw(st.integers(1, 3))):
            at += draw(st.sampled_from([2 * sector, MIB]))
            size = draw(st.integers(1, 3000)) * MIB
            inside.append(
                Partition(number=number, start=at, size=size, type="83", content=draw(st.sampled_from(CONTENTS)))
            )
            at += size
        parts += [Partition(number=count + 1, start=start, size=at - start, type="05"), *inside]
    table = PartitionTable(kind=kind, uuid="u", partitions=tuple(parts))
    size = at + draw(st.sampled_from([33 * sector + 16384, MIB, GIB]))
    return PointDisk(
        name="disk1", size=size // sector * sector, sector_size=sector, chunk_size=MIB, root="", table=table
    )


@given(disks(), st.floats(0.05, 1.5), st.sampled_from([512, 4096]))
def test_a_landing_is_sound(source: PointDisk, factor: float, sector: int) -> None:
    size = int(source.size * factor) // sector * sector
    found = land(source, size, sector)
    if not isinstance(found, Landing):
        return
    old = {part.number: part for part in source.table.partitions}
    cursor = 0 if source.table.kind == "none" else sector
    for placed in found.placements:
        part = old[placed.number]
        assert (placed.old_start, placed.old_size) == (part.start, part.size)
        assert placed.start >= cursor and placed.start % sector == placed.size % sector == 0 < placed.size
        cursor = placed.start + placed.size
        if placed.way == "room":
            continue
        if placed.size < part.size:
            least = minimum(part)
            assert least is not None and placed.size >= least and placed.size % MIB == 0
            assert placed.way == "shrink"
        else:
            assert placed.size - part.size < sector
        if part.start % sector == 0:
            assert (placed.start - part.start) % MIB == 0
        # Bytes are written to their new place in the order of the disk, but nothing is ever read from there: any
        # direction of a move is right.
    behind = sector + 16384 if source.table.kind == "gpt" else 0
    assert cursor <= size - behind
    if source.table.kind == "gpt":
        assert found.placements[0].start >= 2 * sector + 16384
    assert [p.number for p in found.placements] == [p.number for p in real_partitions(source)]
    new = {part.number: part for part in found.table.partitions}
    logical = [part for number, part in new.items() if number > 4]
    for container in (part for part in new.values() if part.type == "05"):
        assert container.start == min(p.start for p in logical) - 2 * sector
        assert container.start + container.size == max(p.start + p.size for p in logical)
        primaries = [p for n, p in new.items() if n <= 4 and p is not container]
        assert all(
            p.start + p.size <= container.start or p.start >= container.start + container.size for p in primaries
        )


@given(disks(), st.sampled_from([512, 4096]))
def test_what_is_said_to_be_needed_is_enough(source: PointDisk, sector: int) -> None:
    found = land(source, MIB * 2, sector)
    if isinstance(found, NoRoom):
        assert isinstance(land(source, found.needed, sector), Landing)


@given(disks())
def test_a_disk_of_the_captured_size_keeps_all_starts(source: PointDisk) -> None:
    assert not needs_landing(source, source.size, source.sector_size)
    found = land(source, source.size, source.sector_size)
    assert isinstance(found, Landing)
    if all(p.type != BIOS_BOOT for p in source.table.partitions) and source.table.partitions[0].start >= 34 * 512:
        assert [p.start for p in found.placements] == [p.start for p in real_partitions(source)]


def host(*parts: tuple[int, Content], size: int = 100 * GIB) -> PointDisk:
    at, found = MIB, []
    for number, (length, content) in enumerate(parts, 1):
        found.append(Partition(number=number, start=at, size=length, content=content))
        at += length
    table = PartitionTable(kind="gpt", uuid="u", partitions=tuple(found))
    return PointDisk(name="disk1", size=size, sector_size=512, chunk_size=MIB, root="", table=table)


def test_who_has_more_to_spare_gives_more() -> None:
    full = Content(kind="ext4", block_size=4096, minimum=18 * GIB)
    empty = Content(kind="ext4", block_size=4096, minimum=GIB)
    found = land(host((20 * GIB, full), (79 * GIB, empty)), 60 * GIB, 512)
    assert isinstance(found, Landing)
    root, home = found.placements
    assert root.size > 19 * GIB > 18.4 * GIB
    assert 39 * GIB < home.size < 41 * GIB


def test_xfs_is_never_shrunk_and_moves() -> None:
    xfs = Content(kind="xfs", block_size=4096)
    ext = Content(kind="ext4", block_size=4096, minimum=GIB)
    disk = host((40 * GIB, ext), (50 * GIB, xfs))
    found = land(disk, 70 * GIB, 512)
    assert isinstance(found, Landing)
    assert found.placements[1].size == 50 * GIB and found.placements[1].moved and found.placements[1].way == "copy"
    assert isinstance(land(disk, 50 * GIB, 512), NoRoom)
    assert "cannot be shrunk" in why_not(disk.table.partitions[1])


@pytest.mark.parametrize("sector", [512, 4096])
def test_a_filesystem_on_the_whole_disk(sector: int) -> None:
    disk = PointDisk(
        name="d", size=10 * GIB, sector_size=512, chunk_size=MIB, root="",
        content=Content(kind="ext4", block_size=4096, minimum=GIB),
    )  # fmt: skip
    found = land(disk, 5 * GIB, sector)
    assert isinstance(found, Landing)
    (placed,) = found.placements
    assert (placed.number, placed.start, placed.size, placed.way) == (0, 0, 5 * GIB, "shrink")
    assert land(disk.__class__(name="d", size=GIB, sector_size=512, chunk_size=MIB, root=""), MIB, 512) == (
        "it has neither a partition table nor a filesystem that is known, so nothing on it can be moved"
    )


def test_a_point_with_journals_is_not_laid_out_anew() -> None:
    machine = recorded("small_server")
    target = machine.disks[0]
    source = disk(size=target.size * 2, table=shrinkable(target.size * 2))
    host = point(source)
    made = build_plan(host, machine, choices(disk1=target.id))
    assert "target-smaller" in codes(made)
    assert "journal-laid-out-anew" not in codes(made)
    header = msgspec.structs.replace(
        host.header, journals=(JournalRef(disk=source.name, journal="ab" * 32, head=1000),)
    )
    made = build_plan(msgspec.structs.replace(host, header=header), machine, choices(disk1=target.id))
    assert "journal-laid-out-anew" in codes(made, "error")
