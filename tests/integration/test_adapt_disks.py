"""Real partition tables and filesystems on loop devices (at the partitions' offsets: no partition scanning needed)."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from recovery.adapt import run as adapt_run
from recovery.adapt import steps as adapt_steps
from recovery.adapt.gpt import check_tables, move_backup_gpt, read_table
from recovery.adapt.grow import grow_filesystem, resize_partition
from recovery.adapt.model import AdaptRequest, Job
from recovery.adapt.mount import place_to_mount
from recovery.adapt.run import adapt
from recovery.adapt.tables import growth
from recovery.commands import Completed, FakeRunner, use_runner
from recovery.errors import CommandError, DeviceError, IntegrityError, RekindleError, UsageError
from recovery.events import Event, StepStarted
from recovery.format.point import Point, PointBody, PointDisk, PointHeader
from recovery.machine.model import Disk, Machine
from recovery.machine.probe_disks import probe_table
from recovery.units import MIB
from tests.integration.capture_images import let_go

SMALL, LARGE = 400 * MIB, 640 * MIB


def sh(*words: object, input: str | None = None) -> str:
    done = subprocess.run([str(w) for w in words], input=input, text=True, capture_output=True, check=False)
    assert done.returncode == 0, f"{words}: {done.stderr}"
    return done.stdout


@contextlib.contextmanager
def loop(image: Path, start: int = 0, size: int = 0) -> Iterator[str]:
    limits = ["--offset", start, "--sizelimit", size] if size else []
    device = sh("losetup", "--find", "--show", *limits, image).strip()
    try:
        yield device
    finally:
        sh("losetup", "--detach", device)


@contextlib.contextmanager
def mounted(device: str, folder: Path) -> Iterator[Path]:
    folder.mkdir(exist_ok=True)
    sh("mount", device, folder)
    try:
        yield folder
    finally:
        sh("umount", folder)


def make_image(path: Path, script: str) -> None:
    path.touch()
    os.truncate(path, SMALL)
    sh("sfdisk", "--quiet", path, input=script)


GPT = "label: gpt\nsize=16MiB, type=uefi, uuid=11111111-1111-1111-1111-111111111111\ntype=linux, name=root\n"


def test_the_backup_gpt_moves_once_and_the_partition_follows(tmp_path: Path) -> None:
    image = tmp_path / "disk"
    make_image(image, GPT)
    with image.open("r+b") as file:  # boot code must survive
        file.write(b"\xeb\x63GRUB")
    before = read_table(str(image))
    assert not move_backup_gpt(str(image), SMALL, 512)

    os.truncate(image, LARGE)
    assert move_backup_gpt(str(image), LARGE, 512)
    assert not move_backup_gpt(str(image), LARGE, 512)
    assert "No problems found" in sh("sgdisk", "--verify", image)

    table = read_table(str(image))
    (step,) = growth(table, LARGE)
    resize_partition(str(image), step, 512)
    after = read_table(str(image))
    assert after.partitions[0] == before.partitions[0]
    old, new = before.partitions[1], after.partitions[1]
    assert (new.start, new.type, new.uuid) == (old.start, old.type, old.uuid)
    assert new.end == LARGE - MIB
    assert growth(after, LARGE) == []
    assert "No problems found" in sh("sgdisk", "--verify", image)
    assert image.read_bytes()[:6] == b"\xeb\x63GRUB"
    assert "root" in sh("sfdisk", "--part-label", image, "2")


def test_a_disk_with_another_table_is_not_changed(tmp_path: Path) -> None:
    """``rekindle adapt`` was given the wrong disk; and the right one is larger, so its backup GPT is to be moved."""
    right, wrong = tmp_path / "right", tmp_path / "wrong"
    small, large = 40 * MIB, 48 * MIB
    for image, script in ((right, GPT), (wrong, GPT.replace("16MiB", "24MiB"))):
        image.touch()
        os.truncate(image, small)
        sh("sfdisk", "--quiet", image, input=script)
        os.truncate(image, large)
    before = {image: image.read_bytes() for image in (right, wrong)}
    table = probe_table(str(right))
    disks = tuple(
        PointDisk(name=name, size=small, sector_size=512, chunk_size=MIB, root="", table=table) for name in ("a", "b")
    )
    point = Point(
        id="p",
        header=PointHeader(version=1, repository="r", host="h", created=0),
        body=PointBody(disks=disks, consistency="offline", firmware="uefi"),
    )

    def job_for(**images: Path) -> Job:
        disks = {name: Disk(id=name, path=str(image), size=large) for name, image in images.items()}
        return Job(AdaptRequest(point=point, targets=disks, machine=Machine()), lambda event: None)

    with pytest.raises(IntegrityError, match="wrong does not hold"):
        check_tables(job_for(a=right, b=wrong))
    assert {image: image.read_bytes() for image in (right, wrong)} == before
    check_tables(job_for(a=right))
    assert "No problems found" in sh("sgdisk", "--verify", right)


def test_an_mbr_logical_partition_grows_with_its_container(tmp_path: Path) -> None:
    image = tmp_path / "disk"
    make_image(image, "label: dos\nsize=100MiB, type=83, bootable\ntype=5\ntype=8e\n")
    os.truncate(image, LARGE)
    table = read_table(str(image))
    for step in growth(table, LARGE):
        resize_partition(str(image), step, 512)
    after = read_table(str(image))
    assert [(p.number, p.end) for p in after.partitions][-2:] == [(2, LARGE), (5, LARGE)]
    assert [p.start for p in after.partitions] == [p.start for p in table.partitions]


@pytest.mark.root
@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs"])
def test_a_filesystem_grows_with_its_files(tmp_path: Path, kind: str) -> None:
    image = tmp_path / "disk"
    make_image(image, GPT)
    part = read_table(str(image)).partitions[1]
    content = os.urandom(3 * MIB)
    with loop(image, part.start, part.size) as device:
        sh(f"mkfs.{kind}", "-q", device)
        with mounted(device, tmp_path / "mnt") as folder:
            (folder / "file").write_bytes(content)
    os.truncate(image, LARGE)
    move_backup_gpt(str(image), LARGE, 512)
    (step,) = growth(read_table(str(image)), LARGE)
    resize_partition(str(image), step, 512)
    with loop(image, step.start, step.size) as device:
        assert grow_filesystem(device, kind)
        assert not grow_filesystem(device, kind)  # a second run finds nothing to do
        with mounted(device, tmp_path / "mnt") as folder:
            status = os.statvfs(folder)
            assert status.f_blocks * status.f_frsize > SMALL
            assert (folder / "file").read_bytes() == content


@pytest.mark.root
def test_a_filesystem_with_errors_is_left_alone_and_told(tmp_path: Path) -> None:
    image = tmp_path / "fs"
    image.touch()
    os.truncate(image, 64 * MIB)
    sh("mkfs.ext4", "-q", "-O", "^metadata_csum", image, "32M")
    # An inode that claims another's blocks is nothing that e2fsck -p dares to repair.
    sh("debugfs", "-w", "-R", "set_inode_field <2> block[0] 5", image)
    with loop(image) as device, pytest.raises(CommandError, match="errors that need a person"):
        grow_filesystem(device, "ext4")


def test_other_contents_do_not_grow() -> None:
    assert not grow_filesystem("/dev/null", "swap")


def request_for(path: str, size: int = SMALL) -> AdaptRequest:
    disk = PointDisk(name="disk1", size=size, sector_size=512, chunk_size=1, root="")
    point = Point(
        id="p",
        header=PointHeader(version=1, repository="r", host="h", created=0.0),
        body=PointBody(disks=(disk,), consistency="offline", firmware="bios"),
    )
    target = Disk(id="x", path=path, size=size)
    return AdaptRequest(point=point, targets={"disk1": target}, machine=Machine(firmware="bios"))


def test_a_request_that_makes_no_sense_is_refused() -> None:
    request = request_for("/dev/none")
    wrong = AdaptRequest(point=request.point, targets={"disk9": request.targets["disk1"]}, machine=request.machine)
    with pytest.raises(UsageError, match="disk9"):
        adapt(wrong)
    with pytest.raises(UsageError):
        adapt(AdaptRequest(point=request.point, targets={}, machine=request.machine))


def fake_listing(mountpoint: str = "null") -> FakeRunner:
    listing = f'{{"blockdevices":[{{"path":"/dev/q","type":"disk","size":9,"mountpoints":[{mountpoint}]}}]}}'
    return FakeRunner({("lsblk",): Completed((), 0, listing), ("mount",): Completed((), 32, "", "no")})


def test_a_disk_without_a_system_is_no_error_and_every_step_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapt_run, "TARGET", tmp_path / "target")
    monkeypatch.setattr(adapt_steps, "TARGET", tmp_path / "target")
    events: list[Event] = []
    with use_runner(fake_listing()):
        report = adapt(request_for("/dev/q"), events.append)
    steps = [(e.step, e.number, e.of) for e in events if isinstance(e, StepStarted)]
    run = [step.id for step in adapt_run.STEPS if step.id not in ("adapt.room", "adapt.esp")]
    run = [step for step in run if not step.startswith("adapt.windows")]  # nor is there a Windows
    assert steps == [(name, i, len(run)) for i, name in enumerate(run, 1)]
    assert report.changes == () and "No Linux system" in report.warnings[0]


def test_a_filesystem_that_fails_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapt_run, "TARGET", tmp_path / "target")

    def step(job: Job) -> str:
        raise OSError(117, "Structure needs cleaning", "/etc/fstab")

    broken = adapt_run.Step("adapt.names", "Replace disk names", step)
    monkeypatch.setattr(adapt_run, "to_run", lambda request, only: (broken,))
    with use_runner(fake_listing()), pytest.raises(DeviceError, match=r"Structure needs cleaning: '/etc/fstab'"):
        adapt(request_for("/dev/q"))


def test_a_mounted_disk_is_not_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapt_run, "TARGET", tmp_path / "target")
    fake = fake_listing('"/srv"')
    with use_runner(fake), pytest.raises(RekindleError, match="in use at /srv"):
        adapt(request_for("/dev/q"))
    assert {call[0] for call in fake.calls} <= {"lsblk", "blkid", "udevadm", "sync", "mountpoint"}


@pytest.mark.root
def test_whatever_fails_nothing_stays_mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real root filesystem is mounted, a step in the middle raises; the mount, and those below it, are gone."""
    target = tmp_path / "target"
    monkeypatch.setattr(adapt_run, "TARGET", target)
    monkeypatch.setattr(adapt_steps, "TARGET", target)
    image = tmp_path / "fs"
    image.touch()
    os.truncate(image, 64 * MIB)
    tree = tmp_path / "tree"
    (tree / "etc").mkdir(parents=True)
    (tree / "usr").mkdir()
    (tree / "etc/fstab").write_text("/dev/vda1 / ext4 defaults 0 1\n")
    sh("mkfs.ext4", "-q", "-d", tree, image)

    with loop(image) as device:
        seen: list[bool] = []
        run_real_steps = {"blockdev": Completed((), 0), "partx": Completed((), 0), "udevadm": Completed((), 0)}

        def runner(argv: list[str], **keywords: object) -> Completed:
            if argv[0] in run_real_steps:
                return run_real_steps[argv[0]]
            if argv[0] == "umount" and str(target) in argv:
                seen.append(os.path.ismount(target))
            from recovery.commands import run_real

            return run_real(argv, **keywords)  # type: ignore[arg-type]

        with use_runner(runner), pytest.raises(RekindleError, match="no kernel"):  # type: ignore[arg-type]
            adapt(request_for(device, 64 * MIB))
        assert seen and seen[0]
        assert not os.path.ismount(target)
        assert str(target) not in Path("/proc/self/mounts").read_text()
        with mounted(device, tmp_path / "mnt") as folder:
            assert (folder / "etc/fstab").read_text().startswith("UUID=")
    let_go(image)


@pytest.mark.root
def test_an_unmount_that_fails_never_deletes_what_is_mounted(tmp_path: Path) -> None:
    """umount says "busy" (a program of the host still runs): the folder stays, and so do the files in it."""
    image = tmp_path / "fs"
    image.touch()
    os.truncate(image, 16 * MIB)
    sh("mkfs.ext4", "-q", image)
    place = tmp_path

    def busy(argv: list[str], **keywords: object) -> Completed:
        if argv[0] == "umount":
            return Completed(tuple(argv), 32, "", "target is busy")
        from recovery.commands import run_real

        return run_real(argv, **keywords)  # type: ignore[arg-type]

    with loop(image) as device, use_runner(busy):  # type: ignore[arg-type]
        try:
            with place_to_mount("test") as place:
                sh("mount", device, place)
                (place / "precious").write_text("data")
            assert (place / "precious").read_text() == "data"
        finally:
            sh("umount", place)
            place.rmdir()
    with loop(image) as device, mounted(device, tmp_path / "again") as folder:
        assert (folder / "precious").exists()
