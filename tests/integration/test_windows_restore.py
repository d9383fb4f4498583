"""Disks with NTFS, as Hyper-V keeps them too: captured, restored byte for byte, grown, and moved on a larger disk."""

from __future__ import annotations

import os
import struct
import threading
from pathlib import Path

import pytest

from recovery.adapt.grow import grow_filesystem
from recovery.adapt.land import moved
from recovery.adapt.ntfs import facts_of
from recovery.events import ignore
from recovery.machine.model import Disk, Machine
from recovery.plan.build import build_plan
from recovery.plan.model import Choices
from recovery.restore.disk import RestoreOptions, restore_disk
from recovery.units import MIB
from tests.integration.test_landing import blank, digest, fill, loop, restore
from tests.support.captures import take
from tests.support.repositories import new_repository
from tests.support.windows_host import ntfs, sh

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0 or not Path("/dev/fuse").exists(), reason="needs root and FUSE"),
]

DATA = "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7"
ONE = f"label: gpt\nstart=2048, size=60MiB, type={DATA}\n"
TWO = f"label: gpt\nstart=2048, size=60MiB, type={DATA}\nsize=40MiB, type={DATA}\n"


def make(image: Path, script: str, size: int, *places: tuple[int, int]) -> list[str]:
    """An image with NTFS volumes at (start, size), each with files; their digests."""
    image.touch()
    os.truncate(image, size)
    sh("sfdisk", "--quiet", image, input=script)
    digests = []
    for number, (start, length) in enumerate(places):
        with loop(image, start, length) as device:
            sh("mkntfs", "--quick", "--quiet", "-p", start // 512, "-H", 255, "-S", 63, device)
            with ntfs(device, image.parent / "m") as root:
                fill(root, 40, 100_000, number)
                (root / "link").unlink()
                digests.append(digest(root))
    return digests


def looked_at(image: Path, start: int, size: int) -> str:
    with loop(image, start, size) as device, ntfs(device, image.parent / "m", "ro") as root:
        return digest(root)


@pytest.mark.parametrize("driver", ["vhdx", "vpc"])
def test_a_hyper_v_disk_comes_back_byte_for_byte_on_a_larger_one_and_grows(tmp_path: Path, driver: str) -> None:
    raw = tmp_path / "disk.raw"
    (before,) = make(raw, ONE, 64 * MIB, (MIB, 60 * MIB))
    image = tmp_path / f"disk.{driver}"
    sh("qemu-img", "convert", "-O", driver, *(["-o", "force_size=on"] if driver == "vpc" else []), raw, image)
    repository = new_repository(tmp_path / "repo")
    point = take(repository, image)
    part = point.body.disks[0].table.partitions[0]
    assert (point.body.disks[0].size, part.content.kind, part.content.unclean) == (64 * MIB, "ntfs", "")
    target = blank(tmp_path / "target", 100 * MIB)
    with loop(target) as device:
        report = restore_disk(repository, point, "disk1", device, ignore, threading.Event(), RestoreOptions(
            verify_all=True))  # fmt: skip
    assert report.root_matched
    with raw.open("rb") as old, target.open("rb") as new:
        assert old.read() == new.read(64 * MIB)
    assert looked_at(target, part.start, part.size) == before
    # As the adaptation does it, once the partition ends with the disk.
    with loop(target, part.start, 98 * MIB) as device:
        assert grow_filesystem(device, "ntfs") and not grow_filesystem(device, "ntfs")
        assert 97 * MIB < facts_of(device).size < 98 * MIB
    assert looked_at(target, part.start, 98 * MIB) == before


def test_a_volume_that_makes_room_is_moved_whole_and_says_where_it_begins(tmp_path: Path) -> None:
    image = tmp_path / "host.img"
    first, second = make(image, TWO, 104 * MIB, (MIB, 60 * MIB), (61 * MIB, 40 * MIB))
    repository = new_repository(tmp_path / "repo")
    point = take(repository, image)
    target = blank(tmp_path / "target", 200 * MIB)
    with loop(target) as device:
        disk = Disk(id="t", path=device, size=200 * MIB, bus="sata")
        machine = Machine(firmware="bios", memory=2**32, disks=(disk,))
        plan = build_plan(
            point, machine, Choices(host="h", point=point.id, targets={"disk1": "t"}, grow_to=("disk1:1",))
        )
        landing = restore(repository, point, plan)
    assert [(one.number, one.old_start) for one in moved({"disk1": landing})] == [(2, 61 * MIB)]
    one, two = (next(p for p in landing.placements if p.number == n) for n in (1, 2))
    assert one.size > 130 * MIB and two.start > 61 * MIB and two.size == 40 * MIB
    with loop(target, two.start, two.size) as device:
        assert facts_of(device).hidden == two.start
        with Path(device).open("rb") as file:
            head = file.read(512)
            file.seek(40 * MIB - 512)
            assert file.read(512) == head  # the copy at the end of the partition
        assert struct.unpack_from("<I", head, 0x1C) == (two.start // 512,)
        sh("ntfs-3g.probe", "--readwrite", device)
    assert looked_at(target, two.start, two.size) == second
    with loop(target, one.start, one.size) as device:
        assert facts_of(device).hidden == one.start and grow_filesystem(device, "ntfs")
    assert looked_at(target, one.start, one.size) == first
