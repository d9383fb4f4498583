from __future__ import annotations

import msgspec

from recovery.machine.model import Disk, Machine
from recovery.plan.suggest import suggest
from recovery.units import GIB, TIB
from tests.unit.plan.hosts import disk, point, recorded


def targets(machine: Machine, *disks: object) -> list[str]:
    return [s.target for s in suggest(point(*disks), machine)]  # type: ignore[arg-type]


def test_the_very_disk_comes_first_even_with_data_on_it() -> None:
    small = recorded("small_server")
    assert targets(small, disk(wwn="0x5002538F4130A1B2")) == ["wwn:5002538f4130a1b2"]
    assert targets(small, disk(wwn="naa.5002538f4130a1c7")) == ["wwn:5002538f4130a1c7"]
    assert targets(small, disk(serial="S45PNA0M501234", model="SAMSUNG MZ7LH480HAHQ-00005")) == [
        "wwn:5002538f4130a1b2"
    ]
    assert "very disk" in suggest(point(disk(serial="S45PNA0M501234")), small)[0].reason


def test_a_blank_disk_is_preferred_to_one_with_data() -> None:
    assert targets(recorded("small_server"), disk()) == ["wwn:5002538f4130a1c7"]
    assert targets(recorded("nvme_secure_boot"), disk()) == ["wwn:0025385b71b01234"]


def test_same_size_and_connection() -> None:
    (suggestion,) = suggest(point(disk(size=480103981056)), recorded("small_server"))
    assert suggestion.target == "wwn:5002538f4130a1c7"
    assert "same size and connection" in suggestion.reason
    assert "blank" in suggestion.reason


def test_two_disks_get_two_targets() -> None:
    found = targets(recorded("small_server"), disk(), disk("disk2"))
    assert sorted(found) == ["wwn:5002538f4130a1b2", "wwn:5002538f4130a1c7"]


def test_the_large_source_does_not_lose_its_only_fit() -> None:
    blanks = tuple(Disk(id=f"path:/dev/vd{c}", path=f"/dev/vd{c}", size=s) for c, s in (("a", TIB), ("b", 2 * TIB)))
    machine = Machine(disks=blanks)
    assert targets(machine, disk(size=GIB), disk("disk2", size=2 * TIB)) == ["path:/dev/vda", "path:/dev/vdb"]
    assert targets(machine, disk(size=TIB), disk("disk2", size=2 * TIB)) == ["path:/dev/vda", "path:/dev/vdb"]


def test_nothing_fits_and_why() -> None:
    cases = {
        "No disk of this machine has": suggest(point(disk(size=9 * TIB)), recorded("small_server")),
        "has sectors of 512": suggest(point(disk()), recorded("fourkn")),
        "in use, removable": suggest(
            point(disk()), msgspec.structs.replace(recorded("full_of_data"), disks=recorded("full_of_data").disks[2:])
        ),
    }
    for words, (suggestion,) in cases.items():
        assert suggestion.target == ""
        assert words in suggestion.reason
