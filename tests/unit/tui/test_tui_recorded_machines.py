"""Every disk and card of every recorded machine is drawn: in width, with drawable characters, with what lies on it."""

from __future__ import annotations

import pytest

from recovery.tui.describe import disk_contents, disk_row, nic_row, unavailable
from recovery.tui.glyphs import DRAWABLE
from recovery.tui.picture import after_on, draw, labelled, now_on
from recovery.units import GIB
from tests.unit.plan.hosts import all_machines, disk, point, recorded

MACHINES = sorted(all_machines())


@pytest.mark.parametrize("width", [73, 153])
@pytest.mark.parametrize("name", MACHINES)
def test_pictures_of_its_disks(name: str, width: int) -> None:
    machine = recorded(name)
    for target in machine.disks:
        found = now_on(target, machine)
        lines = draw(found, width)
        assert {len(line) for line in lines} == {width}
        text = "\n".join(labelled("now", found, width))
        assert set(text) - {"\n"} <= DRAWABLE
        assert target.blank == ("blank" in text)
        sizes = sum(part.size for part in found)
        assert sizes <= target.size
        assert target.size - sizes <= 8 * len(found) * (1 << 20) + (16 << 20), "a part of the disk is in no box"
        if target.size < GIB:
            continue  # no host fits
        source = disk(size=min(target.size, 10 * GIB), sector_size=target.sector_size)
        after = draw(after_on(source, point(source), target, grow=True), width)
        assert {len(line) for line in after} == {width}


@pytest.mark.parametrize("name", MACHINES)
def test_rows_and_sentences(name: str) -> None:
    machine = recorded(name)
    for target in machine.disks:
        assert len(disk_row(target)) <= 78
        assert set(disk_row(target)) <= DRAWABLE
        assert bool(unavailable(target)) == bool(
            target.busy or target.boot_medium or target.repository or target.read_only
        )
        assert disk_contents(target)
    for nic in machine.nics:
        assert nic.name[:12] in nic_row(nic)
        assert set(nic_row(nic)) <= DRAWABLE


def test_what_a_picture_says() -> None:
    windows = recorded("laptop_windows")
    text = "\n".join(labelled("now", now_on(windows.disks[0], windows), 73))
    assert "EFI" in text
    assert "BitLocker" in text
    old = recorded("old_bios_mbr")
    text = "\n".join(labelled("now", now_on(old.disks[0], old), 73))
    assert "reiserfs 'vmware'" in text
    assert "extended" not in text
    perc = recorded("dell_perc")
    assert "LVM vg_system" in "\n".join(draw(now_on(perc.disks[0], perc), 73))
    assert "xfs 'vmstore' 36.4 TiB" in "\n".join(draw(now_on(perc.disks[1], perc), 73))
