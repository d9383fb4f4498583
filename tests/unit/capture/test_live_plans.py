"""Which filesystems are frozen and in which order; the last word on a chunk; runs of chunks."""

from __future__ import annotations

from pathlib import Path

from recovery.capture.busy import Mount, parse_mountinfo
from recovery.capture.diskmap import DiskMap
from recovery.capture.live.chunks import runs
from recovery.capture.live.filesystems import mount_holding, on_devices
from recovery.capture.sources import Source
from recovery.format.chunkmap import Kind, MapBuilder, MapEntry
from recovery.format.point import LiveFigures, PointBody
from recovery.repository.protocols import ChunkLocation

MOUNTS = """\
22 1 8:2 / / rw,relatime shared:1 - ext4 /dev/sda2 rw
23 22 8:1 / /boot/efi rw - vfat /dev/sda1 rw
24 22 253:0 / /var/lib/libvirt/images rw - xfs /dev/mapper/vg-images rw
25 22 0:45 /@home /home rw - btrfs /dev/sda4 rw,subvol=/@home
26 22 0:45 /@srv /srv rw - btrfs /dev/sda4 rw,subvol=/@srv
27 22 8:5 / /mnt/ro ro - ext4 /dev/sda5 ro
28 22 8:17 / /backup rw - ext4 /dev/sdb1 rw
29 22 8:2 /srv /bind rw - ext4 /dev/sda2 rw
"""
SDA = [("8:0", "sda"), ("8:1", "sda1"), ("8:2", "sda2"), ("253:0", "dm-0"), ("8:4", "sda4"), ("8:5", "sda5")]


def mounts() -> list[Mount]:
    return parse_mountinfo(MOUNTS)


def test_each_filesystem_once_the_root_last_and_nothing_else() -> None:
    found = on_devices(mounts(), SDA)
    assert [each.mount for each in found][-1] == "/"
    assert {each.mount for each in found} == {"/", "/boot/efi", "/var/lib/libvirt/images", "/home"}
    assert {each.kind for each in found} == {"ext4", "vfat", "xfs", "btrfs"}
    assert found[0].mount == "/var/lib/libvirt/images"


def test_where_a_file_lies() -> None:
    holding = [mount_holding(path, mounts()) for path in ("/var/log/x", "/backup/repo", "/backups", "/home/a/b")]
    assert [mount.device if mount else "" for mount in holding] == ["8:2", "8:17", "8:2", "0:45"]
    assert mount_holding("/x", []) is None


def test_runs_of_chunks() -> None:
    places = [("a", 0), ("a", 1), ("a", 3), ("b", 4), ("b", 5)]
    assert list(runs(places)) == [("a", 0, 2), ("a", 3, 1), ("b", 4, 2)]
    assert list(runs([])) == []


def test_the_last_word_on_a_chunk_counts() -> None:
    """A chunk is set in several passes; what it was in the base, and in passes before, leaves no trace."""
    size = 1 << 20
    first, second = (bytes([number]) * 32 for number in (1, 2))
    place = {id: ChunkLocation(bytes([9 + id[0]]) * 32, 8, 100) for id in (first, second)}
    builder = MapBuilder(4 * size, size)
    builder.set_blob(0, first, place[first].pack, 8, 100)
    base = builder.finish()
    disk = DiskMap(Source("disk1", Path("x"), Path("x"), 4 * size, 512, True), size, base, "base")
    disk.set_stored(0, second, place[second])
    assert disk.changed == size
    disk.set_stored(0, first, place[first])
    disk.set_stored(1, second, place[second])
    disk.set_zero(1)
    disk.set_zero(2)
    disk.set_stored(2, first, place[first], added=True)
    made = disk.finish()
    entries = [made.get(index) for index in range(4)]
    assert isinstance(entries[0], MapEntry) and entries[0].id == first
    assert entries[1:2] == [Kind.ZERO] and entries[3] == Kind.UNALLOCATED
    assert isinstance(entries[2], MapEntry) and entries[2].id == first
    assert (disk.changed, disk.stored) == (size, 100)


def test_points_without_live_figures_read_as_before() -> None:
    import msgspec

    old = msgspec.json.encode({"disks": [], "consistency": "offline", "firmware": "bios"})
    assert msgspec.json.decode(old, type=PointBody).live is None
    live = LiveFigures(moment=1.5, tracker="ebpf", freeze_milliseconds=12.5)
    body = PointBody(disks=(), consistency="filesystem", firmware="uefi", live=live)
    assert msgspec.json.decode(msgspec.json.encode(body), type=PointBody) == body
