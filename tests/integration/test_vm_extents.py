"""Which bytes of the host's disks a VM's disk has: on every filesystem, of disks that rest and of hosts that run."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from recovery.agent.config import parse_settings
from recovery.agent.points import Made, Maker
from recovery.agent.sending import Sender
from recovery.agent.spool import Spool
from recovery.capture.live.limits import DoubtError
from recovery.capture.mounts import mounted
from recovery.capture.ranges import Extent
from recovery.capture.tracking.choose import open_tracker
from recovery.capture.tracking.witness import tracked_disk
from recovery.capture.vmplaces import VmPlace, map_still
from recovery.capture.volumes import Volume
from recovery.commands import use_runner
from recovery.events import ignore
from recovery.explore.host import HostView
from recovery.explore.vm import find_disks
from recovery.format.extents import decode_runs
from recovery.format.point import Point
from recovery.layout import Content, Occupancy
from recovery.repository.index import SqliteIndex
from recovery.repository.repository import Repository
from tests.integration.capture_images import MIB, let_go, sh, sparse
from tests.integration.test_guest_quiesce import AGENT, Libvirt, uuid
from tests.support.prefix import WrittenDisk, restored
from tests.support.repositories import new_repository
from tests.support.vm_host import DISK, DOMAIN

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        os.geteuid() != 0 or not Path("/dev/loop-control").exists() or not Path("/etc/machine-id").exists(),
        reason="needs root, loop devices and a machine-id",
    ),
]

#: Where the filesystem begins in its image.
START = MIB
SIZES = {"ext4": 48, "ext3": 48, "xfs": 320, "btrfs": 160}


@contextlib.contextmanager
def mounted_rw(image: Path, folder: Path, options: str = "") -> Iterator[Path]:
    """The filesystem in ``image`` from ``START`` on, read-write."""
    folder.mkdir(exist_ok=True)
    sh("mount", "-o", f"loop,offset={START}{options}", image, folder)
    try:
        yield folder
    finally:
        sh("umount", folder)
        let_go(image)


def fragmented(path: Path, other: Path) -> None:
    """A file in many pieces with holes, room that was never written, and an end that is no whole block."""
    dice = random.Random(3)
    with path.open("wb", buffering=0) as file, other.open("wb", buffering=0) as beside:
        for number in range(40):
            os.pwrite(file.fileno(), dice.randbytes(8192), number * 3 * 8192)
            os.fsync(file.fileno())
            beside.write(dice.randbytes(4096))
            os.fsync(beside.fileno())
        os.posix_fallocate(file.fileno(), 2 * MIB, MIB)
        file.truncate(4 * MIB + 777)
        os.pwrite(file.fileno(), b"end", 4 * MIB + 700)


def make(folder: Path, kind: str, options: str = "") -> tuple[Path, bytes]:
    image = sparse(folder / f"{kind}.img", SIZES[kind] * MIB + START)
    device = sh("losetup", "--find", "--show", "-o", str(START), image).strip()
    try:
        sh(f"mkfs.{kind}", "-q", device)
    finally:
        sh("losetup", "-d", device)
    with mounted_rw(image, folder / "mnt", options) as top:
        fragmented(top / "disk.raw", top / "beside")
        content = (top / "disk.raw").read_bytes()
    return image, content


def volume_of(image: Path, kind: str) -> Volume:
    size = image.stat().st_size - START
    return Volume("disk1:1", size, (Extent(image, START, size),), Content(kind=kind))


def look(image: Path, kind: str) -> Occupancy | str:
    """As a capture of disks that rest does."""
    volume = volume_of(image, kind)
    with mounted(volume) as top:
        here = top / "disk.raw"
        place = VmPlace(("web", "vda"), volume, here, "/disk.raw", here.stat().st_dev)
        return map_still([place], {image: "disk1"})["web", "vda"]


def assembled(image: Path, occupies: Occupancy) -> bytes:
    data, raw = bytearray(occupies.size), image.read_bytes()
    for part in occupies.disks:
        for run in decode_runs(part.runs, occupies.size, len(raw)):
            data[run.at : run.at + run.length] = raw[run.offset : run.offset + run.length]
    return bytes(data)


@pytest.mark.parametrize("kind", list(SIZES))
def test_the_extents_of_a_file_are_its_bytes(kind: str, tmp_path: Path) -> None:
    image, content = make(tmp_path, kind)
    found = look(image, kind)
    assert isinstance(found, Occupancy), found
    assert assembled(image, found) == content
    (part,) = found.disks
    runs = decode_runs(part.runs, found.size, image.stat().st_size)
    assert len(runs) >= 40
    # Holes, and room that was never written (ext3 knows no such room), are not in them.
    assert sum(run.length for run in runs) <= 41 * 8192 + 65536 + (MIB if kind == "ext3" else 0)


def test_what_btrfs_compressed_is_not_taken_for_plain_bytes(tmp_path: Path) -> None:
    image = make(tmp_path, "btrfs")[0]
    with mounted_rw(image, tmp_path / "mnt", ",compress-force=zstd") as top:
        (top / "disk.raw").unlink()  # what was once preallocated is never compressed
        (top / "disk.raw").write_bytes(b"compressible " * 40000)
    assert look(image, "btrfs") == "it is compressed by its filesystem"


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs"])
def test_a_filesystem_in_the_middle_of_its_work_is_not_trusted(kind: str, tmp_path: Path) -> None:
    image = make(tmp_path, kind)[0]
    torn = tmp_path / "torn.img"
    for _ in range(10):
        with mounted_rw(image, tmp_path / "mnt") as top:
            with (top / "disk.raw").open("r+b", buffering=0) as file:
                os.pwrite(file.fileno(), os.urandom(65536), 3 * MIB)
                os.fsync(file.fileno())
            # As a power cut leaves it: the device as it is, mounted.
            sh("cp", "--sparse=always", image, torn)
        if isinstance(found := look(torn, kind), str):
            break  # else a sync of another test came between, and btrfs has no log that waits
    assert isinstance(found, str) and "the journal has not been replayed" in found


# --- a running host -------------------------------------------------------------------------------------------------

GROWER = """
import os, random, sys
dice = random.Random(5)
disk, other = (os.open(path, os.O_RDWR | os.O_CREAT) for path in sys.argv[1:3])
for number in range(100000):
    os.pwrite(disk, dice.randbytes(4096), dice.randrange(3000) * 4096)
    os.pwrite(other, dice.randbytes(4096), number % 500 * 4096)
    if number % 4 == 0:
        os.fsync(disk); os.fsync(other)
        import time; time.sleep(0.02)
    if number % 300 == 299:
        os.ftruncate(other, 0)
    if number == 0:
        print("writing", flush=True)
"""


class Host:
    """A host on an ext4, whose VM's disk grows in pieces; an agent that is moved by hand."""

    def __init__(self, folder: Path) -> None:
        self.libvirt = Libvirt({uuid(1): 2})
        self.folder, self.disk = folder, WrittenDisk(folder, 96 * MIB)
        top = self.disk.mount
        for name in ("etc/libvirt/qemu", "boot", "usr/bin", "srv/vm"):
            (top / name).mkdir(parents=True)
        (top / "boot/vmlinuz").touch()
        (top / "etc/os-release").write_text("ID=debian\n")
        (top / "etc/fstab").write_text(f"UUID={sh('blkid', '-o', 'value', '-s', 'UUID', self.disk.device).strip()} / ext4 defaults 0 1\n")  # fmt: skip # noqa: E501
        disks = "".join(
            DISK.format(kind="file", kind_of="file", format="raw", where=where, dev=dev)
            for where, dev in (("/srv/vm/web.raw", "vda"), ("/srv/vm/gone.raw", "vdb"), ("/mnt/nas/x.raw", "vdc"))
        )
        (top / "etc/libvirt/qemu/web.xml").write_text(DOMAIN.format(name="web", number=1, disks=disks + AGENT))
        # This machine itself, so that its libvirt is asked.
        (top / "etc/machine-id").write_bytes(Path("/etc/machine-id").read_bytes())
        (top / "srv/vm/gone.raw").write_bytes(b"x" * 8192)
        self.grower = subprocess.Popen(
            ["python3", "-c", GROWER, top / "srv/vm/web.raw", top / "srv/other"], stdout=subprocess.PIPE, text=True
        )
        assert self.grower.stdout is not None and self.grower.stdout.readline() == "writing\n"
        self.repository: Repository = new_repository(folder / "r")
        text = (
            f'host = "hv1"\ndisks = ["{self.disk.device}"]\n[repository]\nlocation = "/r"\nsecret_file = "/s"\n'
            '[guests]\nquiesce = "every"\nanswer = "60s"\nhold = "100s"\n'
            f'[limits]\nfreeze = "9s"\njournal = "64 MiB"\n[spool]\ndirectory = "{folder}/spool"\n'
        )
        settings = parse_settings(text, "agent.toml")
        spool = Spool(settings.spool, settings.spool_bytes)
        self.spool = spool
        self.sender = Sender(
            self.repository, spool, threading.Event(), lambda id, header, sent: None, lambda why: None
        )
        self.maker = Maker(self.repository, SqliteIndex(":memory:"), settings, spool, ignore)

    def point(self, *, keyframe: bool) -> Made | None:
        """A point in the repository; None when the tracker was in doubt, as some kernels make it."""
        try:
            with use_runner(self.libvirt):
                made = self.maker.keyframe(threading.Event()) if keyframe else self.maker.journal(threading.Event())
        except DoubtError:
            return None
        while self.spool.count:
            self.sender._step()
        return made

    def close(self) -> None:
        self.grower.kill()
        self.grower.wait()
        self.maker.close()
        self.disk.close()


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    made = Host(tmp_path)
    try:
        told: list[str] = []
        tracker = open_tracker([tracked_disk("disk1", Path(made.disk.device))], told.append)
        if tracker is None:
            pytest.skip(f"changed blocks cannot be tracked here: {told}")
        tracker.close()
        yield made
    finally:
        made.close()


def by_the_point(host: Host, point: Point) -> bytes:
    """The VM's disk by the extents that the point has; nothing else of the host is looked at."""
    view = HostView(host.repository, point)
    (vm,) = point.body.vms
    (found,) = find_disks(view, vm, "vda")
    data = bytearray(found.where.size)
    for piece in found.where.pieces:
        data[piece.at : piece.at + piece.length] = view.disk(piece.disk).read(piece.offset, piece.length)
    assert "volumes" not in vars(view)
    return bytes(data)


def test_points_of_a_running_host_have_the_extents_of_their_own_moment(host: Host) -> None:
    kinds, contents = [], []
    for number in range(5):
        if number == 3:
            (host.disk.mount / "srv/vm/gone.raw").unlink()
        made = host.point(keyframe=not host.maker.ready)
        if made is None:
            continue
        kinds.append(made.kind)
        point = host.repository.point("hv1", made.id)
        (vm,) = point.body.vms
        vda, vdb, vdc = vm.disks
        assert vda.occupies is not None, vda.unmapped
        assert vm.consistency == "application", vm.unquiesced
        assert not host.libvirt.frozen
        if number < 3:
            assert vdb.occupies is not None and vdb.occupies.size == 8192
        elif made.kind == "journal":
            assert vdb.occupies is None and "not to be seen" in vdb.unmapped
        assert vdc.occupies is None and "no such file" in vdc.unmapped
        with restored(host.repository, point, host.folder) as top:
            expected = (top / "srv/vm/web.raw").read_bytes()
        assert by_the_point(host, point) == expected
        contents.append(expected)
    assert "keyframe" in kinds and len(kinds) >= 3
    assert len(set(contents)) == len(contents), "the disk did not change between the points"
