"""The task "Restore one VM" by keys: what is chosen, asked and refused, and each of its screens as a snapshot."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from recovery.errors import DeviceError
from recovery.plan.vm import VM_NAME, VmChoices
from recovery.tui.report_text import next_steps
from recovery.tui.screens import point as point_screen
from tests.unit.tui import fake_vm
from tests.unit.tui.console import Console, console, run
from tests.unit.tui.fake_engine import FakeEngine
from tests.unit.tui.fake_world import HOST, NOW, make_point
from tests.unit.tui.test_tui_screens import SIZES, check_screen, look_at


@pytest.fixture(autouse=True)
def fixed_time(monkeypatch: pytest.MonkeyPatch, time_zone: Callable[[str], None]) -> None:
    """Berlin, three hours after the newest point."""
    time_zone("Europe/Berlin")
    monkeypatch.setattr(point_screen, "now", lambda: NOW - 86400 + 3 * 3600)


async def to_vm(c: Console) -> None:
    await c.sign_in()
    await c.shows("Which host ran the VM?")
    await c.press("enter")
    await c.on("Point")
    await c.shows("From which moment shall the VM")
    await c.until(lambda: "reading" not in c.text.lower(), "all details")
    await c.press("enter")
    await c.on("VM")
    await c.shows("Disks of web1")


async def to_place(c: Console) -> None:
    await to_vm(c)
    await c.press("enter")
    await c.on("Place")


async def choose_stick(c: Console) -> None:
    await c.press("home", "down", "down")
    await c.shows("/dev/sdc1, ext4 on sdc, usb Extreme SSD")


@SIZES
def test_every_screen_of_a_vm(size: tuple[int, int]) -> None:
    async def test() -> None:
        engine = FakeEngine(address=True)
        async with console(engine, size, task="vm") as c:
            await to_vm(c)
            await look_at(c, "VM")
            await c.press("enter")
            await c.on("Place")
            await look_at(c, "Place")
            await c.shows(">   sdc1")  # no system on it, and the most room
            await c.press("up", "enter")
            await c.shows("sdb1 cannot be chosen. It holds a repository")
            await look_at(c, "Place (refused)")
            await c.press("enter")
            await c.press("end")
            await c.shows("Type the whole path of a directory")
            await look_at(c, "Place (directory)")
            await choose_stick(c)
            await c.press("enter", "enter", "enter")
            await c.on("Plan")
            await c.shows("The restore is possible")
            await look_at(c, "Plan (VM)")
            engine.hold.clear()
            await c.press("enter")
            await c.on("Restore")
            await c.shows("Asked again for pack")
            await look_at(c, "Restore (VM)")
            await c.press("enter")
            await c.shows("Nothing is left behind")
            check_screen(c, "Restore (stop)")
            await c.press("escape")
            engine.hold.set()
            await c.on("Result")
            await c.shows("What to do next")
            await look_at(c, "Result (VM)")
            await c.shows("[>New task<]")

    run(test)


@SIZES
def test_what_is_overwritten_is_typed(size: tuple[int, int]) -> None:
    async def test() -> None:
        engine = FakeEngine(address=True)
        async with console(engine, size, task="vm") as c:
            await to_place(c)
            await choose_stick(c)
            c.app.screen.query_one("#folder").value = ""  # type: ignore[attr-defined]
            await c.press("enter")
            await c.type(fake_vm.FULL)
            await c.press("enter", "enter")
            await c.on("Plan")
            await c.shows("The restore is refused: 1 error")
            refused = "Nothing is overwritten unless you ask for it"
            await c.until(lambda: refused in " ".join(c.text.split()), refused)
            await look_at(c, "Plan (VM refused)")
            await c.press("escape")
            await c.on("Place")
            c.app.screen.query_one("#overwrite").focus()
            await c.press("enter", "tab", "enter")
            await c.on("Plan")
            await c.shows("[>Continue<]")
            await c.press("enter")
            await c.on("Confirm")
            await c.type("web")
            await c.press("enter")
            await c.shows("That is not the name of the VM")
            await look_at(c, "Confirm (VM)")
            c.app.screen.query_one("#start").focus()
            await c.press("enter")
            await c.shows("Overwriting was not confirmed")
            await c.press("enter")
            assert not [call for call in engine.calls if call[0] == "start"]
            await c.type("1")
            await c.press("enter")
            await c.shows("Overwriting is confirmed")
            await c.shows("[>Back<]")
            await c.press("enter")
            await c.on("Plan")
            await c.shows("[>Continue<]")
            await c.press("enter")
            await c.on("Confirm")
            await c.type("web1")
            await c.press("enter", "left", "enter")
            await c.on("Result")
            assert engine.calls[-1] == ("start", {VM_NAME: "web1"})

    run(test)


def test_what_is_planned_is_what_was_chosen() -> None:
    async def test() -> None:
        engine = FakeEngine(address=True)
        async with console(engine, task="vm") as c:
            await to_vm(c)
            await c.press("down")
            await c.shows("Disks of db1")
            await c.press("enter")
            await c.on("Place")
            await choose_stick(c)
            await c.press("enter", "enter", "enter")
            await c.on("Plan")
            await c.until(lambda: engine.calls[-1][0] == "plan_vm", "a plan")
            assert engine.calls[-1][1] == VmChoices(
                host=HOST, point=make_point(4).id, vm="db1", device="/dev/sdc1", folder="db1-20251122-1213"
            )
            await c.shows("[>Restore now<]")
            await c.press("escape")
            await c.on("Place")
            # Back, another VM: its own folder; the place stays.
            await c.press("escape")
            await c.on("VM")
            c.app.screen.query_one("#vms").focus()
            await c.press("up", "enter")
            await c.on("Place")
            await c.shows("web1-20251122-1213")
            await c.shows("/dev/sdc1, ext4")

    run(test)


@pytest.mark.slow
def test_a_disk_is_left_out_and_one_at_least_is_needed() -> None:
    async def test() -> None:
        engine = FakeEngine(address=True)
        point = engine.all_points[-1]
        vm = point.body.vms[0]
        ceph = msgspec.structs.replace(vm.disks[0], target="vdb", source="pool/web1", format="raw", on="")
        vms = (msgspec.structs.replace(vm, disks=(*vm.disks, ceph)), *point.body.vms[1:])
        body = msgspec.structs.replace(point.body, vms=vms)
        engine.all_points[-1] = msgspec.structs.replace(point, body=body)
        async with console(engine, task="vm") as c:
            await to_vm(c)
            c.app.screen.query_one("#vm-disks").focus()
            await c.press("down", "space")
            await c.shows("vdb cannot be chosen")
            await c.press("enter", "up", "space")
            await c.shows("[ ] vda")
            c.app.screen.query_one("#continue").focus()
            await c.press("enter")
            await c.shows("No disk of web1 is chosen")
            await c.press("enter")
            c.app.screen.query_one("#vm-disks").focus()
            await c.press("home", "space")
            await c.shows("[x] vda")
            c.app.screen.query_one("#continue").focus()
            await c.press("enter")
            await c.on("Place")
            assert c.app.session.vm_choices().disks == ("vda",)

    run(test)


@pytest.mark.slow
def test_a_directory_is_typed() -> None:
    async def test() -> None:
        engine = FakeEngine(address=True)
        async with console(engine, task="vm") as c:
            await to_place(c)
            await c.press("end")
            c.app.screen.query_one("#continue").focus()
            await c.press("enter")
            await c.shows("No directory is typed")
            await c.press("enter")
            await c.type("/nowhere")
            await c.press("enter", "enter")
            await c.shows("The directory /nowhere is not there")
            await c.press("enter", "escape")
            await c.on("Place")
            c.app.screen.query_one("#directory").focus()
            await c.press(*["backspace"] * 8)
            await c.type("/mnt/vms")
            await c.press("enter", "enter")
            await c.on("Plan")
            await c.shows("Into /mnt/vms")
            await c.press("enter")
            await c.on("Result")
            await c.shows("vda → /mnt/vms/web1-vda.qcow2")

    run(test)


@pytest.mark.slow
def test_a_failure_can_be_tried_again() -> None:
    async def test() -> None:
        engine = FakeEngine(address=True)
        engine.fail_with = DeviceError("web1-vda.qcow2 cannot be written: I/O error.", hint="Choose another place.")
        async with console(engine, task="vm") as c:
            await to_place(c)
            await choose_stick(c)
            await c.press("enter", "enter", "enter")
            await c.on("Plan")
            await c.shows("[>Restore now<]")
            await c.press("enter")
            await c.shows("web1-vda.qcow2 cannot be written")
            await c.shows("No file was left behind")
            await c.shows("[>Retry<]")
            await c.on("Result")
            await c.press("enter")
            await c.shows("What to do next")
            assert [call[0] for call in engine.calls].count("start") == 2

    run(test)


def test_what_to_do_next_fits_what_came_back() -> None:
    engine = FakeEngine()
    point = engine.all_points[-1]
    for vm, device, words in (
        (
            "web1",
            "/dev/sdc1",
            ("sdc1 'RESCUE' is unmounted", "Put web1-vda.qcow2 as /var/lib", "virsh define web1.xml"),
        ),
        ("db1", "", ("qemu-img convert -n -O raw db1-vda.raw /dev/vg0/db1", "virt-install --import")),
    ):
        choices = VmChoices(host=HOST, point=point.id, vm=vm, device=device, folder="x" if device else "/mnt/vms")
        report = fake_vm.report_of(engine.plan_vm(choices), 0.0, NOW)
        assert report.vm is not None
        text = "\n".join(next_steps(report.vm))
        for word in words:
            assert word in text
