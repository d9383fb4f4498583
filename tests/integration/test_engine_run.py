"""The engine in process, with a real repository and real targets."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from recovery.commands import run
from recovery.engine.api import Access
from recovery.engine.engine import Engine
from recovery.errors import (
    AccessError,
    BusyError,
    NotFoundError,
    PlanRefusedError,
    UnsafeTargetError,
    UsageError,
)
from recovery.events import Progress, RunFinished, StepFinished, StepStarted
from recovery.format.names import pack_name
from recovery.plan.model import Choices, RestorePlan
from recovery.units import MIB
from tests.integration.engine_world import HOST, PASSPHRASE, HoldingStore, World, make_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    found = Engine(log_directory=tmp_path / "log", look_inside=False, loops=True)
    yield found
    found.close()


def files(tmp_path: Path, *names: str) -> Choices:
    targets = {name: str(tmp_path / f"{name}.raw") for name in names or ("disk1", "disk2")}
    return Choices(host=HOST, point="latest", targets=targets, adapt=False)


def confirmed(plan: RestorePlan) -> dict[str, str]:
    return {a.target.id: a.target.confirmation for a in plan.assignments}


def test_a_whole_restore_to_files(world: World, engine: Engine, tmp_path: Path) -> None:
    info = engine.connect(Access(path=str(world.location), secret=PASSPHRASE))
    assert info.hosts == (HOST,)
    plan = engine.plan(files(tmp_path))
    assert plan.allowed
    assert plan.choices.point == world.point.id
    engine.start(plan.id, confirmed(plan))
    events = list(engine.events())
    assert isinstance(events[-1], RunFinished)
    assert events[-1].error is None
    started = [(e.step, e.number, e.of) for e in events if isinstance(e, StepStarted)]
    assert started == [("open", 1, 4), ("stream:disk1", 2, 4), ("stream:disk2", 3, 4), ("prove", 4, 4)]
    assert [e.step for e in events if isinstance(e, StepFinished)] == [step for step, _, _ in started]
    assert {e.disk for e in events if isinstance(e, Progress)} == {"disk1", "disk2"}
    state = engine.state()
    assert state.phase == "finished"
    assert state.report is not None
    for disk in state.report.disks:
        target = tmp_path / f"{disk.disk}.raw"
        assert target.read_bytes() == world.images[disk.disk].read_bytes()
        assert disk.verified
        assert disk.logical == disk.written + disk.zeroed + disk.skipped == target.stat().st_size
    saved = msgspec.json.decode((tmp_path / "log/report.json").read_bytes())
    assert saved["report"]["host"] == HOST
    assert saved["error"] is None
    assert (tmp_path / "log/engine.log").stat().st_mode & 0o777 == 0o600
    kept = Path(engine.save_log(str(tmp_path / "kept")))
    assert sorted(f.name for f in kept.iterdir()) == ["engine.log", "report.json"]


def test_the_recovery_key_opens_and_no_secret_is_logged(world: World, engine: Engine, tmp_path: Path) -> None:
    engine.connect(Access(path=str(world.location), secret=world.recovery_key))
    with pytest.raises(AccessError):
        engine.connect(Access(path=str(world.location), secret="wrong-" + PASSPHRASE))
    engine.connect(Access(path=str(world.location), secret=PASSPHRASE, user="me", password="pass-of-me"))
    plan = engine.plan(files(tmp_path))
    engine.start(plan.id, confirmed(plan))
    engine.wait(60)
    import logging

    logging.getLogger("rekindle.test").info("a careless line with %s in it", PASSPHRASE)
    text = (tmp_path / "log/engine.log").read_text() + (tmp_path / "log/report.json").read_text()
    assert "a careless line with *** in it" in text
    for secret in (PASSPHRASE, world.recovery_key, "pass-of-me", "wrong-" + PASSPHRASE):
        assert secret not in text
        assert all(secret not in line for line in engine.log(5000))


def test_access_that_makes_no_sense(world: World, engine: Engine, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No repository is open"):
        engine.points(HOST)
    for access in (Access(), Access(path="/x", url="https://x", secret="s"), Access(path=str(world.location))):
        with pytest.raises(UsageError):
            engine.connect(access)
    with pytest.raises(UsageError, match="who you are"):
        engine.connect(Access(url="https://localhost:1", secret="s"))
    with pytest.raises(NotFoundError):
        engine.connect(Access(path=str(tmp_path / "nowhere"), secret="s"))
    with pytest.raises(NotFoundError, match="no Rekindle repository"):
        engine.connect(Access(path=str(tmp_path), secret="s"))


def test_nothing_is_written_without_the_right_words(world: World, engine: Engine, tmp_path: Path) -> None:
    engine.adopt(world.open())
    plan = engine.plan(files(tmp_path, "disk1"))
    (target,) = (a.target for a in plan.assignments)
    for typed in ({}, {target.id: ""}, {target.id: "yes"}, {target.path: target.confirmation}):
        with pytest.raises(UnsafeTargetError, match="not confirmed"):
            engine.start(plan.id, typed)
    with pytest.raises(PlanRefusedError, match="not the plan"):
        engine.start("0" * 64, confirmed(plan))
    other = engine.plan(files(tmp_path, "disk2"))
    with pytest.raises(PlanRefusedError, match="not the plan"):
        engine.start(plan.id, confirmed(plan))
    assert engine.state().phase == "idle"
    assert not Path(target.path).exists()
    engine.start(other.id, confirmed(other))
    engine.wait(60)
    with pytest.raises(PlanRefusedError, match="not the plan"):
        engine.start(other.id, confirmed(other))


def test_a_refused_plan_does_not_run(world: World, engine: Engine, tmp_path: Path) -> None:
    engine.adopt(world.open())
    same = str(tmp_path / "one.raw")
    plan = engine.plan(Choices(host=HOST, point="latest", targets={"disk1": same, "disk2": same}, adapt=False))
    assert not plan.allowed
    with pytest.raises(PlanRefusedError, match="same target"):
        engine.start(plan.id, confirmed(plan))
    assert not Path(same).exists()
    with pytest.raises(NotFoundError):
        engine.plan(Choices(host="nobody", point="latest", targets={}))
    good = engine.plan(files(tmp_path, "disk1"))
    with pytest.raises(NotFoundError):
        engine.plan(Choices(host=HOST, point="ffff", targets={}))
    with pytest.raises(PlanRefusedError, match="not the plan"):  # the operator sees an error, not that plan
        engine.start(good.id, confirmed(good))


def test_an_image_file_never_goes_over_a_backup_and_what_it_overwrites_is_said(
    world: World, engine: Engine, tmp_path: Path
) -> None:
    engine.adopt(world.open())
    for name in ("repo.json", "packs/new.raw"):
        plan = engine.plan(
            Choices(host=HOST, point="latest", targets={"disk1": str(world.location / name)}, adapt=False)
        )
        assert "target-holds-repository" in {p.code for p in plan.problems if p.severity == "error"}
    # Nor over one of another repository, which may be the one that a server here serves.
    (tmp_path / "served/packs").mkdir(parents=True)
    (tmp_path / "served/repo.json").write_text("{}")
    target = str(tmp_path / "served/packs/new.raw")
    plan = engine.plan(Choices(host=HOST, point="latest", targets={"disk1": target}, adapt=False))
    assert "target-holds-repository" in {p.code for p in plan.problems if p.severity == "error"}
    (tmp_path / "disk1.raw").write_text("a letter")
    plan = engine.plan(files(tmp_path, "disk1"))
    assert "target-has-data" in {p.code for p in plan.problems}
    assert plan.allowed


def test_a_target_that_changed_since_the_plan_is_left_alone(world: World, engine: Engine, tmp_path: Path) -> None:
    engine.adopt(world.open())
    plan = engine.plan(files(tmp_path, "disk1"))
    target = Path(plan.assignments[0].target.path)
    run(["mkfs.ext4", "-q", "-L", "precious", target, "24M"])
    before = target.read_bytes()
    engine.start(plan.id, confirmed(plan))
    last = list(engine.events())[-1]
    assert isinstance(last, RunFinished)
    assert last.error is not None
    assert last.error.kind == "UnsafeTargetError"
    assert engine.state().phase == "failed"
    assert target.read_bytes() == before
    again = engine.plan(files(tmp_path, "disk1"))
    assert "precious" in " ".join(again.assignments[0].losses)
    engine.start(again.id, confirmed(again))
    assert list(engine.events())[-1].error is None  # type: ignore[union-attr]
    assert target.read_bytes() == world.images["disk1"].read_bytes()


def test_cancel_in_the_middle_and_complete_it_afterwards(world: World, engine: Engine, tmp_path: Path) -> None:
    repository = world.open()
    held = HoldingStore(repository.store)
    repository.store = held
    engine.adopt(repository)
    plan = engine.plan(files(tmp_path))
    engine.start(plan.id, confirmed(plan))
    assert held.reached.wait(30)
    state = engine.state()
    assert (state.phase, state.step) == ("running", "stream:disk1")
    # A look at the machine does not touch the disks now.
    probed = len([line for line in engine.log(5000) if "lsblk" in line])
    assert engine.machine(refresh=True).disks
    assert engine.local_repositories() == []
    assert len([line for line in engine.log(5000) if "lsblk" in line]) == probed
    for refused in (
        lambda: engine.plan(files(tmp_path)),
        lambda: engine.start(plan.id, confirmed(plan)),
        engine.reboot,
        lambda: engine.connect(Access(path=str(world.location), secret=PASSPHRASE)),
    ):
        with pytest.raises(BusyError):
            refused()
    engine.cancel()
    held.release.set()
    last = list(engine.events())[-1]
    assert isinstance(last, RunFinished)
    assert last.error is not None
    assert last.error.exit_code == 130
    assert engine.state().phase == "cancelled"
    assert not (tmp_path / "disk2.raw").exists()
    plan = engine.plan(files(tmp_path))
    engine.start(plan.id, confirmed(plan))
    assert list(engine.events())[-1].error is None  # type: ignore[union-attr]
    assert (tmp_path / "disk1.raw").read_bytes() == world.images["disk1"].read_bytes()


@pytest.mark.parametrize("code", ["pack-missing", "pack-truncated", "map-damaged"])
def test_damage_is_found_before_the_first_write(world: World, engine: Engine, tmp_path: Path, code: str) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(world.location, copy)
    repository = world.open()
    if code == "map-damaged":
        victim = copy / "maps" / world.point.header.maps[0].map
        data = bytearray(victim.read_bytes())
        data[len(data) // 2] ^= 1
        victim.write_bytes(data)
    else:
        (pack, *_) = repository.chunk_map(world.point, "disk1").used_packs()
        victim = copy / pack_name(pack.hex())
        if code == "pack-missing":
            victim.unlink()
        else:
            victim.write_bytes(victim.read_bytes()[: 64 * 1024])
    engine.connect(Access(path=str(copy), secret=PASSPHRASE))
    plan = engine.plan(files(tmp_path, "disk1"))
    assert code in {p.code for p in plan.problems if p.severity == "error"}
    assert not plan.allowed
    assert not (tmp_path / "disk1.raw").exists()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root and loop devices")
def test_onto_a_block_device_with_data_on_it(world: World, engine: Engine, tmp_path: Path) -> None:
    backing = tmp_path / "disk.img"
    with backing.open("wb") as file:
        file.truncate(32 * MIB)
    run(["mkfs.ext4", "-q", "-L", "old", backing])
    loop = run(["losetup", "--find", "--show", backing]).stdout.strip()
    try:
        engine.adopt(world.open())
        chosen = Choices(host=HOST, point="latest", targets={"disk1": loop}, adapt=False)
        mountpoint = tmp_path / "mnt"
        mountpoint.mkdir()
        run(["mount", "-o", "ro", loop, mountpoint])
        try:
            busy = engine.plan(chosen)
            assert "target-busy" in {p.code for p in busy.problems}
            assert str(mountpoint) in str([p.why for p in busy.problems])
        finally:
            run(["umount", mountpoint])
        plan = engine.plan(chosen)
        assert [p.code for p in plan.problems if p.severity == "error"] == []
        assert "'old'" in plan.assignments[0].losses[0]
        assert [step.id for step in plan.steps] == ["open", "stream:disk1", "settle", "prove"]
        engine.start(plan.id, {plan.assignments[0].target.id: str(32 * MIB)})
        last = list(engine.events())[-1]
        assert isinstance(last, RunFinished)
        assert last.error is None
    finally:
        run(["losetup", "-d", loop])
    source = world.images["disk1"].read_bytes()
    assert backing.read_bytes()[: len(source)] == source


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root and loop devices")
def test_all_targets_are_held_from_the_start_and_none_is_written_when_one_is_held_by_others(
    world: World, engine: Engine, tmp_path: Path
) -> None:
    """The second disk is written hours after the first: whoever wants it meanwhile is refused, whoever has it already
    is found before the first write."""
    loops = []
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(b"old" * 11 * MIB)
        loops.append(run(["losetup", "--find", "--show", tmp_path / name]).stdout.strip())
    try:
        repository = world.open()
        held = HoldingStore(repository.store)
        repository.store = held
        engine.adopt(repository)
        chosen = Choices(
            host=HOST, point="latest", targets=dict(zip(("disk1", "disk2"), loops, strict=True)), adapt=False
        )
        holder = os.open(loops[1], os.O_RDONLY | os.O_EXCL)  # as a ZFS pool does, which lsblk does not show
        try:
            plan = engine.plan(chosen)
            engine.start(plan.id, confirmed(plan))
            last = list(engine.events())[-1]
        finally:
            os.close(holder)
        assert isinstance(last, RunFinished)
        assert last.error is not None
        assert last.error.kind == "BusyError"
        assert (tmp_path / "a").read_bytes() == b"old" * 11 * MIB

        plan = engine.plan(chosen)
        engine.start(plan.id, confirmed(plan))
        assert held.reached.wait(30)
        assert engine.state().step == "stream:disk1"
        for device in loops:
            with pytest.raises(OSError, match="busy"):
                os.close(os.open(device, os.O_RDONLY | os.O_EXCL))
        held.release.set()
        last = list(engine.events())[-1]
        assert isinstance(last, RunFinished)
        assert last.error is None
        for device in loops:
            os.close(os.open(device, os.O_RDONLY | os.O_EXCL))
    finally:
        for device in loops:
            run(["losetup", "-d", device])
    for name, disk in (("a", "disk1"), ("b", "disk2")):
        source = world.images[disk].read_bytes()
        assert (tmp_path / name).read_bytes()[: len(source)] == source
