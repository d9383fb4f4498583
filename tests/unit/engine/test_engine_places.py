"""Places of a machine: those of recorded ones, directories, and what leads out of a filesystem."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from recovery.engine.places import directory, mount_of, recorded_places, taken, within
from recovery.errors import NotFoundError, UsageError
from recovery.machine.place import WRITABLE
from tests.unit.plan.hosts import all_machines


@pytest.mark.parametrize("name", sorted(all_machines()))
def test_the_places_of_a_recorded_machine(name: str) -> None:
    machine = all_machines()[name]
    places = recorded_places(machine)
    assert len({place.device for place in places}) == len(places)
    for place in places:
        disk = machine.disk(place.disk)
        assert disk is not None
        assert place.device.startswith(disk.path)
        usable = place.kind in WRITABLE and not (disk.boot_medium or disk.repository or disk.read_only)
        assert usable == (not place.unavailable), place
        assert place.free is None or 0 < place.free <= place.size


def test_some_recorded_machine_has_each_kind_of_place() -> None:
    found = [place for machine in all_machines().values() for place in recorded_places(machine)]
    assert any(place.unavailable for place in found)
    assert any(not place.unavailable for place in found)


def test_a_directory_is_there_already(tmp_path: Path) -> None:
    place = directory(str(tmp_path))
    assert (place.path, place.device, place.unavailable) == (str(tmp_path), "", "")
    assert place.free is not None
    assert place.name == str(tmp_path)
    with pytest.raises(UsageError, match="whole path"):
        directory("vms")
    with pytest.raises(NotFoundError, match="is not there"):
        directory(str(tmp_path / "vms"))
    (tmp_path / "backup/packs").mkdir(parents=True)
    (tmp_path / "backup/repo.json").write_text("{}")
    assert "repository" in directory(str(tmp_path / "backup/packs")).unavailable
    if os.path.ismount("/proc"):
        found = mount_of(Path("/proc/1"))
        assert found is not None
        assert (found.kind, found.point) == ("proc", "/proc")


def test_a_folder_stays_within_its_filesystem(tmp_path: Path) -> None:
    top = tmp_path / "top"
    (top / "a").mkdir(parents=True)
    assert within(top, "/a//b/./c") == top / "a/b/c"
    assert within(top, "") == top
    (top / "out").symlink_to(tmp_path)
    (top / "in").symlink_to("a")
    assert within(top, "in/x") == top / "in/x"
    (top / "round").symlink_to("round")
    (top / "lost").symlink_to("nowhere")
    for folder in ("..", "a/../..", "out", "out/x", "round", "round/x", "lost", "lost/x/y"):
        with pytest.raises(UsageError, match="leads out"):
            within(top, folder)
    (top / "dangling").symlink_to("nowhere")
    assert taken(top, ["a", "dangling", "b"]) == {"a", "dangling"}
    assert taken(top / "missing", ["a"]) == set()
