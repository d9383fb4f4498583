"""The disks of one VM by the engine: onto a filesystem that is mounted for the run, and into a directory."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from recovery.capture.pipeline import capture
from recovery.capture.request import CaptureRequest
from recovery.commands import run
from recovery.engine.engine import Engine
from recovery.engine.places import mount_of
from recovery.errors import BusyError, NotFoundError, PlanRefusedError, UnsafeTargetError
from recovery.events import Progress, RunFinished, StepStarted, ignore
from recovery.format.names import pack_name
from recovery.plan.vm import VM_NAME, VmChoices, VmPlan
from recovery.repository.index import SqliteIndex
from recovery.repository.location import open_index, open_store
from recovery.repository.repository import Repository
from recovery.units import MIB
from tests.integration.engine_world import PASSPHRASE, HoldingStore
from tests.support.vm_host import VmHost, make_vm_host

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root and loop devices")]


@dataclass(frozen=True)
class Scene:
    host: VmHost
    location: Path

    def open(self, location: Path | None = None) -> Repository:
        return Repository.open(open_store(str(location or self.location)), PASSPHRASE)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    folder = tmp_path_factory.mktemp("vm")
    host = make_vm_host(folder)
    repository, _ = Repository.create(open_store(str(folder / "repository"), create=True), PASSPHRASE)
    request = CaptureRequest(host="vhost1", disks=(host.disk,), firmware="bios")
    capture(repository, open_index(repository), request, ignore, threading.Event())
    return Scene(host, folder / "repository")


@pytest.fixture
def engine(scene: Scene, tmp_path: Path) -> Iterator[Engine]:
    found = Engine(log_directory=tmp_path / "log", look_inside=False, loops=True)
    found.adopt(scene.open())
    yield found
    found.close()


@contextlib.contextmanager
def stick(folder: Path, *mkfs: str, size: int = 256 * MIB) -> Iterator[str]:
    """A loop device with a filesystem."""
    image = folder / "stick.raw"
    with image.open("wb") as file:
        file.truncate(size)
    run([*mkfs, image])
    device = run(["losetup", "--find", "--show", image]).stdout.strip()
    try:
        yield device
    finally:
        run(["losetup", "--detach", device])
        image.unlink()


@contextlib.contextmanager
def mounted(device: str, folder: Path) -> Iterator[Path]:
    folder.mkdir()
    run(["mount", "-o", "ro", device, folder])
    try:
        yield folder
    finally:
        run(["umount", folder])
        folder.rmdir()


def choices(folder: str, device: str = "", **more: object) -> VmChoices:
    return VmChoices(host="vhost1", point="latest", vm="web", device=device, folder=folder, **more)  # type: ignore[arg-type]


def finish(engine: Engine, plan: VmPlan, typed: str = "") -> RunFinished:
    engine.start(plan.id, {VM_NAME: typed})
    last = list(engine.events())[-1]
    assert isinstance(last, RunFinished)
    return last


def codes(plan: VmPlan) -> set[str]:
    return {problem.code for problem in plan.problems if problem.severity == "error"}


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "vfat"])
def test_onto_a_filesystem_that_is_mounted_for_the_run_only(
    scene: Scene, engine: Engine, tmp_path: Path, kind: str
) -> None:
    if kind not in Path("/proc/filesystems").read_text().split() or shutil.which(f"mkfs.{kind}") is None:
        pytest.skip(f"this kernel or machine has no {kind}")
    mkfs = (f"mkfs.{kind}", *(("-n",) if kind == "vfat" else ("-q", "-L")), "RESCUE")
    with stick(tmp_path, *mkfs, size=512 * MIB) as device:
        (place,) = (place for place in engine.places() if place.device == device)
        assert (place.label, place.unavailable, place.path) == ("RESCUE", "", "")
        assert place.free is not None
        assert 100 * MIB < place.free < 512 * MIB
        plan = engine.plan_vm(choices("vms/web", device))
        assert plan.allowed, plan.problems
        assert [file.name for file in plan.files] == ["web-vda.qcow2", "web-vdb.raw"]
        assert mount_of(Path("/run/rekindle/places", Path(device).name)) == mount_of(Path("/run"))
        assert finish(engine, plan).error is None
        state = engine.state()
        assert state.vm_plan == plan
        assert state.report is not None
        assert state.report.vm is not None
        assert [file.path for file in state.report.vm.files] == ["/vms/web/web-vda.qcow2", "/vms/web/web-vdb.raw"]
        assert state.report.vm.definition == "/vms/web/web.xml"
        assert state.report.go_on == ""
        events = list(engine.events())
        assert [e.step for e in events if isinstance(e, StepStarted)] == [step.id for step in plan.steps]
        done = {e.disk: (e.done, e.total) for e in events if isinstance(e, Progress)}
        assert done == {file.target: (file.size, file.size) for file in plan.files}
        with mounted(device, tmp_path / "look") as top:
            assert sorted(path.name for path in (top / "vms/web").iterdir()) == [
                "web-vda.qcow2", "web-vdb.raw", "web.xml",
            ]  # fmt: skip
            assert (top / "vms/web/web-vda.qcow2").stat().st_mode & 0o077 == 0
            assert (top / "vms/web/web-vda.qcow2").read_bytes() == scene.host.web
            assert (top / "vms/web/web-vdb.raw").read_bytes()[: len(scene.host.log)] == scene.host.log
            assert "<name>web</name>" in (top / "vms/web/web.xml").read_text()
        again = engine.plan_vm(choices("vms/web", device))
        assert codes(again) == {"file-exists"}
        with pytest.raises(PlanRefusedError, match="is there already"):
            engine.start(again.id, {})


def test_what_is_there_is_replaced_only_by_name_and_stays_when_it_fails(engine: Engine, tmp_path: Path) -> None:
    into = tmp_path / "out"
    into.mkdir()
    (into / "web-vdb.raw").write_bytes(b"mine")
    assert codes(engine.plan_vm(choices(str(into)))) == {"file-exists"}
    plan = engine.plan_vm(choices(str(into), overwrite=True))
    assert plan.allowed
    assert plan.overwritten == ("web-vdb.raw",)
    for typed in ("", "db"):
        with pytest.raises(UnsafeTargetError, match="was not confirmed"):
            engine.start(plan.id, {VM_NAME: typed})
    assert engine.state().phase == "idle"
    (into / "web-vda.qcow2").write_bytes(b"came later")
    last = finish(engine, plan, "web")
    assert last.error is not None
    assert "has appeared" in last.error.message
    assert (into / "web-vdb.raw").read_bytes() == b"mine"
    (into / "web-vda.qcow2").unlink()
    assert finish(engine, engine.plan_vm(choices(str(into), overwrite=True)), "web").error is None
    assert (into / "web-vdb.raw").stat().st_size == 8 * MIB


def test_stopped_within_two_seconds_and_nothing_is_left(scene: Scene, engine: Engine, tmp_path: Path) -> None:
    repository = scene.open()
    held = HoldingStore(repository.store)
    held.release.set()
    repository.store = held
    engine.adopt(repository)
    with stick(tmp_path, "mkfs.ext4", "-q") as device:
        plan = engine.plan_vm(choices("vms", device))
        held.release.clear()
        held.reached.clear()
        engine.start(plan.id, {})
        assert held.reached.wait(30)
        folder = Path("/run/rekindle/places", Path(device).name, "vms")
        assert [path.name for path in folder.iterdir()] == [".web-vda.qcow2.part"]
        with pytest.raises(BusyError):
            engine.places()
        began = time.monotonic()
        engine.cancel()
        while folder.exists():  # the store still hangs, for a minute: names are gone all the same
            assert time.monotonic() - began < 2.0
            time.sleep(0.02)
        held.release.set()
        last = list(engine.events())[-1]
        assert isinstance(last, RunFinished)
        assert last.error is not None
        assert last.error.exit_code == 130
        assert engine.state().phase == "cancelled"
        with mounted(device, tmp_path / "look") as top:
            assert [path.name for path in top.iterdir()] == ["lost+found"]
        report = engine.state().report
        assert report is not None
        assert report.vm is not None
        assert report.vm.files == ()
        assert f"--onto {device} --into vms" in report.go_on


def test_what_does_not_fit_or_is_not_there_is_told_before_the_first_write(engine: Engine, tmp_path: Path) -> None:
    with stick(tmp_path, "mkfs.ext4", "-q", size=16 * MIB) as device:
        plan = engine.plan_vm(choices("", device))
        assert codes(plan) == {"no-room"}
    with stick(tmp_path, "mkfs.ext4", "-q") as device:
        plan = engine.plan_vm(choices("", device))
        run(["mkfs.ext4", "-q", "-F", "-L", "another", device])
        last = finish(engine, plan)
        assert last.error is not None
        assert "is not the filesystem that was chosen" in last.error.message
        (tmp_path / "m").mkdir()
        run(["mount", "-o", "ro", device, tmp_path / "m"])
        try:
            (place,) = (place for place in engine.places() if place.device == device)
            assert "mounted read-only" in place.unavailable
            assert codes(engine.plan_vm(choices("", device))) == {"place-unavailable"}
        finally:
            run(["umount", tmp_path / "m"])
        with pytest.raises(NotFoundError, match="no filesystem on"):
            engine.plan_vm(choices("", "/dev/nothing"))
    with pytest.raises(NotFoundError, match="is not there"):
        engine.plan_vm(choices(str(tmp_path / "nowhere")))
    with pytest.raises(NotFoundError, match="no disk 'vdz'"):
        engine.plan_vm(choices(str(tmp_path), disks=("vdz",)))


def test_nothing_goes_into_a_repository_or_out_of_the_filesystem(scene: Scene, engine: Engine, tmp_path: Path) -> None:
    assert codes(engine.plan_vm(choices(str(scene.location / "packs")))) == {"place-unavailable"}
    with stick(tmp_path, "mkfs.ext4", "-q") as device:
        (tmp_path / "rw").mkdir()
        run(["mount", device, tmp_path / "rw"])
        (tmp_path / "rw/repo.json").write_text("{}")
        (tmp_path / "rw/out").symlink_to(tmp_path)
        run(["umount", tmp_path / "rw"])
        (place,) = (place for place in engine.places() if place.device == device)
        assert "holds a repository" in place.unavailable
        run(["mount", device, tmp_path / "rw"])
        (tmp_path / "rw/repo.json").unlink()
        run(["umount", tmp_path / "rw"])
        for folder in ("out", "../..", "a/../.."):
            with pytest.raises(Exception, match="leads out of the filesystem"):
                engine.plan_vm(choices(folder, device))


def test_a_filesystem_in_luks_is_listed_with_what_to_do(engine: Engine, tmp_path: Path) -> None:
    with stick(tmp_path, "mkfs.ext4", "-q") as device:
        run(["cryptsetup", "luksFormat", "-q", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", device],
            input=b"secret")  # fmt: skip
        (place,) = (place for place in engine.places() if place.device == device)
        assert "cryptsetup open" in place.unavailable


def test_damage_stops_it_or_becomes_zeros_that_are_listed(scene: Scene, engine: Engine, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(scene.location, copy)
    repository = scene.open(copy)
    engine.adopt(repository)
    into = tmp_path / "out"
    into.mkdir()
    whole = engine.plan_vm(choices(str(into)))
    assert whole.allowed
    found = engine._found
    assert found is not None
    where = found.disks[0].where
    # A byte in the middle of the guest's image.
    piece = where.pieces[0]
    source = found.view.disk(piece.disk)
    entry = source.map.get((piece.offset + 3 * MIB) // source.map.chunk_size)
    file = copy / pack_name(entry.pack.hex())  # type: ignore[union-attr]
    data = bytearray(file.read_bytes())
    data[entry.offset + entry.length // 2] ^= 1  # type: ignore[union-attr]
    file.chmod(0o600)
    file.write_bytes(data)
    last = finish(engine, whole)
    assert last.error is not None
    assert last.error.kind == "IntegrityError"
    assert list(into.iterdir()) == []
    plan = engine.plan_vm(choices(str(into), skip_damaged=True))
    assert finish(engine, plan).error is None
    report = engine.state().report
    assert report is not None
    assert report.damaged
    assert report.vm is not None
    ((offset, length),) = report.vm.files[0].damaged
    got = (into / "web-vda.qcow2").read_bytes()
    assert got[offset : offset + length] == bytes(length)
    assert got[:offset] == scene.host.web[:offset]
    assert got[offset + length :] == scene.host.web[offset + length :]
    assert any("were in no copy" in warning for warning in report.warnings)


def test_content_that_only_another_vm_needs_may_be_missing(scene: Scene, engine: Engine, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(scene.location, copy)
    before = set(copy.glob("packs/*/*"))
    # The VM db works on: what is new lies in packs of its own.
    disk = tmp_path / "host.raw"
    run(["cp", "--sparse=always", scene.host.disk, disk])
    with disk.open("r+b") as file:
        file.seek(file.read().index(scene.host.db[:MIB]))
        file.write(os.urandom(MIB))
    repository = scene.open(copy)
    request = CaptureRequest(host="vhost1", disks=(disk,), firmware="bios")
    index = SqliteIndex(tmp_path / "index")  # the copy has the same identifier, and would share the user's
    index.refresh(repository.store)
    capture(repository, index, request, ignore, threading.Event())
    engine.adopt(repository)
    other = VmChoices(host="vhost1", point="latest", vm="db", folder=str(tmp_path))
    assert engine.plan_vm(other).allowed
    new = set(copy.glob("packs/*/*")) - before
    assert new
    for pack in new:
        os.truncate(pack, pack.stat().st_size // 2)
    engine.adopt(scene.open(copy))
    assert codes(engine.plan_vm(other)) == {"pack-truncated"}
    plan = engine.plan_vm(choices(str(tmp_path), disks=("vdb",)))
    assert plan.allowed, plan.problems
    assert finish(engine, plan).error is None
    assert (tmp_path / "web-vdb.raw").read_bytes()[: len(scene.host.log)] == scene.host.log
