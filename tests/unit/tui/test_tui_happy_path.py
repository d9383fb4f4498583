"""The whole way by keys, as docs/tui.md says it."""

from __future__ import annotations

from recovery.engine.api import Access, NetworkConfig
from recovery.plan.model import Problem
from recovery.repository.mdns import DiscoveredServer
from tests.unit.tui.console import console, run
from tests.unit.tui.fake_engine import FakeEngine
from tests.unit.tui.fake_world import ADDRESS, BLANK, CODE, PASSPHRASE, PASSWORD, URL, USER


def test_from_no_address_to_restart() -> None:
    async def test() -> None:
        engine = FakeEngine()
        async with console(engine) as c:
            await c.on("Network")
            await c.press("enter")
            await c.shows(f"This machine: enp3s0 {ADDRESS}")
            assert ("configure_network", NetworkConfig(interface="enp3s0")) in engine.calls
            await c.press("enter")
            await c.on("Repository")
            await c.shows(f"Network: enp3s0 {ADDRESS}")
            await c.to("Confirm")
            assert ("connect", Access(url=URL, user=USER, password=PASSWORD, secret=PASSPHRASE)) in engine.calls
            await c.type(BLANK.serial)
            await c.press("enter")
            await c.shows("[>Back<]")
            await c.press("left")
            await c.shows("[>Restore now<]")
            engine.hold.clear()
            await c.press("enter")
            await c.on("Restore")
            await c.shows("40 %")
            await c.shows("retries 1")
            engine.hold.set()
            await c.on("Result")
            await c.shows("256 MiB of it read back as a sample")
            await c.press("enter")
            await c.shows("[>Stay<]")
            await c.press("right", "enter")
            await c.until(lambda: ("reboot", False) in engine.calls, "restart")
            assert ("start", {BLANK.id: BLANK.serial}) in engine.calls

    run(test)


def test_what_is_to_be_done_before_the_host_starts_is_asked_for() -> None:
    async def test() -> None:
        engine = FakeEngine(address=True)
        engine.plan_problems = (
            Problem(severity="warning", code="duplicate-uuid", what="sda: same UUIDs.", why="", todo="Detach it."),
            Problem(severity="warning", code="target-has-data", what="All of it is lost.", why="", todo="Look."),
        )
        async with console(engine) as c:
            await c.to("Confirm")
            await c.type(BLANK.serial)
            await c.press("enter", "left", "enter")
            await c.on("Result")
            await c.shows("with 1 warning; 1 thing to do first.")
            await c.shows("1. sda: same UUIDs. Detach it.")
            assert "All of it is lost." not in c.text
            await c.shows("[>Save log<]")
            c.app.screen.query_one("#restart").focus()
            await c.press("enter")
            await c.shows("[>Stay<]")
            await c.press("enter")
            await c.shows("[>Restart<]")
            # The same by F10, which works everywhere.
            await c.press("f10")
            await c.shows("[ Leave console ]")
            await c.press("right", "right", "enter")
            await c.shows("It is done: restart")
            await c.press("escape")
            await c.shows("[>Restart<]")
            assert ("reboot", False) not in engine.calls
            await c.press("enter")
            await c.shows("[>Stay<]")
            await c.press("right", "enter")
            await c.until(lambda: ("reboot", False) in engine.calls, "restart")

    run(test)


def test_network_is_skipped_when_there_is_an_address_and_esc_shows_it() -> None:
    async def test() -> None:
        async with console(FakeEngine(address=True)) as c:
            await c.on("Repository")
            await c.press("escape")
            await c.on("Network")
            await c.shows(ADDRESS)
            await c.press("enter")
            await c.on("Repository")

    run(test)


def test_static_address_and_vlan() -> None:
    async def test() -> None:
        engine = FakeEngine()
        async with console(engine) as c:
            await c.on("Network")
            await c.press("shift+tab", "shift+tab", "space")
            await c.shows(">[ ] DHCP")
            await c.press("space")
            await c.shows(">[x] DHCP")
            await c.press("enter")
            await c.shows(">[ ] DHCP")
            await c.press("tab")
            for text in ("10.0.0.5/24", "10.0.0.1", "10.0.0.2, 10.0.0.3", "42"):
                await c.type(text)
                await c.press("enter")
            await c.shows("[>Apply<]")
            await c.press("enter")
            await c.shows("This machine: enp3s0 10.0.0.5/24")
            expected = NetworkConfig(
                interface="enp3s0",
                dhcp=False,
                address="10.0.0.5/24",
                gateway="10.0.0.1",
                dns=("10.0.0.2", "10.0.0.3"),
                vlan=42,
            )
            assert ("configure_network", expected) in engine.calls

    run(test)


def test_one_time_code_instead_of_password() -> None:
    async def test() -> None:
        engine = FakeEngine(address=True)
        async with console(engine) as c:
            await c.on("Repository")
            await c.press("enter", "enter")
            await c.type(CODE)
            await c.press("enter")
            await c.type(PASSPHRASE)
            await c.press("enter")
            await c.on("Host")
            assert ("connect", Access(url=URL, code=CODE, secret=PASSPHRASE)) in engine.calls

    run(test)


def test_local_repository_needs_the_passphrase_only() -> None:
    async def test() -> None:
        engine = FakeEngine(address=True)
        async with console(engine) as c:
            await c.on("Repository")
            await c.shows("Disk sdb1")
            await c.shows("trusted")
            await c.press("shift+tab", "shift+tab", "down", "enter")
            await c.until(lambda: "Server" not in c.text, "the form of a local repository")
            await c.type(PASSPHRASE)
            await c.press("enter")
            await c.on("Host")
            assert ("connect", Access(path="/run/rekindle/usb/sdb1", secret=PASSPHRASE)) in engine.calls

    run(test)


def test_two_disks_each_confirmed() -> None:
    async def test() -> None:
        engine = FakeEngine(address=True, disks=2)
        async with console(engine) as c:
            await c.to("Confirm")
            await c.shows("archive")  # what is lost on the second one
            await c.type("S5GXNX0T103344")
            await c.press("enter")
            await c.type("ZHZ0A1B2")
            await c.press("enter", "left", "enter")
            await c.on("Result")
            await c.shows("disk2 → sda")

    run(test)


def test_keys_typed_in_one_burst_land_in_their_fields() -> None:
    async def test() -> None:
        from textual import events

        async with console(FakeEngine(address=True)) as c:
            await c.on("Repository")
            for key in [*"wrong", "ctrl+u", *USER, "x", "backspace", "\r", *PASSWORD, "\r", "\r", *PASSPHRASE]:
                name = "enter" if key == "\r" else key
                c.app.post_message(events.Key(name, key if len(key) == 1 and key != "\r" else None))  # without waiting
            await c.until(lambda: c.app.session.fields.get("secret") == PASSPHRASE, "the passphrase")
            assert c.app.session.fields["user"] == USER
            assert c.app.session.fields["password"] == PASSWORD

    run(test)


def test_a_server_that_announces_itself_is_found_and_its_certificate_asked_for() -> None:
    async def test() -> None:
        engine = FakeEngine(address=True)
        async with console(engine) as c:
            await c.on("Repository")
            c.app.screen.query_one("#find").focus()
            await c.press("enter")
            await c.shows("No server announced itself. Type its address.")
            engine.announced = [DiscoveredServer(url="https://10.9.8.7:8443", name="backup", fingerprint="ab" * 32)]
            await c.press("enter")
            await c.shows("> Server backup at https://10.9.8.7:8443, CA AB:AB:AB:AB...")
            await c.press("enter")
            await c.until(lambda: c.app.session.fields["server"] == "https://10.9.8.7:8443", "the address")
            await c.shows("trusted")
            await c.sign_in()
            assert engine.calls[-1] == (
                "connect",
                Access(url="https://10.9.8.7:8443", user=USER, password=PASSWORD, secret=PASSPHRASE),
            )

    run(test)
