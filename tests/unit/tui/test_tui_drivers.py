"""Cards and controllers that do not work are named where the operator would look for them."""

from __future__ import annotations

import msgspec
import pytest

from recovery.machine.model import Driverless, Machine
from recovery.tui.describe import nic_row
from recovery.tui.drivers_text import cards_text, controllers_text, not_working_line
from recovery.tui.glyphs import DRAWABLE
from tests.unit.plan.hosts import all_machines, recorded
from tests.unit.tui.console import console, run
from tests.unit.tui.fake_engine import FakeEngine
from tests.unit.tui.fake_world import MACHINE, with_address
from tests.unit.tui.test_tui_screens import look_at

CONTROLLER = recorded("sd_module_no_driver").driverless[0]
FIRMWARE_MISSING = Driverless(
    slot="0000:03:00.0",
    purpose="network",
    name="Broadcom NetXtreme II BCM57810",
    reason="The firmware bnx2x/bnx2x-e2-7.13.21.0.fw of its driver bnx2x is not on this medium.",
    modules=("bnx2x",),
    firmware=("bnx2x/bnx2x-e2-7.13.21.0.fw",),
)
UNKNOWN = Driverless(
    slot="0000:05:00.0", purpose="network", name="PCI 1d6a:00b1", reason="This medium has no driver for it."
)


def lacking(*devices: Driverless) -> Machine:
    """The usual machine, with an address and ``devices`` that do not work."""
    return with_address(msgspec.structs.replace(MACHINE, driverless=devices))


@pytest.mark.parametrize("size", [(80, 25), pytest.param((80, 24), marks=pytest.mark.slow)])
def test_they_are_named_on_task_network_and_target_disks(size: tuple[int, int]) -> None:
    async def test() -> None:
        engine = FakeEngine(disks=2)
        engine.machine_now = lacking(CONTROLLER, FIRMWARE_MISSING, UNKNOWN)
        async with console(engine, size, task="") as c:
            await c.on("Task")
            await c.shows(" and 2 more; see Target disks and Network.")
            await look_at(c, "Task (no driver)")
            await c.press("enter")
            await c.on("Repository")
            await c.press("escape")
            await c.on("Network")
            await c.shows("Broadcom NetXtreme II BCM57810 at 0000:03:00.0. The firmware")
            await c.shows("--firmware all")
            await c.shows("e1000e     1000 Mbit/s")
            await c.shows("ixgbe      no link")
            await look_at(c, "Network (no driver)")
            await c.press("pagedown")
            await c.shows("PCI 1d6a:00b1 at 0000:05:00.0. This medium has no driver for it.")
            assert "MegaRAID" not in c.text
            await c.press("enter")
            await c.to("Target disks")
            await c.shows("Not seen: disks behind LSI Logic / Symbios Logic MegaRAID SAS 9361. The")
            assert "Broadcom" not in c.text
            await look_at(c, "Target disks (no driver)")

    run(test)


def test_the_other_lists_of_disks_say_it_too() -> None:
    words = "Not seen: disks behind LSI Logic / Symbios Logic MegaRAID SAS 9361. The"

    async def test() -> None:
        engine = FakeEngine()
        engine.machine_now = lacking(CONTROLLER)
        async with console(engine, task="repair") as c:
            await c.on("Repair boot")
            await c.shows(words)
        async with console(engine, task="vm") as c:
            await c.sign_in()
            for screen in ("Host", "Point", "VM"):
                await c.on(screen)
                await c.press("enter")
            await c.on("Place")
            await c.shows(words)

    run(test)


def test_nothing_is_said_where_all_work() -> None:
    assert not_working_line(MACHINE) == cards_text(MACHINE) == controllers_text(MACHINE) == ""


def test_a_second_controller_is_named_too() -> None:
    other = msgspec.structs.replace(CONTROLLER, name="PCI 9005:028f", slot="0000:0c:00.0")
    text = controllers_text(lacking(CONTROLLER, other))
    assert CONTROLLER.reason in text
    assert text.splitlines()[1] == "Nor those behind PCI 9005:028f."


@pytest.mark.parametrize("name", sorted(all_machines()))
def test_recorded_machines(name: str) -> None:
    machine = recorded(name)
    assert len(not_working_line(machine)) <= 78
    text = cards_text(machine) + controllers_text(machine)
    assert all(device.name in text for device in machine.driverless)
    assert set(text) - {"\n"} <= DRAWABLE
    for nic in machine.nics:
        assert f" {nic.driver[:10] or 'unknown'} " in nic_row(nic)
        assert f" {nic.link} " in nic_row(nic)
        assert len(nic_row(nic)) <= 76 or len(", ".join(nic.addresses)) > 18
