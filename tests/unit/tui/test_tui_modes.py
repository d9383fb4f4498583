"""Every task of the first screen by keys: what is chosen beforehand, what the engine is asked, what is refused."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from recovery.engine.api import Unattended
from recovery.layout import Content, Partition, PartitionTable
from recovery.plan.model import Choices, RestorePlan
from recovery.tui.screens import network as network_screen
from recovery.tui.screens import task as task_screen
from recovery.tui.screens.repair import RepairScreen, copies
from recovery.units import GIB, MIB
from tests.unit.tui.console import Console, console, run
from tests.unit.tui.fake_engine import FakeEngine
from tests.unit.tui.fake_world import BLANK, HOST, MACHINE, NO_SERIAL, USED, make_point, with_address


def choices_of(c: Console) -> Choices:
    plan = c.app.session.plan
    assert isinstance(plan, RestorePlan)
    return plan.choices


def test_the_list_of_tasks_says_what_they_do() -> None:
    async def test() -> None:
        async with console(FakeEngine(address=True), task="") as c:
            await c.on("Task")
            await c.shows("> Restore a host")
            await c.shows("Supermicro X11, UEFI, 64.0 GiB of memory, 4 disks")
            await c.press("down", "down", "down")
            await c.shows("Each disk is compared with the point")
            await c.press("escape")
            await c.on("Task")  # there is nothing before
            await c.press("up", "up", "up", "enter")
            await c.on("Repository")
            await c.press("escape")
            await c.on("Network")
            await c.press("escape")
            await c.on("Task")

    run(test)


def test_some_disks_nothing_is_chosen_and_the_system_is_left_alone() -> None:
    async def test() -> None:
        engine = FakeEngine(address=True, disks=2)
        async with console(engine, task="some") as c:
            await c.sign_in()
            await c.press("enter")
            await c.on("Point")
            await c.press("enter")
            await c.on("Target disks")
            await c.shows("[ ] Make it boot here")
            await c.until(lambda: c.text.count("not restored") == 2, "two disks that are not restored")
            c.app.screen.query_one("#continue").focus()
            await c.press("enter")
            await c.shows("No disk has a target")
            await c.press("enter")
            c.app.screen.query_one("#sources").focus()
            await c.press("down", "enter", "enter")  # disk2, onto the disk that is suggested for it
            await c.until(lambda: c.app.session.targets == {"disk2": USED.id}, "the choice")
            c.app.screen.query_one("#continue").focus()
            await c.press("enter")
            await c.on("Plan")
            await c.shows("is possible")
            expected = Choices(host=HOST, point=make_point(4).id, targets={"disk2": USED.id}, adapt=False, grow=False)
            assert choices_of(c) == expected

    run(test)


def test_roll_back_takes_the_very_disk_that_was_captured_and_no_other() -> None:
    async def test() -> None:
        engine = FakeEngine(address=True, disks=2)
        body = engine.all_points[-1].body
        own = msgspec.structs.replace(body.disks[1], serial=USED.serial, model=USED.model)
        body = msgspec.structs.replace(body, disks=(body.disks[0], own))
        engine.all_points[-1] = msgspec.structs.replace(engine.all_points[-1], body=body)
        async with console(engine, task="rollback") as c:
            await c.sign_in()
            await c.press("enter")
            await c.on("Point")
            await c.press("enter")
            await c.on("Target disks")
            await c.until(lambda: c.app.session.targets == {"disk2": USED.id}, "its own disk only")
            c.app.screen.query_one("#continue").focus()
            await c.press("enter")
            await c.on("Plan")
            await c.shows("only what differs")
            assert choices_of(c).compare
            assert not choices_of(c).adapt

    run(test)


def test_repair_needs_no_repository() -> None:
    async def test() -> None:
        engine = FakeEngine()
        async with console(engine, task="repair") as c:
            await c.on("Repair boot")
            await c.shows("[x] sda")
            await c.shows("[ ] nvme0n1")
            await c.shows(" -  sdb")
            c.app.screen.query_one("#continue").focus()
            await c.press("enter")
            await c.on("Plan")
            await c.shows("The repair is possible, 1 warning")
            assert ("plan_repair", (USED.id,)) in engine.calls
            assert "step" not in c.text.splitlines()[0]
            await c.press("enter")
            await c.on("Confirm")
            await c.shows("These disks will be changed")
            assert "overwritten" not in c.text
            await c.type(USED.serial)
            await c.press("enter")
            await c.shows("[>Back<]")
            await c.press("left")
            await c.shows("[>Repair now<]")
            engine.hold.clear()
            await c.press("enter")
            engine.hold.set()
            await c.on("Result")
            await c.shows("The repair is complete")
            assert "restored" not in c.text.split("Changed so")[0]
            assert not [call for call in engine.calls if call[0] == "connect"]

    run(test)


def test_of_two_copies_of_a_host_none_is_chosen_for_a_repair() -> None:
    async def test() -> None:
        engine = FakeEngine(address=True)
        content = Content(kind="ext4", uuid="2f0c")
        part = Partition(number=1, start=MIB, size=GIB, content=content)
        one, other = (
            msgspec.structs.replace(
                USED, id=f"serial:{name}", path=f"/dev/{name}", serial=name, systems=("'hv1' (Debian 13)",),
                table=PartitionTable(kind="gpt", partitions=(part,)),
            )
            for name in ("sdx", "sdy")
        )  # fmt: skip
        engine.machine_now = msgspec.structs.replace(engine.machine_now, disks=(BLANK, one, other))
        assert copies([BLANK, one, other]) == [one, other]
        for kind, same in (("linux_raid_member", False), ("vfat", False), ("LVM2_member", True)):
            held = msgspec.structs.replace(content, kind=kind)
            pair = [msgspec.structs.replace(disk, table=PartitionTable(), content=held) for disk in (one, other)]
            assert copies(pair) == (pair if same else [])
        async with console(engine, task="repair") as c:
            await c.on("Repair boot")
            await c.shows("[ ] sdx")
            await c.shows("[ ] sdy")
            await c.press("down")
            await c.shows("sdx, sdy hold the same UUIDs: copies of one host.")

    run(test)


def test_repair_refuses_a_disk_with_a_repository_and_an_empty_choice() -> None:
    async def test() -> None:
        async with console(FakeEngine(), task="repair") as c:
            await c.on("Repair boot")
            await c.press("down", "enter")  # sda was chosen already
            await c.press("down", "enter")
            await c.shows("It holds a repository")
            await c.press("enter")
            c.app.screen.query_one("#continue").focus()
            await c.press("enter")
            await c.shows("No disk is chosen")
            await c.press("enter")
            assert isinstance(c.app.screen, RepairScreen)

    run(test)


def test_a_repair_of_a_blank_disk_is_refused_by_the_plan() -> None:
    async def test() -> None:
        engine = FakeEngine()
        engine.machine_now = with_address(msgspec.structs.replace(MACHINE, disks=(NO_SERIAL,)))
        async with console(engine, task="repair") as c:
            await c.on("Repair boot")
            await c.press("enter")
            c.app.screen.query_one("#continue").focus()
            await c.press("enter")
            await c.on("Plan")
            await c.shows("The repair is refused: 1 error")
            await c.shows("( Continue )")

    run(test)


def test_a_task_begun_anew_forgets_the_one_before() -> None:
    async def test() -> None:
        engine = FakeEngine(address=True)
        engine.machine_now = with_address(
            msgspec.structs.replace(
                MACHINE,
                disks=tuple(
                    msgspec.structs.replace(disk, table=PartitionTable(), content=Content(kind="ext4"))
                    if disk.id == BLANK.id
                    else disk
                    for disk in MACHINE.disks
                ),
            )
        )
        async with console(engine, task="repair") as c:
            await c.on("Repair boot")
            assert c.app.session.targets == {USED.id: USED.id}
            await c.press("escape")
            await c.on("Task")
            await c.press("up", "up", "up", "up", "enter")
            await c.on("Repository")
            assert c.app.session.targets == {}
            assert c.app.session.choices().adapt

    run(test)


def test_a_refused_unattended_restore_is_told_at_the_start() -> None:
    async def test() -> None:
        engine = FakeEngine(address=True)
        refused = Unattended(phase="refused", message="The disk is not there.", reasons=("No disk has S1.",))
        await asyncio.to_thread(engine.unattended, refused)
        async with console(engine, task="") as c:
            await c.on("Task")
            await c.shows("The unattended restore was refused: The disk is not there.")
            await c.shows("No disk has S1.")

    run(test)


def test_remote_access_is_off_until_it_is_turned_on() -> None:
    async def test() -> None:
        async with console(FakeEngine(address=True), task="remote") as c:
            await c.shows("SSH          off")
            await c.shows("Status page  off")
            await c.press("right", "enter")
            await c.shows("ssh root@192.168.1.20")
            await c.shows("8Q2K-7Z0M-4TXA")
            await c.press("right", "right", "enter")
            await c.shows("http://192.168.1.20/3FHK-20TZ-9PWE")
            await c.press("right", "enter")
            await c.shows("SSH          off")
            await c.press("enter")  # OK has the focus
            await c.on("Task")
            await c.gone("8Q2K")

    run(test)


def test_an_address_that_comes_late_is_seen_on_task_and_leads_on_from_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_screen, "POLL_SECONDS", 0.1)
    monkeypatch.setattr(network_screen, "POLL_SECONDS", 0.1)

    async def test() -> None:
        engine = FakeEngine()
        async with console(engine, task="") as c:
            await c.on("Task")
            await c.shows("Network: no address yet")
            await c.press("enter")
            await c.on("Network")
            engine.machine_now = with_address(MACHINE, address="10.0.2.15/24")
            await c.on("Repository")  # nobody pressed a key on Network
            await c.press("escape", "escape")
            await c.on("Task")
        engine = FakeEngine()
        async with console(engine, task="") as c:
            await c.on("Task")
            engine.machine_now = with_address(MACHINE, address="10.0.2.15/24")
            await c.shows("Network: enp3s0 10.0.2.15/24")
            await c.press("enter")
            await c.on("Repository")

    run(test)
