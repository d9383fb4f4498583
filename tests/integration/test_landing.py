"""Real disks captured, restored onto smaller ones and ones with other sectors, and checked by their own tools."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from recovery.adapt.land import extents
from recovery.capture.rawtable import FoundTable, ReadAt, parse_table
from recovery.engine.landing import land
from recovery.errors import CommandError
from recovery.events import ignore
from recovery.format.point import Point
from recovery.layout import Landing
from recovery.machine.model import Disk, Machine
from recovery.plan.build import build_plan
from recovery.plan.model import Choices, RestorePlan
from recovery.repository.repository import Repository
from recovery.restore.disk import RestoreOptions, restore_disk
from recovery.units import MIB
from tests.integration.capture_images import let_go
from tests.support.captures import take
from tests.support.repositories import new_repository

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0 or not Path("/dev/fuse").exists(), reason="needs root and FUSE"),
]


def sh(*words: object, input: str | None = None, ok: tuple[int, ...] = (0,)) -> str:
    done = subprocess.run([str(w) for w in words], input=input, text=True, capture_output=True, check=False)
    assert done.returncode in ok, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout


@contextlib.contextmanager
def loop(image: Path, start: int = 0, size: int = 0, sector: int = 512) -> Iterator[str]:
    words = ["--offset", start, "--sizelimit", size] if size else []
    device = sh("losetup", "--find", "--show", "--sector-size", sector, *words, image).strip()
    try:
        yield device
    finally:
        sh("losetup", "--detach", device)
        let_go(image, device)


@contextlib.contextmanager
def mounted(device: str, folder: Path, *options: str) -> Iterator[Path]:
    folder.mkdir(exist_ok=True)
    sh("mount", *options, device, folder)
    try:
        yield folder
    finally:
        sh("umount", folder)


def fill(folder: Path, count: int, size: int, seed: int) -> None:
    """Files all over the filesystem: twice as many are written as stay, so that the far end is used too."""
    noise = random.Random(seed)
    for number in range(2 * count):
        place = folder / f"d{number % 17}"
        place.mkdir(exist_ok=True)
        (place / f"f{number}").write_bytes(noise.randbytes(size))
    sh("sync", "--file-system", folder)
    for number in range(0, 2 * count, 2):
        (folder / f"d{number % 17}" / f"f{number}").unlink()
    (folder / "link").symlink_to("d1/f1")


def digest(folder: Path) -> str:
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        found.update(str(path.relative_to(folder)).encode())
        found.update(path.read_bytes() if path.is_file() and not path.is_symlink() else b"")
    return found.hexdigest()


class Host:
    """A disk image with a table, filled by ``make``; captured."""

    def __init__(self, folder: Path, size: int, script: str, sector: int = 512) -> None:
        self.folder, self.size, self.sector = folder, size, sector
        self.image = folder / "host.img"
        self.image.touch()
        os.truncate(self.image, size)
        if script:
            with loop(self.image, sector=sector) as device:
                sh("sfdisk", "--quiet", "--no-tell-kernel", "--no-reread", device, input=script)
                sh("blockdev", "--flushbufs", device)
        self.table = self.parse().table
        self.digests: dict[int, str] = {}

    def parse(self) -> FoundTable:
        return parse_table(_reader(self.image), self.size, self.sector)

    def make(self, number: int, *words: object, count: int = 0, size: int = 200_000) -> None:
        part = next(p for p in self.table.partitions if p.number == number)
        with loop(self.image, part.start, part.size, self.sector) as device:
            sh(*words, device)
            if count:
                with mounted(device, self.folder / "m") as folder:
                    fill(folder, count, size, number)
                    self.digests[number] = digest(folder)

    def capture(self, folder: Path) -> tuple[Repository, Point]:
        repository = new_repository(folder)
        if self.sector == 512:
            return repository, take(repository, self.image)
        with loop(self.image, sector=self.sector) as device:
            return repository, take(repository, Path(device))


def plan_for(point: Point, target: Path, device: str, sector: int = 512, firmware: str = "uefi") -> RestorePlan:
    disk = Disk(id=f"path:{device}", path=device, size=target.stat().st_size, sector_size=sector, bus="sata")
    machine = Machine(firmware=firmware, memory=2**32, disks=(disk,))  # type: ignore[arg-type]
    choices = Choices(host="host1", point=point.id, targets={"disk1": disk.id})
    return build_plan(point, machine, choices)


def restore(repository: Repository, point: Point, plan: RestorePlan, options: RestoreOptions | None = None) -> Landing:
    (assignment,) = plan.assignments
    assert plan.allowed, [p for p in plan.problems if p.severity == "error"]
    assert assignment.landing is not None
    options, cancel = options or RestoreOptions(), threading.Event()
    path, places = assignment.target.path, extents(assignment.source, assignment.landing)
    report = restore_disk(repository, point, "disk1", path, ignore, cancel, options, extents=places)
    assert report.logical == report.written + report.zeroed + report.skipped
    land(repository, point, assignment, ignore, cancel, options)
    return assignment.landing


def blank(path: Path, size: int) -> Path:
    # Not zeros: what was there before must not be taken for anything.
    with path.open("wb") as file:
        for _ in range(size // MIB):
            file.write(b"\xa5" * MIB)
    return path


def content(image: Path, start: int, size: int, folder: Path, kind: str, sector: int = 512) -> str:
    with loop(image, start, size, sector) as device:
        if kind == "ext4":
            sh("e2fsck", "-f", "-n", device)
        elif kind == "btrfs":
            sh("btrfs", "check", "--readonly", device)
        else:
            sh("xfs_repair", "-n", device)
        with mounted(device, folder) as place:
            return digest(place)


GPT = """label: gpt
size=64MiB, type=uefi, uuid=11111111-1111-1111-1111-111111111111, name="EFI"
size=300MiB, type=linux, uuid=22222222-2222-2222-2222-222222222222, name="root fs"
size=320MiB, type=swap, uuid=33333333-3333-3333-3333-333333333333
"""


def test_ext4_in_the_middle_shrinks_and_what_lies_behind_moves(tmp_path: Path) -> None:
    host = Host(tmp_path, 700 * MIB, GPT)
    host.make(1, "mkfs.vfat", "-i", "ABCD1234", "-n", "EFI")
    host.make(2, "mkfs.ext4", "-q", "-b", "4096", "-U", "44444444-4444-4444-4444-444444444444", count=250)
    host.make(3, "mkswap", "-q", "-U", "55555555-5555-5555-5555-555555555555", "-L", "sw")
    repository, point = host.capture(tmp_path / "repo")
    root = next(p for p in point.body.disks[0].table.partitions if p.number == 2)
    assert root.content.minimum is not None and root.content.used is not None
    target = blank(tmp_path / "target", 530 * MIB)
    with loop(target) as device:
        plan = plan_for(point, target, device)
        assert "target-smaller" in {p.code for p in plan.problems}
        landing = restore(repository, point, plan)
    assert "No problems found" in sh("sgdisk", "--verify", target)
    found = {p.number: p for p in parse_table(_reader(target), 530 * MIB, 512).table.partitions}
    assert {n: (p.start, p.size) for n, p in found.items()} == {
        p.number: (p.start, p.size) for p in landing.table.partitions
    }
    for part in host.table.partitions:
        new = found[part.number]
        assert (new.uuid, new.type, new.name, new.flags) == (part.uuid, part.type, part.name, part.flags)
    assert found[2].size < 300 * MIB
    assert content(target, found[2].start, found[2].size, tmp_path / "m", "ext4") == host.digests[2]
    with loop(target, found[3].start, found[3].size) as device:
        facts = sh("blkid", "-p", "-o", "export", device)
        assert "UUID=55555555-5555-5555-5555-555555555555" in facts and "LABEL=sw" in facts
        assert sh("swaplabel", device)
    # Again onto the same disk: a restore is repeated after a power cut, whatever the first one left.
    with loop(target) as device:
        restore(repository, point, plan_for(point, target, device))
    assert content(target, found[2].start, found[2].size, tmp_path / "m", "ext4") == host.digests[2]


def _reader(path: Path) -> ReadAt:
    def read(offset: int, length: int) -> bytes:
        with path.open("rb") as file:
            return os.pread(file.fileno(), length, offset)

    return read


MBR = """label: dos
label-id: 0xdeadbeef
size=300MiB, type=83, bootable
type=5
size=130MiB, type=83
size=300MiB, type=82
"""


@pytest.mark.slow
def test_an_mbr_with_logical_partitions_shrinks(tmp_path: Path) -> None:
    host = Host(tmp_path, 760 * MIB, MBR)
    with host.image.open("r+b") as file:
        file.write(b"\xeb\x63GRUB")
        file.seek(512)
        file.write(b"core image" * 100)
    host.make(1, "mkfs.ext4", "-q", "-b", "4096", count=100)
    host.make(5, "mkfs.btrfs", "-q", count=100, size=50_000)
    host.make(6, "mkswap", "-q")
    repository, point = host.capture(tmp_path / "repo")
    target = blank(tmp_path / "target", 520 * MIB)
    with loop(target) as device:
        restore(repository, point, plan_for(point, target, device, firmware="bios"))
    found = {p.number: p for p in parse_table(_reader(target), 520 * MIB, 512).table.partitions}
    assert [p.type for p in found.values()] == [p.type for p in host.table.partitions]
    assert found[1].flags == ("boot",) and {1, 2, 5, 6} == set(found)
    listed = sh("sfdisk", "--json", target)
    assert '"id": "0xdeadbeef"' in listed
    assert "overlap" not in sh("sfdisk", "--verify", target)
    head = target.read_bytes()[:2048]
    assert head[:6] == b"\xeb\x63GRUB" and head[512:1512] == b"core image" * 100
    assert content(target, found[1].start, found[1].size, tmp_path / "m", "ext4") == host.digests[1]
    assert content(target, found[5].start, found[5].size, tmp_path / "m", "btrfs") == host.digests[5]


@pytest.mark.slow
def test_btrfs_shrinks(tmp_path: Path) -> None:
    host = Host(tmp_path, 2000 * MIB, "label: gpt\ntype=linux\n")
    host.make(1, "mkfs.btrfs", "-q", count=150, size=300_000)
    repository, point = host.capture(tmp_path / "repo")
    assert point.body.disks[0].table.partitions[0].content.minimum is not None
    target = blank(tmp_path / "target", 1500 * MIB)
    with loop(target) as device:
        restore(repository, point, plan_for(point, target, device))
    (found,) = parse_table(_reader(target), 1500 * MIB, 512).table.partitions
    assert content(target, found.start, found.size, tmp_path / "m", "btrfs") == host.digests[1]


SMALL = """label: gpt
first-lba: 34
start=34, size=2014, type=21686148-6449-6E6F-744E-656564454649
start=1MiB, size=64MiB, type=uefi, name="EFI"
size=200MiB, type=linux
size=64MiB, type=swap
"""


@pytest.mark.slow
@pytest.mark.parametrize(("old", "new"), [(512, 4096), (4096, 512)])
def test_the_other_sector_size(tmp_path: Path, old: int, new: int) -> None:
    script = SMALL if old == 512 else SMALL.replace("34\n", "6\n").replace("start=34, size=2014", "start=6, size=250")
    host = Host(tmp_path, 340 * MIB, script, old)
    host.make(2, "mkfs.vfat", "-S", old, "-i", "ABCD1234", "-n", "EFI")
    host.make(3, "mkfs.ext4", "-q", "-b", "4096", count=100)
    host.make(4, "mkswap", "-q", "-p", "4096")
    esp = host.table.partitions[1]
    files = {"EFI/debian/grubx64.efi": b"MZ" + bytes(1_000_000), "EFI/BOOT/BOOTX64.EFI": b"MZ shim", "a b.txt": b""}
    for name, data in files.items():
        (tmp_path / "file").write_bytes(data)
        place = f"{host.image}@@{esp.start}"
        for folder in Path(name).parents[-2::-1] if "/" in name else ():
            sh("mmd", "-D", "s", "-i", place, f"::{folder}", ok=(0, 1))
        sh("mcopy", "-i", place, tmp_path / "file", f"::{name}")
    repository, point = host.capture(tmp_path / "repo")
    assert point.body.disks[0].sector_size == old
    target = blank(tmp_path / "target", 340 * MIB)
    with loop(target, sector=new) as device:
        plan = plan_for(point, target, device, new)
        assert "sector-size-converted" in {p.code for p in plan.problems}
        restore(repository, point, plan)
        # The kernel's own tools on a disk of those sectors.
        assert f'"sectorsize": {new}' in sh("sfdisk", "--json", device)
        assert "No problems found" in sh("sgdisk", "--verify", device)
    found = {p.number: p for p in parse_table(_reader(target), 340 * MIB, new).table.partitions}
    assert {n: p.uuid for n, p in found.items()} == {p.number: p.uuid for p in host.table.partitions}
    assert content(target, found[3].start, found[3].size, tmp_path / "m", "ext4", new) == host.digests[3]
    with loop(target, found[2].start, found[2].size, new) as device:
        facts = sh("blkid", "-p", "-o", "export", device)
        assert f"BLOCK_SIZE={new}" in facts and "UUID=ABCD-1234" in facts and "LABEL=EFI" in facts
        sh("fsck.vfat", "-n", device)
        for name, data in files.items():
            sh("mcopy", "-n", "-i", device, f"::{name}", tmp_path / "back")
            assert (tmp_path / "back").read_bytes() == data
            (tmp_path / "back").unlink()


def test_what_cannot_bear_larger_sectors_is_refused(tmp_path: Path) -> None:
    host = Host(tmp_path, 800 * MIB, "label: gpt\nsize=320MiB, type=linux\nsize=64MiB, type=linux\n")
    host.make(1, "mkfs.xfs", "-q", "-f")
    host.make(2, "mkfs.ext4", "-q", "-b", "1024")
    _, point = host.capture(tmp_path / "repo")
    target = tmp_path / "target"
    target.touch()
    os.truncate(target, 800 * MIB)
    plan = plan_for(point, target, "/dev/loop9", 4096)
    (problem,) = [p for p in plan.problems if p.severity == "error"]
    assert problem.code == "sector-size-differs"
    assert "Partition 1 is xfs made for sectors of 512 bytes" in problem.why
    assert "Partition 2 is ext4 with blocks of 1024 bytes" in problem.why
    os.truncate(target, 300 * MIB)
    plan = plan_for(point, target, "/dev/loop9")
    (problem,) = [p for p in plan.problems if p.severity == "error"]
    assert problem.code == "target-too-small"
    assert "xfs cannot be shrunk at all" in problem.why


@pytest.mark.slow
def test_a_journal_is_replayed_beyond_the_new_end_and_what_a_tool_writes_there_stays_away(tmp_path: Path) -> None:
    """A disk as after a power cut: the filesystem was mounted when its blocks were copied."""
    host = Host(tmp_path, 420 * MIB, "label: gpt\nsize=400MiB, type=linux\n")
    host.make(1, "mkfs.ext4", "-q", "-b", "4096", count=100)
    (part,) = host.table.partitions
    with loop(host.image, part.start, part.size) as device, mounted(device, tmp_path / "m") as folder:
        (folder / "more").mkdir()
        fill(folder / "more", 100, 4096, 9)
        sh("sync", "--file-system", folder)
        for path in (folder / "more").rglob("f*1"):
            path.unlink()
        fd = os.open(folder / "more", os.O_RDONLY)
        os.fsync(fd)  # into the journal, not to its place
        os.close(fd)
        (tmp_path / "copy").write_bytes(host.image.read_bytes())
        expected = digest(folder)
    (tmp_path / "copy").replace(host.image)
    repository, point = host.capture(tmp_path / "repo")
    target = blank(tmp_path / "target", 260 * MIB)
    with loop(target) as device:
        restore(repository, point, plan_for(point, target, device))
    (found,) = parse_table(_reader(target), 260 * MIB, 512).table.partitions
    assert content(target, found.start, found.size, tmp_path / "m", "ext4") == expected


def test_a_filesystem_that_needs_a_person_stops_the_restore_and_leaves_no_table(tmp_path: Path) -> None:
    host = Host(tmp_path, 420 * MIB, "label: gpt\nsize=400MiB, type=linux\n")
    host.make(1, "mkfs.ext4", "-q", "-b", "4096", count=50)
    (part,) = host.table.partitions
    with host.image.open("r+b") as file:  # the root folder's inode
        file.seek(part.start)
        inodes = int(sh("dumpe2fs", f"{host.image}?offset={part.start}").split("Inode table at ")[1].split("-")[0])
        file.seek(part.start + inodes * 4096 + 256)
        file.write(bytes(256))
    repository, point = host.capture(tmp_path / "repo")
    least = msgspec.structs.replace(point.body.disks[0].table.partitions[0].content, minimum=100 * MIB)
    partition = msgspec.structs.replace(point.body.disks[0].table.partitions[0], content=least)
    table = msgspec.structs.replace(point.body.disks[0].table, partitions=(partition,))
    disk = msgspec.structs.replace(point.body.disks[0], table=table)
    point = msgspec.structs.replace(point, body=msgspec.structs.replace(point.body, disks=(disk,)))
    target = blank(tmp_path / "target", 260 * MIB)
    with loop(target) as device, pytest.raises(CommandError, match=r"Partition 1 of disk1: .* need a person"):
        restore(repository, point, plan_for(point, target, device))
    assert not any(target.read_bytes()[:MIB])
    assert "rekindle-shown" not in Path("/proc/mounts").read_text()
