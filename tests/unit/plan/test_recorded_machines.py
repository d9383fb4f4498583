"""On each recorded machine the suggestion, the rules and the refusals come out as they should."""

from __future__ import annotations

import msgspec
import pytest

from recovery.layout import MdArray, SystemFacts
from recovery.machine.model import Disk, Machine
from recovery.plan.build import build_plan
from recovery.plan.losses import losses
from recovery.plan.rules import assign
from recovery.plan.suggest import may_be_suggested, suggest
from recovery.units import GIB, TIB
from tests.unit.plan.hosts import all_machines, choices, codes, disk, point, recorded

MACHINES = sorted(all_machines())
#: machine -> (size of the source, its device then, where it is suggested to go or why nowhere)
SUGGESTED = {
    "dell_perc": (400 * GIB, "/dev/sda", "/dev/sda"),  # the smaller of two with data
    "hp_smart_array": (480070426624, "/dev/sda", "/dev/sda"),
    "nvme_only": (3840755982336, "/dev/nvme0n1", "/dev/nvme2n1"),  # alike and blank: not the array's members
    "multipath_sas": (2 * TIB, "/dev/sda", "/dev/sdd"),  # the first path of the blank volume, never its second
    "usb_only": (100 * GIB, "/dev/sda", "in use, removable"),
    "md_members": (2000398934016, "/dev/sda", "/dev/sdc"),  # the new blank one
    "lvm_on_three_disks": (960197124096, "/dev/sda", "/dev/sda"),
    "laptop_windows": (500 * GIB, "/dev/nvme0n1", "No disk of this machine has"),
    "jbod_24_bays": (4000787030016, "/dev/sdc", "/dev/sdy"),  # bays 23 and 24 are blank
    "vmware_pvscsi": (40 * GIB, "/dev/sda", "/dev/sda"),
    "old_bios_mbr": (100 * GIB, "/dev/sda", "/dev/sda"),
    "proxmox_zfs": (960197124096, "/dev/nvme0n1", "/dev/nvme0n1"),
    "sd_module_no_driver": (20 * GIB, "/dev/sda", "in use, removable"),
    "fourkn": (100 * GIB, "/dev/sda", "No disk of 100 GiB or more has sectors of 512"),
    "full_of_data": (100 * GIB, "/dev/sda", "/dev/sda"),
    "nvme_secure_boot": (100 * GIB, "/dev/sda", "/dev/nvme0n1"),
    "small_server": (100 * GIB, "/dev/sda", "/dev/sdb"),
    "tiny_vm": (10 * GIB, "/dev/vda", "/dev/vda"),
}


def test_there_are_many_of_different_kinds() -> None:
    assert set(SUGGESTED) == set(MACHINES)
    assert len(MACHINES) >= 12
    every = [d for name in MACHINES for d in recorded(name).disks]
    assert {d.bus for d in every} >= {"nvme", "sata", "scsi", "usb", "virtio"}
    assert {d.table.kind for d in every} == {"gpt", "mbr", "none"}
    assert {recorded(name).firmware for name in MACHINES} == {"bios", "uefi"}


@pytest.mark.parametrize("name", MACHINES)
def test_the_suggestion(name: str) -> None:
    size, device, expected = SUGGESTED[name]
    machine = recorded(name)
    (found,) = suggest(point(disk(size=size, device=device)), machine)
    if expected.startswith("/dev/"):
        target = machine.disk(found.target)
        assert target is not None, found
        assert target.path == expected, found
    else:
        assert found.target == ""
        assert expected in found.reason


def unsafe(target: Disk) -> bool:
    return bool(target.busy or target.boot_medium or target.repository or target.read_only)


@pytest.mark.parametrize("name", MACHINES)
def test_no_unsafe_disk_is_suggested_or_allowed(name: str) -> None:
    machine = recorded(name)
    for target in machine.disks:
        source = disk(size=min(target.size, 10 * GIB), sector_size=target.sector_size)
        plan = build_plan(point(source), machine, choices(disk1=target.id))
        if unsafe(target):
            assert not may_be_suggested(target)
            assert not plan.allowed, target.path
        assert target.blank or losses(target, machine), f"{target.path}: what would be lost is not said"
        assert target.blank or "target-has-data" in codes(plan)
    targets = {s.target for s in suggest(point(disk(size=GIB), disk("disk2", size=GIB)), machine)}
    assert not any(unsafe(d) or d.removable for d in machine.disks if d.id in targets)


@pytest.mark.parametrize("name", MACHINES)
def test_ids_name_one_disk_each(name: str) -> None:
    machine = recorded(name)
    assert len({d.id for d in machine.disks}) == len(machine.disks)
    assert all(machine.disk(d.id) == d for d in machine.disks)


@pytest.mark.parametrize("name", MACHINES)
def test_the_medium_is_never_met_by_a_rule(name: str) -> None:
    machine = recorded(name)
    for medium in (d for d in machine.disks if d.boot_medium):
        rules = [f"size:{medium.size}"] + ([f"serial:{medium.serial}"] if medium.serial else [])
        for rule in rules:
            found, doubts = assign({"disk1": rule}, (), point(), machine)
            assert not found
            assert [doubt.code for doubt in doubts] == ["rule-matches-none"]


def doubts(machine: Machine, rule: str) -> list[str]:
    return [doubt.code for doubt in assign({"disk1": rule}, (), point(disk(size=GIB)), machine)[1]]


def test_a_serial_number_that_all_volumes_of_a_controller_share_names_none() -> None:
    machine = recorded("hp_smart_array")
    assert doubts(machine, "serial:PEYHB0DRHAZ0CT") == ["rule-matches-several"]
    assert doubts(machine, "wwn:600508b1001c4f6a8b01c2d3e4f5a607") == []


def test_what_has_no_name_must_be_unlike_the_others() -> None:
    machine = recorded("vmware_pvscsi")
    assert doubts(machine, "size:42949672960") == ["rule-matches-several"]
    assert doubts(machine, "size:100GiB") == []


def test_bays_are_told_apart_by_serial_number_only() -> None:
    machine = recorded("jbod_24_bays")
    assert doubts(machine, "model:ST4000NM0295") == ["rule-matches-several"]
    assert doubts(machine, "model:ST4000NM0295,blank") == ["rule-matches-several"]
    assert doubts(machine, "serial:ZC123QXX0000J823") == []


def test_two_paths_are_one_disk() -> None:
    machine = recorded("multipath_sas")
    assert doubts(machine, "wwn:600a098000a1b2c3000004d35f6e7c01") == ["rule-matches-several"]
    both = build_plan(
        point(disk(size=GIB), disk("disk2", size=GIB)), machine, choices(disk1="/dev/sdc", disk2="/dev/sde")
    )
    assert "same-target-twice" in codes(both, "error")
    two = suggest(point(*(disk(f"disk{n}", size=2 * TIB) for n in (1, 2))), machine)
    assert {s.target for s in two} == {"path:/dev/sdc", "path:/dev/sdd"}  # two volumes, not two paths of one


def test_an_enclosure_with_the_repository_is_not_taken_for_the_other() -> None:
    machine = recorded("usb_only")
    assert doubts(machine, "serial:123456789012") == ["rule-matches-several"]
    plan = build_plan(point(disk(size=GIB)), machine, choices(disk1="/dev/sdb"))
    assert "target-holds-repository" in codes(plan, "error")
    assert build_plan(point(disk(size=GIB)), machine, choices(disk1="/dev/sda")).allowed


def test_a_volume_group_across_disks_is_said_to_be_lost_as_a_whole() -> None:
    machine = recorded("lvm_on_three_disks")
    second = machine.disk("/dev/sdb")
    assert second is not None
    assert "2 other physical volumes, useless" in " ".join(losses(second, machine))


def test_a_legacy_host_on_a_machine_with_uefi_and_the_other_way_round() -> None:
    legacy = point(disk(size=GIB), firmware="bios", system=SystemFacts(root="disk1:2"))
    assert "firmware-converted" in codes(
        build_plan(legacy, recorded("nvme_only"), choices(disk1="/dev/nvme2n1")), "warning"
    )
    assert "firmware-converted" in codes(
        build_plan(point(disk(size=GIB)), recorded("old_bios_mbr"), choices(disk1="/dev/sda"))
    )


def test_a_4kn_disk_takes_only_what_was_on_one() -> None:
    machine = recorded("fourkn")
    source = disk(size=4000787030016, sector_size=4096)
    assert [s.target for s in suggest(point(source), machine)] == ["wwn:5000c500a1b2c310"]
    plan = build_plan(point(disk(size=GIB)), machine, choices(disk1="/dev/sda"))
    assert "sector-size-differs" in codes(plan, "error")


def test_the_very_disks_come_back_on_a_mirror() -> None:
    machine = recorded("proxmox_zfs")
    sources = [disk(f"disk{n}", size=d.size, wwn=d.wwn) for n, d in enumerate(machine.disks[:2], 1)]
    assert [s.target for s in suggest(point(*reversed(sources)), machine)] == [d.id for d in machine.disks[1::-1]]
    found, doubtful = assign("same", (), point(*sources), machine)
    assert not doubtful
    assert list(found.values()) == [d.id for d in machine.disks[:2]]


def test_what_does_not_work_is_named() -> None:
    machine = recorded("sd_module_no_driver")
    (controller,) = machine.driverless
    assert (controller.purpose, controller.modules) == ("storage", ("megaraid_sas",))
    (wifi,) = recorded("laptop_windows").driverless
    assert "no driver" in wifi.reason
    (card,) = recorded("hp_smart_array").driverless
    assert card.firmware


def test_arrays_of_the_dead_host_are_known() -> None:
    arrays = recorded("md_members").md_arrays
    assert all(isinstance(array, MdArray) and array.devices == 2 for array in arrays)


@pytest.mark.parametrize("name", MACHINES)
def test_a_record_survives_being_written_and_read(name: str) -> None:
    machine = recorded(name)
    assert msgspec.json.decode(msgspec.json.encode(machine), type=Machine) == machine
