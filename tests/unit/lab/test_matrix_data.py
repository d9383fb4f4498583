"""The matrix's data: sources that fit on their disks, cells that exist in the lab, names that can be read back."""

from __future__ import annotations

import pytest

from recovery.units import MIB
from tests.e2e.matrix import catalogue, layout, network
from tests.e2e.matrix.__main__ import choose
from tests.e2e.matrix.model import Cell, Source, Target

SOURCES = list(catalogue.SOURCES.values())


@pytest.mark.parametrize("source", SOURCES, ids=lambda s: s.name)
def test_a_source_fits_on_its_disk(source: Source) -> None:
    placed = layout.place(source)
    for one, other in zip(placed, placed[1:], strict=False):
        if one.part.role == "extended":
            assert one.start < other.start < one.start + one.size
        else:
            assert one.start + one.size <= other.start
    assert max(one.start + one.size for one in placed) <= (source.disk - 1) * MIB
    assert all(one.start % MIB == 0 for one in placed), "aligned, for disks with larger sectors"
    for group in source.groups:
        room = next(one.size for one in placed if one.number == group.part)
        assert sum(group.volumes.values()) * MIB + 8 * MIB <= room


@pytest.mark.parametrize("source", SOURCES, ids=lambda s: s.name)
def test_a_source_is_consistent(source: Source) -> None:
    numbers = {str(one.number) for one in layout.place(source)}
    volumes = {f"{group.name}/{name}" for group in source.groups for name in group.volumes}
    assert {volume.at for volume in source.volumes} <= numbers | volumes
    assert volumes <= {volume.at for volume in source.volumes}
    roles = {str(one.number): one.part.role for one in layout.place(source)}
    assert ("uefi" in source.boots) == ("esp" in roles.values())
    assert ("bios" in source.boots) == (source.table == "mbr" or "bios" in roles.values())
    for volume in source.volumes:
        if volume.kind in ("vfat", "swap") and volume.at in roles:
            assert roles[volume.at] == {"vfat": "esp", "swap": "swap"}[volume.kind]
    fstab = layout.fstab(source)
    assert all(f" {point} " in fstab for point in source.points)
    assert fstab.count(" swap ") == source.swaps
    assert fstab.splitlines()[0].split()[1] == "/"


def test_partitions_behind_an_extended_one_are_logical() -> None:
    placed = layout.place(catalogue.SOURCES["d13-logical"])
    assert [one.number for one in placed] == [1, 2, 5, 6]


def test_each_style_of_name() -> None:
    logical, byid, bypath = (catalogue.SOURCES[name] for name in ("d13-logical", "d12-byid", "d12-bypath"))
    assert layout.root_words(logical) == "root=/dev/sda6"
    assert layout.device_name(byid, byid.root, "by-id") == "/dev/disk/by-id/ata-QEMU_HARDDISK_OLDDISK01-part3"
    assert layout.device_name(bypath, bypath.root, "by-path") == "/dev/disk/by-path/pci-0000:00:10.0-part1"
    assert layout.kernel_words(byid).startswith("resume=/dev/disk/by-id/ata-QEMU_HARDDISK_OLDDISK01-part1 console=")
    btrfs, lvm = catalogue.SOURCES["d13-btrfs"], catalogue.SOURCES["d13-lvm"]
    assert layout.root_words(btrfs) == "root=LABEL=system rootflags=subvol=@rootfs"
    assert layout.root_words(lvm) == "root=/dev/mapper/vg--host-root"
    assert layout.part_uuid(logical, 6) == f"{layout.mbr_id(logical)}-06"


def test_every_network_kind_has_an_address_to_check() -> None:
    for source in SOURCES:
        setup = network.setup(source.network)
        assert next(iter(setup.addresses.values())) == network.ADDRESS
        assert setup.service not in setup.idle


def test_the_cells_are_possible_and_their_names_can_be_read_back() -> None:
    cells = catalogue.cells()
    assert len(cells) >= 100
    for name, cell in cells.items():
        assert catalogue.parse_name(name) == cell
        target = cell.target
        assert not (target.firmware == "bios" and target.sector == "4Kn")
        assert not (target.firmware != "bios" and target.bus == "megasas")
    assert {cell.source for cell in cells.values()} == set(catalogue.SOURCES)


def test_names_of_no_cell() -> None:
    for name in ("", "d13-lvm", "nothing+bios.virtio.512.equal.e1000e.1024.q35.max.kept", "d13-lvm+bios.virtio"):
        assert catalogue.parse_name(name) is None
    # SeaBIOS reads no sectors of 4096 bytes.
    assert catalogue.parse_name("d13-lvm+bios.nvme.4Kn.equal.e1000e.1024.q35.max.kept") is None


def test_shards_are_all_cells_and_none_twice() -> None:
    parts = [choose(shard=f"{n}/7") for n in range(1, 8)]
    names = [cell.name for part in parts for cell in part]
    assert sorted(names) == sorted(catalogue.cells())


def test_a_cell_has_one_name() -> None:
    assert Cell("d13-lvm", Target()).name == "d13-lvm+bios.virtio.512.equal.virtio-net-pci.1024.q35.max.kept"
