"""The disk of a VM comes back off a thin volume (as Proxmox makes them), by the command."""

from __future__ import annotations

import os

import pytest

from recovery.explore.host import HostView
from recovery.explore.vm import find_disks, vm_of
from recovery.repository.repository import Repository
from recovery.repository.store import DirectoryStore
from tests.integration.test_extract_vm import World
from tests.support.repositories import PASSPHRASE
from tests.support.thin_pool import CHUNK

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root and loop devices")]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("thin"), thin=True)


def test_a_thin_volume_comes_back_with_its_holes(world: World) -> None:
    said = world.extract("thin")
    found = world.folder / "out/thin-vda.raw"
    assert found.read_bytes() == world.host.thin
    assert found.stat().st_blocks * 512 <= 121 * CHUNK, "what was never written is a hole"
    assert "It was /dev/vg0/vm-3-disk-0" in said


def test_the_point_says_it_and_its_metadata_say_the_same(world: World) -> None:
    repository = Repository.open(DirectoryStore(world.folder / "repository"), PASSPHRASE)
    point = repository.point("vhost1", "latest")
    view = HostView(repository, point)
    vm = vm_of(point, "thin")
    assert vm.disks[0].occupies is not None, vm.disks[0].unmapped
    (disk,) = find_disks(view, vm)
    assert disk.where == view.volume("vg0/vm-3-disk-0")
    assert sum(piece.length for piece in disk.where.pieces) == 120 * CHUNK
