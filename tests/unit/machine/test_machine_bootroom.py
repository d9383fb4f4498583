"""Where a boot partition fits: never over another one, never outside of the disk, in the places that cost least."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from recovery.format.point import Point, PointBody, PointDisk, PointHeader
from recovery.layout import Content, Partition, PartitionTable, SystemFacts, TableKind, VolumeGroup
from recovery.machine.bootroom import (
    BIOS_BOOT_LEAST,
    BIOS_BOOT_TYPE,
    ESP_SIZE,
    ESP_TYPES,
    SWAP_LEAST,
    Kind,
    bios_can_start,
    boot_disk,
    existing_esp,
    least_esp,
    place,
)
from recovery.units import GIB, MIB, TIB

SIZE = 8 * GIB


def part(number: int, start: int, size: int, content: str = "ext4", type: str = "linux") -> Partition:
    return Partition(number=number, start=start, size=size, type=type, content=Content(kind=content))


def gpt(*parts: Partition) -> PartitionTable:
    return PartitionTable(kind="gpt", partitions=parts)


def mbr(*parts: Partition) -> PartitionTable:
    return PartitionTable(kind="mbr", partitions=parts)


FULL = gpt(part(1, MIB, SIZE - 2 * MIB))
#: As Debian's installer lays a disk out for BIOS: root, and a logical swap at the end.
DEBIAN = mbr(
    part(1, MIB, 6 * GIB, type="83"),
    Partition(number=2, start=6 * GIB + 2 * MIB, size=2 * GIB - 3 * MIB, type="05"),
    part(5, 6 * GIB + 3 * MIB, 2 * GIB - 4 * MIB, "swap", "82"),
)


def test_an_esp_goes_to_the_very_end_of_a_larger_disk() -> None:
    made = place("d", FULL, 2 * SIZE, 512, "esp")
    assert made is not None and (made.number, made.size) == (2, ESP_SIZE)
    assert 2 * SIZE - MIB - (made.start + made.size) < MIB and made.start % MIB == 0
    assert made.text == "an EFI system partition of 512 MiB at the end of the disk (partition 2)"


def test_a_gap_is_taken_before_the_end() -> None:
    table = gpt(part(1, MIB, GIB), part(2, 2 * GIB, GIB))
    made = place("d", table, SIZE, 512, "esp")
    assert made is not None and made.start == MIB + GIB and "between partitions 1 and 2" in made.where


def test_a_small_gap_gives_a_small_esp_and_none_is_smaller_than_fat32_allows() -> None:
    assert least_esp(512) == 34 * MIB and least_esp(4096) > 256 * MIB
    made = place("d", gpt(part(1, 100 * MIB, SIZE - 101 * MIB)), SIZE, 512, "esp")
    assert made is not None and (made.start, made.size) == (MIB, 99 * MIB)
    assert place("d", gpt(part(1, 33 * MIB, SIZE - 34 * MIB)), SIZE, 512, "esp") is None


def test_grubs_core_fits_in_front_of_the_first_partition() -> None:
    made = place("d", FULL, SIZE, 512, "bios_grub")
    assert made is not None and (made.start, made.size) == (34 * 512, MIB - 34 * 512)
    made = place("d", FULL, SIZE, 4096, "bios_grub")
    assert made is not None and made.start == 6 * 4096
    crowded = gpt(part(1, 34 * 512, SIZE - 34 * 512 - 33 * 512))
    assert place("d", crowded, SIZE, 512, "bios_grub") is None


def test_swap_is_only_taken_when_that_was_allowed() -> None:
    assert place("d", DEBIAN, SIZE, 512, "esp") is None
    made = place("d", DEBIAN, SIZE, 512, "esp", use_swap=True)
    assert made is not None and (made.number, made.size) == (3, ESP_SIZE)
    swap, box = made.shortened
    assert (swap.number, box.number, swap.swap, box.swap) == (5, 2, True, False)
    assert swap.start + swap.size == box.start + box.size == made.start
    assert "swap partition 5" in made.where


def test_a_swap_that_is_small_or_not_the_last_of_its_container_stays() -> None:
    small = gpt(part(1, MIB, SIZE - 82 * MIB), part(2, SIZE - 81 * MIB, 80 * MIB, "swap"))
    assert place("d", small, SIZE, 512, "esp", use_swap=True) is None
    behind = mbr(*DEBIAN.partitions, part(6, SIZE - 2 * MIB, MIB // 2))
    assert place("d", behind, SIZE, 512, "esp", use_swap=True) is None


def test_an_mbr_has_four_entries_and_ends_at_two_tebibytes() -> None:
    four = mbr(*(part(n, n * MIB, MIB) for n in range(1, 5)))
    assert place("d", four, SIZE, 512, "esp") is None
    made = place("d", mbr(part(1, MIB, GIB)), 4 * TIB, 512, "esp")
    assert made is not None and made.start + made.size <= 2 * TIB
    assert place("d", PartitionTable(), SIZE, 512, "esp") is None
    assert place("d", mbr(part(1, 63 * 512, GIB)), SIZE, 512, "bios_grub") is None


def test_a_logical_partition_is_inside_of_its_container() -> None:
    made = place("d", DEBIAN, 2 * SIZE, 512, "esp")
    assert made is not None and made.number == 3 and made.start >= SIZE - MIB


def test_what_is_there_is_seen() -> None:
    esp = part(1, MIB, GIB, "vfat", ESP_TYPES[0].upper())
    assert existing_esp({"a": FULL, "b": gpt(esp)}) == ("b", esp)
    assert existing_esp({"a": gpt(part(1, MIB, GIB, "", ESP_TYPES[0]))}) is None
    assert bios_can_start(gpt(part(1, MIB, MIB, "", BIOS_BOOT_TYPE.upper())))
    assert not bios_can_start(FULL) and bios_can_start(DEBIAN)
    assert not bios_can_start(mbr(part(1, 63 * 512, GIB))) and not bios_can_start(PartitionTable())


def point(system: SystemFacts, *disks: PointDisk, groups: tuple[VolumeGroup, ...] = ()) -> Point:
    body = PointBody(disks=disks, consistency="offline", firmware="bios", system=system, volume_groups=groups)
    return Point(id="p", header=PointHeader(version=1, repository="r", host="h", created=0), body=body)


def test_the_disk_of_boot_is_the_one_to_start_from() -> None:
    pv = Partition(number=1, start=MIB, size=GIB, content=Content(kind="LVM2_member", uuid="PV"))
    disks = [
        PointDisk(name=name, size=SIZE, sector_size=512, chunk_size=1, root="", table=table)
        for name, table in (("a", FULL), ("b", gpt(pv)), ("c", gpt(part(1, MIB, MIB, "", BIOS_BOOT_TYPE))))
    ]
    names = ["a", "b", "c"]
    groups = (VolumeGroup(name="vg", pv_uuids=("PV",)),)
    assert boot_disk(point(SystemFacts(root="vg/root", boot="a:1"), *disks), names) == "a"
    assert boot_disk(point(SystemFacts(root="vg/root"), *disks, groups=groups), names) == "b"
    assert boot_disk(point(SystemFacts(), *disks), names) == "c"
    assert boot_disk(point(SystemFacts(boot="a:1"), *disks), ["b"]) == "b"
    assert boot_disk(point(SystemFacts(), *disks), []) == ""


@given(st.data())
def test_nothing_is_ever_overlapped(data: st.DataObject) -> None:
    label: TableKind = data.draw(st.sampled_from(["gpt", "mbr"]))
    sector = data.draw(st.sampled_from([512, 4096]))
    edge, parts = MIB, []
    for number in range(1, data.draw(st.integers(1, 5)) + 1):
        start = edge + data.draw(st.integers(0, 3000)) * MIB // 4
        size = data.draw(st.integers(1, 3000)) * MIB
        content = data.draw(st.sampled_from(["ext4", "swap"]))
        parts.append(part(number, start, size, content))
        edge = start + size
    size = edge + data.draw(st.integers(1, 4000)) * MIB
    table = PartitionTable(kind=label, partitions=tuple(parts))
    kinds: tuple[Kind, ...] = ("esp", "bios_grub")
    for wanted in kinds:
        made = place("d", table, size, sector, wanted, use_swap=data.draw(st.booleans()))
        if made is None:
            continue
        ends = {cut.number: cut.start + cut.size for cut in made.shortened}
        for other in parts:
            end = ends.get(other.number, other.start + other.size)
            assert made.start + made.size <= other.start or made.start >= end
        assert all(cut.size >= SWAP_LEAST for cut in made.shortened)
        assert made.start >= 2 * sector and made.start + made.size <= size
        assert made.size >= (BIOS_BOOT_LEAST if wanted == "bios_grub" else least_esp(sector))
        assert made.start % sector == 0 and made.size % sector == 0
        assert made.number not in {p.number for p in parts}
