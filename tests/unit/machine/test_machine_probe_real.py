"""The probe with the real programs on real bytes: a disk image with a table, filesystems and a PV signature."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from recovery.commands import run
from recovery.errors import UsageError
from recovery.machine.file_target import file_target, is_file_target
from recovery.machine.probe import probe_machine
from recovery.machine.probe_disks import probe_table

MIB = 1 << 20


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.raw"
    with path.open("wb") as file:
        file.truncate(64 * MIB)
    script = b"label: gpt\nstart=2048, size=16384, type=U, name=ESP\nstart=20480, size=65536, type=L, name=root\n"
    run(["sfdisk", "-q", path], input=script)
    run(["mkfs.ext4", "-q", "-L", "my root", "-E", f"offset={20480 * 512}", path, "32M"])
    run(["mkfs.vfat", "-n", "EFI", "--offset", "2048", path, "8192"], check=False)
    return path


def test_contents_are_found_inside_a_plain_file(image: Path) -> None:
    table = probe_table(str(image))
    assert table.kind == "gpt"
    assert [(p.number, p.start, p.size, p.name) for p in table.partitions] == [
        (1, MIB, 8 * MIB, "ESP"),
        (2, 10 * MIB, 32 * MIB, "root"),
    ]
    assert table.partitions[0].type == "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
    assert (table.partitions[1].content.kind, table.partitions[1].content.label) == ("ext4", "my root")
    assert len(table.partitions[1].content.uuid) == 36


def test_a_file_as_target(image: Path, tmp_path: Path) -> None:
    fresh = file_target(str(tmp_path / "new.raw"), size=5 * MIB, sector_size=4096)
    assert (fresh.bus, fresh.blank, fresh.size, fresh.sector_size) == ("file", True, 5 * MIB, 4096)
    assert file_target(f"path:{image}", size=5 * MIB, sector_size=512).table.kind == "gpt"
    assert is_file_target(str(image))
    assert not is_file_target("/dev/sda")
    assert not is_file_target("path:/dev/sda")
    assert not is_file_target("wwn:5002538f4130a1b2")
    with pytest.raises(UsageError, match="does not exist"):
        file_target(str(tmp_path / "no" / "new.raw"), size=1, sector_size=512)
    with pytest.raises(UsageError, match="neither a regular file"):
        file_target(str(tmp_path), size=1, sector_size=512)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root and loop devices")
def test_a_loop_device_with_content(image: Path) -> None:
    loop = run(["losetup", "--find", "--show", image]).stdout.strip()
    try:
        machine = probe_machine(loops=True)
        disk = machine.disk(loop)
        assert disk is not None
        assert (disk.bus, disk.size, disk.id, disk.busy) == ("loop", 64 * MIB, f"path:{loop}", ())
        assert disk.table.partitions[1].content.label == "my root"
        assert all(d.bus != "loop" for d in probe_machine().disks)
    finally:
        run(["losetup", "-d", loop])


def test_this_machine_is_seen_as_it_is() -> None:
    machine = probe_machine()
    assert machine.memory > 0
    assert machine.cpus > 0
    assert len({disk.id for disk in machine.disks}) == len(machine.disks)
    mounted = {line.split()[0] for line in Path("/proc/mounts").read_text().splitlines()}
    for disk in machine.disks:
        assert disk.busy or disk.path not in mounted
