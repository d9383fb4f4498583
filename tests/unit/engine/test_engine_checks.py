"""The last look at the targets, the checks that ask the machine, and the words that must be typed."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from recovery.commands import Completed, FakeRunner, use_runner
from recovery.engine import preflight, report, targets
from recovery.engine.confirm import check_allowed, check_confirmations
from recovery.errors import PlanRefusedError, UnsafeTargetError
from recovery.layout import Content
from recovery.machine.model import Disk, Machine
from recovery.plan.build import build_plan
from recovery.plan.model import RestorePlan
from recovery.units import GIB, MIB
from tests.unit.plan.hosts import all_machines, choices, disk, point, recorded

SMALL = recorded("small_server")


def small_plan(target: str = "/dev/sdb") -> RestorePlan:
    return build_plan(point(), SMALL, choices(adapt=False, disk1=target))


def with_disk(machine: Machine, index: int, **changes: Any) -> Machine:
    disks = list(machine.disks)
    disks[index] = msgspec.structs.replace(disks[index], **changes)
    return msgspec.structs.replace(machine, disks=tuple(disks))


def test_the_same_machine_is_accepted() -> None:
    targets.check_unchanged(small_plan(), SMALL)
    # What happens on other disks does not matter, nor do reasons for people.
    targets.check_unchanged(small_plan(), with_disk(SMALL, 0, busy=("It is mounted.",), serial="X"))
    targets.check_unchanged(small_plan("/dev/sda"), with_disk(SMALL, 0, systems=("'pve1'",)))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"id": "wwn:1111111111111111"}, "not there any more"),
        ({"serial": "S45PNA0M509999"}, "not the disk that was confirmed"),
        ({"size": 480103981056 + 4096}, "not the disk that was confirmed"),
        ({"path": "/dev/sdq"}, "not the disk that was confirmed"),
        ({"content": Content(kind="ext4", uuid="new")}, "has changed since"),
        ({"table": SMALL.disks[0].table}, "has changed since"),
        ({"busy": ("/dev/sdb1 is mounted at /srv.",)}, "/dev/sdb1 is mounted at /srv"),
        ({"read_only": True}, "read-only"),
        ({"repository": "f00d"}, "must not be written"),
    ],
)
def test_whatever_changed_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UnsafeTargetError, match=words) as caught:
        targets.check_unchanged(small_plan(), with_disk(SMALL, 1, **changes))
    assert "Nothing was written" in caught.value.message


def test_settling_never_spoils_a_finished_restore() -> None:
    refuse = FakeRunner({("blockdev",): Completed((), 1, "", "busy")})
    with use_runner(refuse):
        assert "did not read /dev/sdb anew" in targets.settle(small_plan())

    def missing(argv: object, **_: object) -> Completed:
        from recovery.errors import CommandError

        raise CommandError("not installed")

    with use_runner(missing):
        assert "did not read" in targets.settle(small_plan())


def lsblk_answer(*children: dict[str, Any]) -> Completed:
    node = {"path": "/dev/sdb", "type": "disk", "size": 1, "children": list(children)}
    return Completed((), 0, json.dumps({"blockdevices": [node]}))


def test_stacks_on_a_target_are_stopped_or_it_is_refused() -> None:
    from recovery.errors import BusyError

    array = {"path": "/dev/md127", "type": "raid1", "size": 1}
    calls: list[tuple[str, ...]] = []

    def run(argv: Any, **_: Any) -> Completed:
        calls.append(tuple(argv))
        stopped = any(call[:2] == ("mdadm", "--stop") for call in calls)
        return lsblk_answer(*([] if stopped else [array])) if argv[0] == "lsblk" else Completed(tuple(argv), 0)

    with use_runner(run):
        (sentence,) = targets.let_go(small_plan())
    assert "/dev/md127" in sentence
    assert ("mdadm", "--stop", "/dev/md127") in calls
    with use_runner(FakeRunner({("lsblk",): lsblk_answer(array)})), pytest.raises(BusyError, match="/dev/md127"):
        targets.let_go(small_plan())
    with use_runner(FakeRunner({("lsblk",): lsblk_answer()})):
        assert targets.let_go(small_plan()) == []


def test_confirmations_are_exact() -> None:
    plan = small_plan()
    target = plan.assignments[0].target
    check_confirmations(plan, {target.id: target.serial})
    check_confirmations(plan, {target.id: f" {target.serial}\n"})
    for typed in ("", target.serial.lower(), target.serial[:-1], str(target.size), "y", "é"):
        with pytest.raises(UnsafeTargetError, match="serial number"):
            check_confirmations(plan, {target.id: typed})
    bare = with_disk(SMALL, 1, serial="")
    plan = build_plan(point(), bare, choices(adapt=False, disk1="/dev/sdb"))
    check_confirmations(plan, {target.id: "480103981056"})
    with pytest.raises(UnsafeTargetError, match="size in bytes"):
        check_confirmations(plan, {target.id: ""})


def test_every_refused_plan_is_refused() -> None:
    for machine in all_machines().values():
        for candidate in machine.disks:
            plan = build_plan(point(), machine, choices(disk1=candidate.id))
            if not plan.allowed:
                with pytest.raises(PlanRefusedError, match="Nothing was written"):
                    check_allowed(plan)


def file_plan(folder: Path, **facts: Any) -> RestorePlan:
    image = Disk(id=f"path:{folder}/a.raw", path=f"{folder}/a.raw", size=100 * GIB, bus="file")
    return build_plan(point(disk(**facts)), Machine(disks=(image,)), choices(adapt=False, disk1=image.path))


def test_room_for_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage(NamedTuple):
        free: int

    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10 * GIB))
    assert [p.code for p in preflight.check_room(file_plan(tmp_path, used=11 * GIB))] == ["no-room"]
    assert list(preflight.check_room(file_plan(tmp_path, used=10 * GIB))) == []


def test_memory_that_is_free(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text(f"MemTotal: 9999999 kB\nMemAvailable: {200 * 1024} kB\n")
    assert [p.code for p in preflight.check_memory(tmp_path)] == ["memory-low"]
    (tmp_path / "meminfo").write_text(f"MemAvailable: {300 * 1024} kB\n")
    assert list(preflight.check_memory(tmp_path)) == []


def test_disks_need_rights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)
    assert [p.code for p in preflight.check_rights(small_plan())] == ["no-write-access"]
    monkeypatch.setattr("os.access", lambda *_: True)
    assert list(preflight.check_rights(small_plan())) == []


def test_the_log_goes_only_to_sticks_that_may_be_written() -> None:
    full = recorded("full_of_data")
    assert list(report._candidates(full, set())) == []
    content = Content(kind="vfat", uuid="1234-ABCD")
    stick = Disk(id="serial:Stick:1", path="/dev/sdz", size=8 * GIB, bus="usb", removable=True, content=content)
    machine = msgspec.structs.replace(full, disks=(*full.disks, stick))
    assert list(report._candidates(machine, set())) == ["/dev/sdz"]
    assert list(report._candidates(machine, {stick.id})) == []


def test_a_report_that_cannot_be_written_spoils_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from recovery.engine.api import Report

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    report.write(Report(host="h", point="p", point_created=0, started=0, finished=MIB), None, tmp_path)
