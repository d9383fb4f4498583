"""What is decided about Windows without a disk: logs, hibernation, drivers, drive letters, moved volumes."""

from __future__ import annotations

import struct

import pytest

from recovery.adapt.ntfs import has_room, moved_boot
from recovery.adapt.windows_letters import mbr_entry, renewed
from recovery.errors import IntegrityError
from recovery.units import GIB, MIB
from recovery.windows.drivers import missing_for, services_for
from recovery.windows.ntfs import Log, NtfsFacts, hibernated, log_state, read_facts


def page(lsn: int, client: int, flags: int = 0, major: int = 1) -> bytes:
    found = bytearray(4096)
    struct.pack_into("<4sHHQIIHhh", found, 0, b"RSTR", 0x1E, 9, 0, 4096, 4096, 0x30, 1, major)
    struct.pack_into("<QHHHH", found, 0x30, lsn, 1, 0xFFFF, client, flags)
    return bytes(found)


@pytest.mark.parametrize(
    ("pages", "state"),
    [
        (b"\xff" * 8192, "clean"),  # emptied by ntfs-3g
        (page(5, 0xFFFF) * 2, "clean"),
        (page(5, 0, flags=2) * 2, "clean"),
        (page(5, 0) * 2, "unclean"),
        (page(9, 0) + page(5, 0xFFFF), "unclean"),  # the newer one counts
        (page(5, 0) + page(9, 0xFFFF), "clean"),
        (page(5, 0xFFFF, major=2) * 2, "cached"),
        (b"\x00" * 8192, "unclean"),
    ],
)
def test_the_newest_restart_page_says_how_a_log_was_left(pages: bytes, state: Log) -> None:
    assert log_state(pages) == state


def test_a_hibernation_file_of_zeros_holds_no_session() -> None:
    assert not hibernated(bytes(4096))
    assert hibernated(b"hibr".ljust(4096, b"\0"))
    assert hibernated(b"HIBR".ljust(4096, b"\0"))
    assert hibernated(bytes(10))  # too short to be one: ntfs-3g does not trust it either


def test_what_is_no_ntfs_is_told() -> None:
    with pytest.raises(IntegrityError, match="no NTFS"):
        read_facts(lambda offset, length: bytes(length))
    boot = bytearray(512)
    boot[3:11] = b"NTFS    "
    with pytest.raises(IntegrityError, match="damaged"):
        read_facts(lambda offset, length: bytes(boot[offset : offset + length]))


def test_the_driver_that_a_disk_needs_is_known_by_its_controllers_module() -> None:
    assert services_for("scsi", ("sd_mod", "vmw_pvscsi")) == ("pvscsi",)
    assert services_for("sata", ("sd_mod", "ahci")) == ("storahci", "msahci")
    assert services_for("virtio", ()) == ("viostor",)
    assert services_for("scsi", ("sd_mod", "no_such")) == ()
    assert missing_for("virtio", (), ("storahci", "StorNVMe")) == ("viostor",)
    assert missing_for("nvme", ("nvme",), ("storahci", "StorNVMe")) == ()
    assert missing_for("scsi", (), ()) == ()


OLD = {"C:": mbr_entry("1234abcd", 25 * MIB), "D:": mbr_entry("1234abcd", 200 * MIB), "E:": mbr_entry("99", 200 * MIB)}


def test_letters_of_moved_partitions_are_renewed_once() -> None:
    moved = {OLD["C:"]: OLD["D:"], OLD["D:"]: mbr_entry("1234abcd", 400 * MIB)}  # C: now lies where D: lay
    new = renewed(OLD, moved)
    assert new == {"C:": OLD["D:"], "D:": mbr_entry("1234abcd", 400 * MIB)}
    assert renewed({**OLD, **new}, moved) == {}
    assert renewed({"C:": b"DMIO:ID:" + bytes(16)}, moved) == {}
    assert renewed(OLD, {}) == {}


def test_a_moved_volume_says_where_it_begins_if_it_ever_did() -> None:
    boot = bytearray(512)
    boot[3:11] = b"NTFS    "
    struct.pack_into("<H", boot, 0x0B, 512)
    struct.pack_into("<I", boot, 0x1C, 2048)
    new = moved_boot(bytes(boot), MIB, 5 * MIB)
    assert new is not None and struct.unpack_from("<I", new, 0x1C) == (10240,)
    assert new[:0x1C] + new[0x20:] == bytes(boot[:0x1C] + boot[0x20:])
    assert moved_boot(bytes(boot), 2 * MIB, 5 * MIB) is None  # made on another disk, and never true
    assert moved_boot(bytes(512), MIB, 5 * MIB) is None


def test_a_volume_is_full_when_only_its_last_sector_is_left() -> None:
    facts = NtfsFacts(sector=512, cluster=4096, size=GIB - 512, hidden=0, dirty=True, log="clean")
    assert not has_room(facts, GIB) and has_room(facts, GIB + MIB)
    assert facts.unclean == "a check of it is asked for"
