"""The root is found in a real btrfs, among subvolumes that look like one."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from recovery.adapt.devices import scan
from recovery.adapt.model import AdaptRequest, Job
from recovery.adapt.mount import find_root
from recovery.format.point import Point, PointBody, PointDisk, PointHeader
from recovery.layout import SystemFacts
from recovery.machine.model import Disk, Machine
from recovery.units import MIB

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        os.geteuid() != 0 or not Path("/dev/loop-control").exists(), reason="needs root and loop devices"
    ),
]


def sh(*words: object) -> str:
    done = subprocess.run([str(word) for word in words], text=True, capture_output=True, check=False)
    assert done.returncode == 0, f"{words}: {done.stderr}"
    return done.stdout


@pytest.fixture
def device(tmp_path: Path) -> Iterator[str]:
    """A btrfs on a whole disk: systems in the subvolumes ``sys/now`` and, as its snapshot, ``root``."""
    image, folder = tmp_path / "disk.img", tmp_path / "top"
    image.touch()
    os.truncate(image, 160 * MIB)
    sh("mkfs.btrfs", "-q", image)
    device = sh("losetup", "--find", "--show", image).strip()
    folder.mkdir()
    sh("mount", device, folder)
    try:
        (folder / "sys").mkdir()
        now = folder / "sys/now"
        sh("btrfs", "subvolume", "create", now)
        for place in ("etc", "usr"):
            (now / place).mkdir()
        (now / "etc/fstab").write_text("LABEL=x / btrfs defaults,subvol=/sys/now 0 0\n")
        sh("btrfs", "subvolume", "snapshot", now, folder / "root")
        sh("btrfs", "subvolume", "create", folder / "@home")
        sh("umount", folder)
        yield device
    finally:
        subprocess.run(["umount", str(folder)], capture_output=True, check=False)
        sh("losetup", "--detach", device)


@pytest.mark.parametrize("root", ["", "disk1"], ids=["nothing known", "named by the point"])
def test_a_snapshot_of_the_root_is_not_taken_for_it(device: str, root: str) -> None:
    disk = Disk(id="x", path=device, size=160 * MIB, bus="loop")
    source = PointDisk(name="disk1", size=160 * MIB, sector_size=512, chunk_size=MIB, root="")
    system = SystemFacts(root=root)
    body = PointBody(disks=(source,), consistency="offline", firmware="bios", system=system)
    point = Point(id="p", header=PointHeader(version=1, repository="r", host="h", created=0), body=body)
    job = Job(AdaptRequest(point=point, targets={"disk1": disk}, machine=Machine()), lambda event: None)
    job.nodes = scan(job.request.targets)
    found = find_root(job)
    assert found is not None
    assert (found[0].path, found[1]) == (device, "subvol=sys/now")
    assert device not in Path("/proc/mounts").read_text()
