"""Systems that were captured boot on machines they did not come from: some cells of the hardware matrix.

Eight by default. Others by ``REKINDLE_MATRIX``: ``all`` or a number takes that many of the selected ones,
cell names separated by commas those, and ``none`` none. They run by ``scripts/matrix``' own code and their results go
into its store; a result that is there already is no reason to leave a cell out here.
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

WANTED = os.environ.get("REKINDLE_MATRIX", "differing")
#: Chosen to differ most, of one Debian and five sources, because each Debian and each source takes its time to make:
#: every firmware, table, root filesystem and chipset, all buses but MegaRAID's, each kind of sectors and size, LVM,
#: a lost NVRAM, an old processor; from UEFI to BIOS, onto 4Kn, onto a smaller disk.
DIFFERING = (
    "d13-lvm+uefi.sata.512.smaller.virtio-net-pci.1024.q35.max.kept",
    "d13-bridge+uefi-sb.scsi.512e.larger.e1000e.1024.q35.max.lost",
    "d13-logical+bios.virtio.512.equal.rtl8139.1024.q35.qemu64.kept",
    "d13-btrfs+bios.nvme.512.equal.virtio-net-pci.1024.q35.max.kept",
    "d13-xfs+bios.pvscsi.512.larger.virtio-net-pci.1024.q35.qemu64.kept",
    "d13-bridge+uefi.nvme.4Kn.larger.virtio-net-pci.1024.q35.max.kept",
    "d13-btrfs+uefi.usb.512.larger.vmxnet3.1024.i440fx.max.kept",
    "d13-bridge+bios.mptsas.512e.larger.vmxnet3.1024.i440fx.max.kept",
)


def wanted() -> list[Cell]:
    if WANTED in ("", "none"):
        return []
    if WANTED == "all":
        return choose()
    if WANTED.isdecimal():
        return choose()[: int(WANTED)]
    return choose(names=DIFFERING if WANTED == "differing" else WANTED.split(","))


@pytest.mark.skipif(os.geteuid() != 0, reason="building a host's disk needs root")
@pytest.mark.parametrize("cell", wanted(), ids=lambda cell: cell.name)
def test_a_restored_system_boots_on_another_machine(cell: Cell, tmp_path: Path) -> None:
    files = medium_files()
    world = World(CACHE, tmp_path, files, best_acceleration(files.kernel))
    (result,) = run_cells([cell], world, Store(CACHE), jobs=1)
    # Of cells that were asked for the plan may refuse some.
    fine = ("booted",) if WANTED == "differing" else ("booted", "refused", "untested")
    assert result.status in fine, result.reason
    if result.status == "booted":
        assert result.first and result.second and result.checks


def test_the_differing_cells_are_cells() -> None:
    cells = [catalogue.parse_name(name) for name in DIFFERING]
    assert all(cells) and len(set(cells)) == 8
