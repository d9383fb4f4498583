"""Which drives a medium may be written to, decided on recorded machines."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from recovery.errors import NotFoundError, UnsafeTargetError
from recovery.layout import Content
from recovery.machine.model import Disk, Machine, load_machine
from recovery.machine.probe_busy import MEDIUM_REASONS
from recovery.medium.manifest import PIECE, cut
from recovery.medium.write import check_same, find_drive, problems, refuse, runs_from_medium
from recovery.units import GIB, MIB

SIZE = 220 * MIB
STICK = Disk(
    id="serial:Ultra:4C53", path="/dev/sdz", size=16 * GIB, bus="usb", model="Ultra", serial="4C53", removable=True
)


def codes(drive: Disk, machine: Machine, *, serial: str = "", on_medium: bool = False) -> list[str]:
    found = problems(drive, machine, SIZE, serial=serial, on_medium=on_medium)
    return [problem.code for problem in found if problem.severity == "error"]


def test_an_empty_stick_is_taken() -> None:
    assert codes(STICK, Machine(disks=(STICK,))) == []


@pytest.mark.parametrize("file", sorted((Path(__file__).parents[2] / "machines").glob("*.json")), ids=lambda f: f.stem)
def test_no_disk_of_a_recorded_machine_is_taken_unless_it_is_removable_or_named(file: Path) -> None:
    machine = load_machine(file)
    for disk in machine.disks:
        if disk.removable or disk.bus in ("usb", "mmc"):
            continue
        assert "target-not-removable" in codes(disk, machine)
        assert "target-not-removable" in codes(disk, machine, serial="another")
        assert "target-not-removable" not in codes(disk, machine, serial=disk.confirmation)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"busy": ("/dev/sdz1 is mounted at /mnt.",)}, "target-busy"),
        ({"repository": "abcd"}, "target-holds-repository"),
        ({"read_only": True}, "target-read-only"),
        ({"size": 100 * MIB}, "target-too-small"),
        ({"sector_size": 4096}, "sector-size-differs"),
    ],
)
def test_a_stick_that_must_not_be_written(change: dict[str, object], code: str) -> None:
    stick = msgspec.structs.replace(STICK, **change)
    assert codes(stick, Machine(disks=(stick,))) == [code]
    built_in = msgspec.structs.replace(stick, removable=False, bus="sata")
    hints = [problem.todo for problem in problems(built_in, Machine(disks=(built_in,)), SIZE, on_medium=False)]
    assert not any("--serial" in hint for hint in hints), "no word helps here"
    with pytest.raises(UnsafeTargetError, match="Nothing was written"):
        refuse(problems(stick, Machine(disks=(stick,)), SIZE, on_medium=False))


def test_an_older_medium_is_overwritten_but_not_the_one_that_runs() -> None:
    old = msgspec.structs.replace(
        STICK, boot_medium=True, busy=(MEDIUM_REASONS[0],), content=Content(kind="iso9660", label="REKINDLE_ISO")
    )
    assert codes(old, Machine(disks=(old,)), on_medium=True) == ["target-is-boot-medium"]
    assert codes(old, Machine(disks=(old,))) == []
    mounted = msgspec.structs.replace(old, busy=(MEDIUM_REASONS[0], "/dev/sdz is mounted at /media/x."))
    assert codes(mounted, Machine(disks=(mounted,))) == ["target-busy"]


def test_a_live_system_counts_as_running_from_its_medium(tmp_path: Path) -> None:
    (tmp_path / "mounts").write_text("/dev/sda1 / ext4 rw 0 0\n")
    assert not runs_from_medium(tmp_path, tmp_path)
    (tmp_path / "mounts").write_text("/dev/sdb /run/live/medium iso9660 ro 0 0\n")
    assert runs_from_medium(tmp_path, tmp_path)
    (tmp_path / "mounts").write_text("")
    (tmp_path / "etc/rekindle").mkdir(parents=True)
    (tmp_path / "etc/rekindle/medium.json").write_text("{}")
    assert runs_from_medium(tmp_path, tmp_path), "also when it was copied to memory"


def test_a_drive_is_found_by_path_id_and_serial_number() -> None:
    machine = Machine(disks=(STICK,))
    for name in ("/dev/sdz", "serial:Ultra:4C53", "4C53"):
        assert find_drive(machine, name) == STICK
    with pytest.raises(NotFoundError):
        find_drive(machine, "/dev/sdy")
    with pytest.raises(UnsafeTargetError, match="a partition"):
        find_drive(machine, "/dev/sdz1")
    twin = msgspec.structs.replace(STICK, path="/dev/sdy", id="path:/dev/sdy")
    with pytest.raises(UnsafeTargetError, match="2 drives"):
        find_drive(Machine(disks=(STICK, twin)), "4C53")


def test_a_stick_that_was_changed_after_the_word_is_refused() -> None:
    check_same(STICK, Machine(disks=(STICK,)))
    for other in (
        (),
        (msgspec.structs.replace(STICK, size=8 * GIB),),
        (msgspec.structs.replace(STICK, content=Content(kind="vfat")),),
    ):
        with pytest.raises(UnsafeTargetError, match="Nothing was written"):
            check_same(STICK, Machine(disks=other))


def test_the_pieces_cover_everything_but_the_holes() -> None:
    known = [(40960, 10 * MIB, "/a"), (20 * MIB, 5, "/b"), (41 * MIB, 100, "/overlaps the end")]
    holes = [(33651, 512), (12 * MIB, 65536)]
    size = 41 * MIB + 100
    pieces = cut(known, holes, size)
    at = 0
    for offset, length, _ in sorted([*pieces, *((o, n, "") for o, n in holes)]):
        assert offset == at
        at += length
    assert at == size
    assert all(length <= PIECE for _, length, _ in pieces)
    assert pieces[0] == (0, 33651, "boot sector and partition table")
    assert {name for _, _, name in pieces} == {
        "boot sector and partition table", "directories", "/a", "/b", "/overlaps the end",
    }  # fmt: skip
