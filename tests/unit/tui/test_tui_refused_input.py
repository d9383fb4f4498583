"""What the console refuses before it asks the engine, or when there is nothing to choose: each sentence is reached by
keys, and the screen is as it was behind it."""

from __future__ import annotations

import msgspec
import pytest

from recovery.engine.api import Access, RepositoryInfo
from recovery.errors import IntegrityError
from recovery.format.point import Point
from recovery.layout import VmDisk
from recovery.tui.widgets.dialogs import Dialog
from tests.unit.tui.console import Console, console, run
from tests.unit.tui.fake_engine import FakeEngine
from tests.unit.tui.fake_world import MACHINE, PASSPHRASE, PASSWORD, URL, USER, with_address


async def refused(c: Console, screen: str, *sentences: str) -> None:
    """The dialog says it; Enter closes it, and ``screen`` is there."""
    await c.until(lambda: isinstance(c.app.screen, Dialog), "a dialog")
    for sentence in sentences:
        await c.shows(sentence)
    assert "Traceback" not in c.text
    assert isinstance(c.app.screen, Dialog)
    await c.press("enter")
    await c.until(lambda: not isinstance(c.app.screen, Dialog), "no dialog")
    await c.on(screen)


async def fill(c: Console, id: str, text: str) -> None:
    """Type into a field instead of what is there."""
    c.app.screen.query_one(f"#{id}").focus()
    await c.press("ctrl+u")
    await c.type(text)


async def press(c: Console, id: str) -> None:
    """Enter on a button."""
    c.app.screen.query_one(f"#{id}").focus()
    await c.press("enter")


def asked(engine: FakeEngine, call: str) -> bool:
    return any(name == call for name, _ in engine.calls)


# --- Network ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "text", "sentence", "hint"),
    [
        ("vlan", "4095", "'4095' is not a VLAN id.", "Type a number from 1 to 4094, or nothing."),
        ("vlan", "lan7", "'lan7' is not a VLAN id.", "Type a number from 1 to 4094, or nothing."),
        ("gateway", "10.0.0", "'10.0.0' is not the address of a gateway.", "Type it like 192.168.1.1."),
        ("dns", "10.0.0.1 dns", "'dns' is not the address of a DNS server.", "Type it like 192.168.1.1."),
    ],
)
def test_network(field: str, text: str, sentence: str, hint: str) -> None:
    async def test() -> None:
        engine = FakeEngine()
        async with console(engine) as c:
            await c.on("Network")
            await c.shows("(Gateway)            (by DHCP)")
            c.app.screen.query_one("#dhcp").focus()
            await c.press("space")
            await c.gone("(by DHCP)")
            await fill(c, "address", "10.0.0.5/24")
            await fill(c, field, text)
            await press(c, "apply")
            await refused(c, "Network", sentence, hint)
            await c.shows(text)
            assert not asked(engine, "configure_network")

    run(test)


def test_network_without_an_interface() -> None:
    async def test() -> None:
        engine = FakeEngine()
        engine.machine_now = msgspec.structs.replace(MACHINE, nics=())
        async with console(engine) as c:
            await c.on("Network")
            await c.shows("A repository on a USB disk works without.")
            await press(c, "apply")
            await refused(c, "Network", "Check the cable, the card and its driver (F2: dmesg).")
            assert not asked(engine, "configure_network")

    run(test)


# --- Repository ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "sentence", "hint"),
    [
        ({"server": ""}, "The server's address is missing.", "Type it like backup.example.org:8460."),
        ({"server": "http://x"}, "'http://x' is not an https address.", "The server speaks TLS only"),
        ({"user": ""}, "Nobody is signed in yet.", "a one-time code from the administrator"),
        ({"password": ""}, "Nobody is signed in yet.", "a one-time code from the administrator"),
        ({"secret": ""}, "The repository's passphrase is missing.", "or the recovery key that was printed"),
    ],
    ids=["no address", "not https", "no user", "no password", "no passphrase"],
)
def test_repository(fields: dict[str, str], sentence: str, hint: str) -> None:
    async def test() -> None:
        engine = FakeEngine(address=True)
        async with console(engine) as c:
            await c.on("Repository")
            right = {"server": URL, "user": USER, "password": PASSWORD, "secret": PASSPHRASE}
            for id, text in {**right, **fields}.items():
                await fill(c, id, text)
            await press(c, "connect")
            await refused(c, "Repository", sentence, hint)
            assert not asked(engine, "connect")
            for id in fields:
                await fill(c, id, right[id])
            await press(c, "connect")
            await c.on("Host")

    run(test)


def test_a_repository_on_a_disk_needs_its_passphrase_only() -> None:
    async def test() -> None:
        engine = FakeEngine()
        engine.machine_now = with_address(MACHINE)
        async with console(engine) as c:
            await c.on("Repository")
            await c.shows("Disk sdb1")
            c.app.screen.query_one("#places").focus()
            await c.press("down")
            await press(c, "connect")
            await refused(c, "Repository", "The repository's passphrase is missing.")
            assert not asked(engine, "connect")

    run(test)


# --- Host, Point, VM ----------------------------------------------------------------------------------------------


def test_a_repository_without_a_host() -> None:
    class Empty(FakeEngine):
        def connect(self, access: Access) -> RepositoryInfo:
            return msgspec.structs.replace(super().connect(access), hosts=())

    async def test() -> None:
        async with console(Empty(address=True)) as c:
            await c.on("Repository")
            for id, text in {"user": USER, "password": PASSWORD, "secret": PASSPHRASE}.items():
                await fill(c, id, text)
            await press(c, "connect")
            await refused(c, "Host", "The repository has no host that this sign-in may restore.", "Go back with Esc")
            await press(c, "continue")  # there is nothing to continue with
            assert c.title == "Rekindle · Host"
            await c.press("escape")
            await c.on("Repository")

    run(test)


def test_a_host_without_a_point() -> None:
    async def test() -> None:
        async with console(FakeEngine(address=True)) as c:
            await c.sign_in()
            await c.press("down", "enter")
            await refused(c, "Host", "There is no recovery point of hv2.example.org.", "Choose another host")
            await c.press("up", "enter")
            await c.on("Point")

    run(test)


def test_times_that_are_none_and_times_without_a_point() -> None:
    async def test() -> None:
        async with console(FakeEngine(address=True)) as c:
            await c.sign_in()
            await c.press("enter")
            await c.on("Point")
            await c.type("sometime")  # in one burst, from the list into the field
            await c.shows("> Go to time          sometime")
            await c.shows("Not a time yet.")
            await c.press("enter")
            await refused(c, "Point", "'sometime' is not a time.", "Type it like one of:")
            await c.shows("sometime")
            await fill(c, "when", "2020-01-01")
            await c.shows("Enter: 0 points")
            await c.press("enter")
            await refused(c, "Point", "There is no point then. The oldest is of 2025-11-", "Type another time.")
            assert c.app.session.point is None

    run(test)


def test_a_point_that_cannot_be_read() -> None:
    class Damaged(FakeEngine):
        def point(self, host: str, point: str) -> Point:
            raise IntegrityError("Its signature is wrong.")

    async def test() -> None:
        async with console(Damaged(address=True)) as c:
            await c.sign_in()
            await c.press("enter")
            await c.on("Point")
            await c.shows("cannot be read: Its signature is wrong.")
            await c.shows("This point cannot be read. Choose another one")
            await c.until(lambda: c.text.count("days ago   cannot be read") == 4, "four rows")
            assert "reading ..." not in c.text.lower()
            await c.press("enter")
            await c.shows("Error")
            await c.shows("│ Its signature is wrong.")
            await c.press("enter")
            await c.gone("Error")
            await c.on("Point")

    run(test)


def engine_with_vms(keep: bool) -> FakeEngine:
    """Points whose VMs are gone, or whose first VM has one more disk that was not captured."""
    engine = FakeEngine(address=True)
    for index, point in enumerate(engine.all_points):
        first, *others = point.body.vms
        elsewhere = VmDisk(target="vdb", source="rbd:pool/web1", size=1 << 30)
        vms = (msgspec.structs.replace(first, disks=(*first.disks, elsewhere)), *others) if keep else ()
        body = msgspec.structs.replace(point.body, vms=vms)
        engine.all_points[index] = msgspec.structs.replace(point, body=body)
    return engine


def test_a_point_without_a_vm() -> None:
    async def test() -> None:
        engine = engine_with_vms(keep=False)
        async with console(engine, task="vm") as c:
            await c.sign_in()
            await c.press("enter")
            await c.on("Point")
            await c.press("enter")
            await refused(c, "VM", "There is no VM in this point.", "Choose another point, or another host.")
            await press(c, "continue")
            await refused(c, "VM", "There is no VM in this point.")
            assert not asked(engine, "places")

    run(test)


def test_a_disk_of_a_vm_that_was_not_captured() -> None:
    async def test() -> None:
        async with console(engine_with_vms(keep=True), task="vm") as c:
            await c.sign_in()
            await c.press("enter")
            await c.on("Point")
            await c.press("enter")
            await c.on("VM")
            await c.shows(" -  vdb")
            c.app.screen.query_one("#vm-disks").focus()
            await c.press("down", "space")
            await refused(c, "VM", "vdb cannot be chosen: it lies on none of the disks", "It is in Ceph, over iSCSI")
            await c.shows("[x] vda")

    run(test)


# --- everywhere ---------------------------------------------------------------------------------------------------


def test_a_terminal_that_cannot_be_lent_to_a_shell() -> None:
    async def test() -> None:
        async with console(FakeEngine(address=True), task="") as c:
            await c.on("Task")
            await c.press("f2")
            await refused(c, "Task", "This terminal cannot be lent to a shell.")
            await c.shows(f"Network: {MACHINE.nics[0].name}")

    run(test)
