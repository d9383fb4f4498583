"""A real volume group captured and restored onto a smaller disk; checked by LVM's and the filesystems' own tools.

LVM's tools read and check the metadata; activating it needs a device-mapper, so the volumes are looked at where the
metadata says that they lie."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from recovery.capture.lvm import read_groups, read_pv
from recovery.capture.ranges import Extent
from recovery.capture.rawtable import parse_table
from recovery.units import MIB
from tests.integration.capture_images import make_vg
from tests.integration.test_landing import (
    Host,
    _reader,
    blank,
    content,
    digest,
    fill,
    loop,
    mounted,
    plan_for,
    restore,
    sh,
)

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0 or not Path("/dev/fuse").exists(), reason="needs root and FUSE"),
]

TABLE = "label: gpt\nsize=34MiB, type=uefi\nsize=600MiB, type=lvm\n"
#: In extents of 1 MiB: (first of the volume, count, first on the PV). ``data`` lies in two pieces, around ``root``.
VOLUMES: dict[str, Sequence[tuple[int, int, int]]] = {
    "root": [(0, 300, 40)],
    "data": [(0, 40, 0), (40, 60, 340)],
    "swap": [(0, 128, 420)],
}


def lv_filled(host: Host, start: int, size: int, seed: int, count: int) -> str:
    with loop(host.image, start, size) as device:
        sh("mkfs.ext4", "-q", "-b", "4096", device)
        with mounted(device, host.folder / "m") as folder:
            fill(folder, count, 100_000, seed)
            return digest(folder)


@pytest.fixture
def host(tmp_path: Path) -> tuple[Host, dict[str, str]]:
    found = Host(tmp_path, 660 * MIB, TABLE)
    pv = found.table.partitions[1]
    make_vg(found.image, pv.start, pv.size, "vg-x", VOLUMES, tmp_path)
    base = pv.start + MIB
    digests = {"root": lv_filled(found, base + 40 * MIB, 300 * MIB, 1, 400)}
    # In two pieces: written through one file, then cut.
    whole = tmp_path / "data.img"
    whole.touch()
    os.truncate(whole, 100 * MIB)
    sh("mkfs.ext4", "-q", "-b", "4096", whole)
    with loop(whole) as device, mounted(device, tmp_path / "m") as folder:
        fill(folder, 100, 100_000, 2)
        digests["data"] = digest(folder)
    data = whole.read_bytes()
    with found.image.open("r+b") as file:
        for at, length, place in ((0, 40, 0), (40, 60, 340)):
            file.seek(base + place * MIB)
            file.write(data[at * MIB : (at + length) * MIB])
    with loop(found.image, base + 420 * MIB, 128 * MIB) as device:
        sh("mkswap", "-q", "-U", "55555555-5555-5555-5555-555555555555", device)
    return found, digests


def test_a_group_is_shrunk_and_its_volumes_moved(tmp_path: Path, host: tuple[Host, dict[str, str]]) -> None:
    source, digests = host
    repository, point = source.capture(tmp_path / "repo")
    (group,) = point.body.volume_groups
    assert (group.extent_size, group.extents_start) == (MIB, MIB)
    size = 480 * MIB
    target = blank(tmp_path / "target", size)
    with loop(target) as device:
        plan = plan_for(point, target, device)
        said = next(p for p in plan.problems if p.code == "target-smaller")
        assert "volume vg-x/root (ext4) from 300 MiB" in said.why
        landing = restore(repository, point, plan)
    pv = next(p for p in parse_table(_reader(target), size, 512).table.partitions if p.number == 2)
    assert pv.size < 450 * MIB
    with loop(target, pv.start, pv.size) as device:
        only = ("--devices", device)
        sh("lvm", "vgck", *only, "vg-x")
        shown = json.loads(
            sh("lvm", "lvs", *only, "--reportformat", "json", "--units", "b", "--nosuffix", "-o", "lv_name,lv_size")
        )["report"][0]["lv"]
        facts = sh("lvm", "pvs", *only, "--noheadings", "--units", "b", "--nosuffix", "-o", "pv_size,dev_size,pv_uuid")
        assert facts.split()[1] == str(pv.size) and facts.split()[2] == group.pv_uuids[0]
    placed = {volume.name: volume for p in landing.placements for volume in p.volumes}
    assert {row["lv_name"]: int(row["lv_size"]) for row in shown} == {n: v.size for n, v in placed.items()}
    assert placed["data"].size == 100 * MIB and placed["root"].size < 300 * MIB
    # Where LVM's metadata says, not where the plan says.
    found = read_pv((Extent(target, pv.start, pv.size),))
    assert found is not None
    _, mapped = read_groups([found])
    where = {lv.volume.name: lv.extents for lv in mapped}
    assert all(len(extents) == 1 for extents in where.values())
    for name in ("root", "data"):
        (extent,) = where[name]
        assert content(target, extent.offset, extent.length, tmp_path / "m", "ext4") == digests[name]
    (extent,) = where["swap"]
    with loop(target, extent.offset, extent.length) as device:
        assert "UUID=55555555-5555-5555-5555-555555555555" in sh("blkid", "-p", "-o", "export", device)
        assert sh("swaplabel", device)
    # Again: a restore is repeated after a power cut.
    with loop(target) as device:
        restore(repository, point, plan_for(point, target, device))
    (extent,) = where["root"]
    assert content(target, extent.offset, extent.length, tmp_path / "m", "ext4") == digests["root"]


def test_a_group_that_does_not_fit_says_so_and_an_older_point_is_refused(
    tmp_path: Path, host: tuple[Host, dict[str, str]]
) -> None:
    source, _ = host
    _, point = source.capture(tmp_path / "repo")
    target = tmp_path / "target"
    target.touch()
    os.truncate(target, 200 * MIB)
    plan = plan_for(point, target, "/dev/loop9")
    (problem,) = (p for p in plan.problems if p.code == "target-too-small")
    needed = int(problem.why.split("(")[-1].split(" bytes")[0])
    assert 250 * MIB < needed < 480 * MIB
    os.truncate(target, needed)
    assert plan_for(point, target, "/dev/loop9").allowed
