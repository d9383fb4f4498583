"""Where VM disks lie is asked of mounted filesystems on real partitions: by the host's own mounts, in the time there
is, and only as long as the disk is divided as it was."""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from recovery.capture.busy import parse_mountinfo
from recovery.capture.live.survey import VmSurvey, host_paths
from recovery.capture.ranges import Extent
from recovery.capture.tracking.model import TrackedDisk
from recovery.capture.tracking.witness import tracked_disk
from recovery.capture.vmplaces import VmPlace
from recovery.capture.volumes import Volume
from recovery.format.extents import decode_runs
from recovery.layout import Content, Occupancy
from tests.integration.capture_images import MIB, sh, sparse

KEY = ("web", "vda")
SIZE = 160 * MIB

root = pytest.mark.skipif(
    os.geteuid() != 0 or not Path("/dev/loop-control").exists(), reason="needs root and loop devices"
)


@contextlib.contextmanager
def partitioned(folder: Path, kind: str, options: str = "") -> Iterator[tuple[TrackedDisk, Path]]:
    """A disk with one partition, from 1 MiB on, and where its filesystem is mounted."""
    image = sparse(folder / "disk.img", SIZE)
    sh("sfdisk", "-q", image, input="label: gpt\nstart=2048, size=" + str((SIZE - 2 * MIB) // 512) + "\n")
    device = sh("losetup", "--find", "--show", image).strip()
    try:
        # By hand: some kernels read no partition tables.
        sh("addpart", device, "1", "2048", str((SIZE - 2 * MIB) // 512))
        sh(f"mkfs.{kind}", "-q", f"{device}p1")
        (folder / "mnt").mkdir()
        sh("mount", f"{device}p1", folder / "mnt")
        if kind == "btrfs":
            sh("btrfs", "subvolume", "create", folder / "mnt/@vms")
            (folder / "vms").mkdir()
            sh("mount", "-o", "subvol=@vms", f"{device}p1", folder / "vms")
            sh("umount", folder / "mnt")
        try:
            yield tracked_disk("disk1", Path(device)), folder / ("vms" if kind == "btrfs" else "mnt")
        finally:
            sh("umount", folder / ("vms" if kind == "btrfs" else "mnt"))
    finally:
        try:
            remove_partition(device)
        finally:
            sh("losetup", "-d", device)


def remove_partition(device: str) -> None:
    """Wait until the partition can be taken away: a process with mounts of its own may still have a copy of ours, and
    other tests start such processes."""
    end = time.monotonic() + 60
    while True:
        try:
            sh("delpart", device, "1")
        except AssertionError as error:
            if "busy" not in str(error) or time.monotonic() > end:
                raise
            time.sleep(0.02)
        else:
            return


def survey_of(disk: TrackedDisk, kind: str, file: Path, inside: str) -> VmSurvey:
    extent = Extent(disk.path, MIB, SIZE - 2 * MIB)
    volume = Volume("disk1:1", extent.length, (extent,), Content(kind=kind))
    place = VmPlace(KEY, volume, file, inside, file.stat().st_dev)
    return VmSurvey([place], [volume], [disk])


def ask(survey: VmSurvey, seconds: float = 600.0) -> Occupancy | str:
    survey.before()
    os.sync()
    survey.frozen(time.monotonic() + seconds)
    survey.after()
    return survey.found[KEY]


def assembled(disk: TrackedDisk, occupies: Occupancy) -> bytes:
    sh("blockdev", "--flushbufs", disk.path)
    data, raw = bytearray(occupies.size), disk.path.read_bytes()
    for part in occupies.disks:
        for run in decode_runs(part.runs, occupies.size, disk.size):
            data[run.at : run.at + run.length] = raw[run.offset : run.offset + run.length]
    return bytes(data)


@root
@pytest.mark.root
@pytest.mark.parametrize(("kind", "inside"), [("ext4", "/disk.raw"), ("btrfs", "/@vms/disk.raw")])
def test_by_the_hosts_own_mounts_on_a_partition(kind: str, inside: str, tmp_path: Path) -> None:
    with partitioned(tmp_path, kind) as (disk, top):
        file = top / "disk.raw"
        file.write_bytes(random.Random(1).randbytes(3 * MIB + 77))
        survey = survey_of(disk, kind, file, inside)
        found = ask(survey)
        assert isinstance(found, Occupancy), found
        assert assembled(disk, found) == file.read_bytes()
        # The file is replaced by another one of that name: that one is the VM's disk now.
        (top / "new").write_bytes(random.Random(2).randbytes(2 * MIB))
        (top / "new").rename(file)
        found = ask(survey)
        assert isinstance(found, Occupancy), found
        assert assembled(disk, found) == file.read_bytes()
        late = ask(survey, -1.0)
        assert isinstance(late, str) and "no time" in late
        file.unlink()
        gone = ask(survey)
        assert isinstance(gone, str) and "not to be seen" in gone


@root
@pytest.mark.root
def test_a_disk_that_is_divided_anew_has_no_extents(tmp_path: Path) -> None:
    with partitioned(tmp_path, "ext4") as (disk, top):
        (top / "disk.raw").write_bytes(b"x" * MIB)
        survey = survey_of(disk, "ext4", top / "disk.raw", "/disk.raw")
        assert isinstance(ask(survey), Occupancy)
        sh("sfdisk", "-q", "--no-reread", "--force", "--part-label", disk.path, "1", "renamed")
        changed = ask(survey)
        assert isinstance(changed, str) and "were changed since the last keyframe" in changed


MOUNTS = """\
22 1 8:2 / / rw shared:1 - ext4 /dev/sda2 rw
23 22 8:2 /srv /bind rw - ext4 /dev/sda2 rw
25 22 0:45 /@home /home rw - btrfs /dev/sda4 rw,subvol=/@home
26 22 0:45 /@ /top rw - btrfs /dev/sda4 rw,subvol=/@
"""


def test_paths_of_the_host_to_a_file_of_a_device() -> None:
    mounts = parse_mountinfo(MOUNTS)
    assert list(host_paths("/srv/vm/a", "sda2", mounts)) == ["/srv/vm/a", "/bind/vm/a"]
    assert list(host_paths("/srvx/a", "sda2", mounts)) == ["/srvx/a"]
    assert list(host_paths("/@home/a", "sda4", mounts)) == ["/home/a"]
    assert list(host_paths("/@/a/b", "sda4", mounts)) == ["/top/a/b"]
    assert list(host_paths("/a", "sdb1", mounts)) == list(host_paths("/a", "", mounts)) == []
