"""Systems that were captured boot on machines they did not come from: some cells of the hardware matrix.

Minutes a cell without KVM, so a run takes two. Others are asked for by name: ``REKINDLE_MATRIX``
``=differing`` takes eight cells that differ most, ``all`` or a number that many of the selected ones, cell names
separated by commas those, and ``none`` takes none. They run by ``scripts/matrix``' own code and their results go into
its store; a result that is there already is no reason to leave a cell out here.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.e2e.lab.accel import best_acceleration
from tests.e2e.lab.medium_shell import CACHE, medium_files
from tests.e2e.matrix import catalogue
from tests.e2e.matrix.__main__ import choose, run_cells
from tests.e2e.matrix.model import Cell
from tests.e2e.matrix.results import Store
from tests.e2e.matrix.runner import World

pytestmark = [pytest.mark.e2e, pytest.mark.root]

WANTED = os.environ.get("REKINDLE_MATRIX", "few")
#: Of one Debian, because each takes minutes to install, and as many as run at once: another bus, sectors, card, a lost
#: NVRAM and Secure Boot on a larger disk; from UEFI to BIOS.
FEW = (
    "d13-bridge+uefi-sb.scsi.512e.larger.e1000e.1024.q35.max.lost",
    "d13-btrfs+bios.nvme.512.equal.virtio-net-pci.1024.q35.max.kept",
)
#: Between them each firmware, bus, table, root filesystem and chipset, of one Debian.
DIFFERING = (
    "d13-lvm+uefi-sb.nvme.512e.larger.e1000e.1024.q35.max.lost",
    "d13-logical+bios.megasas.512.equal.rtl8139.1024.i440fx.qemu64.kept",
    "d13-btrfs+uefi.usb.512.larger.vmxnet3.1024.i440fx.Nehalem.kept",
    "d13-xfs+bios.pvscsi.512.larger.virtio-net-pci.1024.q35.qemu64.kept",
    "d13-nmbond+uefi-sb.sata.512e.equal.virtio-net-pci.4096.q35.max.kept",
    "d13-vlan+bios.virtio.512.larger.e1000e.1024.q35.Nehalem.kept",
    "d13-bridge+uefi.scsi.512.equal.rtl8139.1024.q35.max.lost",
    "d13-bridge+bios.mptsas.512e.larger.vmxnet3.1024.i440fx.max.kept",
)


def wanted() -> list[Cell]:
    if WANTED == "all":
        return choose()
    if WANTED.isdecimal():
        return choose()[: int(WANTED)]
    return choose(names={"differing": DIFFERING, "few": FEW}.get(WANTED, WANTED.split(",")))


@pytest.mark.skipif(os.geteuid() != 0, reason="building a host's disk needs root")
@pytest.mark.skipif(WANTED in ("", "none"), reason="REKINDLE_MATRIX says that no cell is wanted")
def test_restored_systems_boot_on_other_machines(tmp_path: Path) -> None:
    files = medium_files()
    cells = wanted()
    world = World(CACHE, tmp_path, files, best_acceleration(files.kernel))
    results = run_cells(cells, world, Store(CACHE), jobs=2)
    assert len(results) == len(cells) > 0
    wrong = [f"{r.cell}: {r.status}: {r.reason}" for r in results if r.status not in ("booted", "refused", "untested")]
    assert not wrong, "\n".join(wrong)
    if WANTED in ("differing", "few"):
        assert [r.status for r in results] == ["booted"] * len(cells), "these are no cells that may be refused"
        assert all(r.first and r.second and r.checks for r in results)


def test_the_differing_cells_are_cells() -> None:
    assert all(catalogue.parse_name(name) for name in (*DIFFERING, *FEW))
