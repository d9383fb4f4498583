"""Wrong input, refusals, failures: each gives one clear sentence and loses nothing."""

from __future__ import annotations

import asyncio
import os

import pytest

from recovery.engine.api import NetworkConfig, RunState
from recovery.errors import DeviceError, UnreachableError
from recovery.machine.model import Machine
from recovery.plan.model import Problem
from tests.unit.tui.console import console, run
from tests.unit.tui.fake_engine import FakeEngine
from tests.unit.tui.fake_world import BLANK, LUKS_PASSPHRASE, NO_SERIAL, PASSPHRASE, PASSWORD, USER


def test_wrong_passphrase_then_right_keeps_everything_else() -> None:
    async def test() -> None:
        async with console(FakeEngine(address=True)) as c:
            await c.on("Repository")
            await c.type(USER)
            await c.press("enter")
            await c.type(PASSWORD)
            await c.press("enter", "enter")
            await c.type("wrong")
            await c.press("enter")
            await c.shows("The passphrase does not open the repository.")
            await c.shows("mind Caps Lock")
            assert "Traceback" not in c.text
            assert PASSWORD not in c.text
            await c.press("enter")
            await c.press(*["backspace"] * 5)
            await c.type(PASSPHRASE)
            await c.press("enter")
            await c.on("Host")

    run(test)


def test_going_back_keeps_what_was_typed() -> None:
    async def test() -> None:
        async with console(FakeEngine(address=True)) as c:
            await c.to("Target disks")
            await c.press("escape")
            await c.on("Point")
            await c.press("escape")
            await c.on("Host")
            await c.press("escape")
            await c.on("Repository")
            await c.shows(f"User                {USER}")
            await c.press("escape")
            await c.on("Network")
            await c.press("enter")
            await c.on("Repository")
            await c.shows(f"User                {USER}")
            await c.shows("> Passphrase          ••••")
            await c.press("enter")
            await c.on("Host")

    run(test)


def test_unknown_certificate_needs_comparing_and_the_default_is_no() -> None:
    async def test() -> None:
        engine = FakeEngine(address=True, trusted=False)
        async with console(engine) as c:
            await c.on("Repository")
            await c.shows("NOT TRUSTED")
            await c.type(USER)
            await c.press("enter")
            await c.type(PASSWORD)
            await c.press("enter", "enter")
            await c.type(PASSPHRASE)
            await c.press("enter")
            await c.shows("Is this your server?")
            await c.shows("9F:86:D0:81:88:4C:7D:65")
            await c.press("enter")  # what Enter answers at once must be no
            await c.on("Repository")
            assert not [call for call in engine.calls if call[0] == "connect"]
            await c.press("enter")
            await c.shows("Is this your server?")
            await c.press("right", "enter")
            await c.on("Host")
            (access,) = [call[1] for call in engine.calls if call[0] == "connect"]
            assert access.fingerprint.startswith("9F:86:D0:81")  # type: ignore[attr-defined]

    run(test)


def test_disks_that_must_not_be_written_cannot_be_chosen() -> None:
    async def test() -> None:
        async with console(FakeEngine(address=True)) as c:
            await c.to("Target disks")
            await c.press("home")  # the focus is on Continue: nothing happens
            c.app.screen.query_one("#sources").focus()
            await c.press("enter", "down", "down")
            await c.shows("Cannot be chosen: It holds a repository")
            await c.press("enter")
            await c.shows("sdb cannot be chosen.")
            await c.press("enter", "down", "enter")
            await c.shows("sr0 cannot be chosen. It is the medium")
            await c.press("enter")
            assert c.app.session.targets == {"disk1": BLANK.id}

    run(test)


def test_too_small_target_is_refused_by_the_plan() -> None:
    async def test() -> None:
        async with console(FakeEngine(address=True)) as c:
            await c.to("Target disks")
            c.app.screen.query_one("#sources").focus()
            await c.press("enter", "down", "down", "down", "down")
            await c.shows("Smaller than disk1")
            await c.press("enter")
            await c.until(lambda: c.app.session.targets == {"disk1": NO_SERIAL.id}, "the target")
            await c.press("enter")
            await c.on("Plan")
            await c.shows("The restore is refused: 1 error.")
            for part in ("ERROR: /dev/vdb is too small", "Why: It has 64.0 GiB", "To do: Choose a larger disk."):
                await c.shows(part)
            await c.shows("( Continue )")
            await c.press("escape")
            await c.on("Target disks")

    run(test)


def test_plan_is_made_anew_when_coming_back_but_not_when_a_dialog_closes() -> None:
    async def test() -> None:
        engine = FakeEngine(address=True)
        engine.plan_problems = (Problem(severity="warning", code="x", what="The memory is small."),)
        async with console(engine) as c:
            await c.to("Confirm")
            first = c.app.session.plan
            await c.press("escape")
            await c.on("Plan")
            await c.until(lambda: c.app.session.plan is not first, "a new plan")
            second = c.app.session.plan
            await c.press("f1")
            await c.shows("Help · Plan")
            await c.press("escape")
            await c.on("Plan")
            assert c.app.session.plan is second

    run(test)


def test_wrong_confirmation_starts_nothing() -> None:
    async def test() -> None:
        engine = FakeEngine(address=True)
        async with console(engine) as c:
            await c.to("Confirm")
            await c.type("s5gxnx0t103344")
            await c.press("enter")
            await c.shows("That is not the serial number of nvme0n1.")
            await c.press("tab", "enter")
            await c.shows("nvme0n1 was not confirmed")
            assert not [call for call in engine.calls if call[0] == "start"]
            await c.press("enter")
            await c.press("ctrl+u")
            await c.type(BLANK.serial)
            await c.press("enter", "left", "enter")
            await c.on("Result")

    run(test)


def test_failed_run_says_what_to_do_and_can_be_retried() -> None:
    async def test() -> None:
        engine = FakeEngine(address=True)
        engine.fail_with = DeviceError("/dev/nvme0n1 returned an error.", hint="Look at its SMART data, or retry.")
        async with console(engine) as c:
            await c.to("Confirm")
            await c.type(BLANK.serial)
            await c.press("enter", "left", "enter")
            await c.shows("Look at its SMART data")
            await c.shows("× Restore disk1")
            await c.shows("[>Retry<]")
            await c.on("Result")
            await c.press("enter")
            await c.shows("The restore is complete")
            assert len([call for call in engine.calls if call[0] == "start"]) == 2

    run(test)


def test_reattach_to_a_running_restore_and_stop_it_after_a_question() -> None:
    async def test() -> None:
        engine = FakeEngine(address=True)
        engine.hold.clear()
        await asyncio.to_thread(plan_of, engine)
        async with console(engine) as c:
            await c.on("Restore")
            await c.shows("► Restore disk1")
            await c.press("escape")
            await c.shows("A restore is running.")
            assert c.title == "Rekindle · Restore"
            await c.press("enter")
            await c.shows("Stop the restore?")
            await c.press("enter")  # the harmless answer is the first
            assert ("cancel", None) not in engine.calls
            await c.press("enter")
            await c.shows("Stop the restore?")
            await c.press("right", "enter")
            await c.until(lambda: ("cancel", None) in engine.calls, "cancel")
            await c.shows("The restore was stopped.")

    run(test)


def plan_of(engine: FakeEngine) -> None:
    """Start a run from another window."""
    from recovery.plan.model import Choices

    point = engine.all_points[-1]
    plan = engine.plan(Choices(host=point.header.host, point=point.id, targets={"disk1": BLANK.id}))
    engine.start(plan.id, {BLANK.id: BLANK.confirmation})


def test_power_is_refused_during_a_run() -> None:
    async def test() -> None:
        engine = FakeEngine(address=True)
        engine.hold.clear()
        await asyncio.to_thread(plan_of, engine)
        async with console(engine) as c:
            await c.on("Restore")
            await c.press("f10", "f10")  # the second one must not take the first one's answer away
            await c.shows("A restore is running, and goes on after 'Leave console'.")
            await c.press("right", "right", "enter")
            await c.shows("A restore is running")
            assert not [call for call in engine.calls if call[0] == "reboot"]

    run(test)


def test_power_says_what_is_so_and_what_leaving_means_here(monkeypatch: pytest.MonkeyPatch) -> None:
    class Lost(FakeEngine):
        lost = False

        def state(self) -> RunState:
            if self.lost:
                raise UnreachableError("The engine does not answer.")
            return super().state()

    async def test() -> None:
        engine = Lost(address=True)
        async with console(engine) as c:
            await c.press("f10")
            await c.shows("No restore is running.")
            assert "[ Leave console ]" in c.text
            await c.press("escape")
            monkeypatch.setenv("SYSTEMD_EXEC_PID", str(os.getpid()))
            engine.lost = True
            await c.press("f10")
            await c.shows("not known: The engine does not answer.")
            assert "[ Restart console ]" in c.text

    run(test)


def test_network_errors_and_bad_addresses() -> None:
    async def test() -> None:
        engine = FakeEngine()
        async with console(engine) as c:
            await c.on("Network")
            c.app.screen.query_one("#nics").focus()
            await c.press("down", "enter")
            await c.shows(">[x] DHCP")
            c.app.screen.query_one("#apply").focus()
            await c.press("enter")
            await c.shows("enp4s0 got no address")
            await c.press("escape")
            c.app.screen.query_one("#dhcp").focus()
            await c.press("space", "tab")
            await c.type("10.0.0.5")
            c.app.screen.query_one("#apply").focus()
            await c.press("enter")
            await c.shows("'10.0.0.5' is not an address with its prefix length.")
            assert [call for call in engine.calls if isinstance(call[1], NetworkConfig)] == [
                ("configure_network", NetworkConfig(interface="enp4s0"))
            ]

    run(test)


def test_a_bug_in_the_engine_is_a_dialog_too() -> None:
    class Broken(FakeEngine):
        def configure_network(self, config: NetworkConfig) -> Machine:
            raise ValueError("boom")

    async def test() -> None:
        async with console(Broken()) as c:
            await c.on("Network")
            await c.press("enter")
            await c.shows("Something unexpected happened: ValueError: boom")
            assert "Traceback" not in c.text
            await c.press("enter")
            await c.on("Network")

    run(test)


def test_an_encrypted_host_asks_for_its_passphrase_before_the_first_write() -> None:
    async def test() -> None:
        engine = FakeEngine(address=True)
        engine.plan_problems = (
            Problem(
                severity="error", code="luks-secret-missing",
                what="The host's system lies in an encrypted volume (disk1:3), and its passphrase was not given.",
            ),
        )  # fmt: skip
        async with console(engine) as c:
            await c.to("Target disks")
            await c.press("enter")
            await c.on("Plan")
            await c.shows("The restore is refused: 1 error")
            await c.shows("[>Passphrase<]")
            await c.press("enter")
            await c.shows("Encrypted host")
            await c.type("wrong")
            await c.shows("> Passphrase          •••••")
            await c.press("enter")
            await c.shows("Encrypted volumes that cannot be opened")
            assert "wrong" not in c.text
            await c.press("enter")
            await c.shows("Encrypted host")
            await c.type(LUKS_PASSPHRASE)
            await c.press("enter")
            await c.shows("The restore is possible")
            await c.shows("[>Continue<]")
            await c.gone("Passphrase ]")
            assert engine.luks_secrets == ["wrong", LUKS_PASSPHRASE]

    run(test)


def test_what_is_typed_for_secrets_is_shown_when_asked_for() -> None:
    async def test() -> None:
        async with console(FakeEngine(address=True)) as c:
            await c.on("Repository")
            await c.type("admin")
            await c.press("enter")
            await c.type("pass-word")
            await c.press("enter", "enter")
            await c.type("pass-phrase")
            await c.shows("•" * len("pass-phrase"))
            assert "pass-word" not in c.text and "pass-phrase" not in c.text
            c.app.screen.query_one("#show").focus()
            await c.press("enter")
            await c.shows("pass-word")
            await c.shows("pass-phrase")
            await c.shows("[>Hide secrets<]")
            await c.press("enter")
            await c.gone("pass-phrase")
            assert "pass-word" not in c.text

    run(test)


def test_the_passphrase_is_not_asked_for_where_nothing_is_encrypted_and_esc_takes_nothing() -> None:
    async def test() -> None:
        engine = FakeEngine(address=True)
        async with console(engine) as c:
            await c.to("Target disks")
            await c.press("enter")
            await c.on("Plan")
            await c.shows("[>Continue<]")
            await c.gone("Passphrase ]")
            engine.plan_problems = (Problem(severity="error", code="luks-secret-missing", what="It is encrypted."),)
            await c.press("tab", "enter")
            await c.shows("[>Passphrase<]")
            await c.press("enter")
            await c.type("half")
            await c.press("escape")
            await c.shows("[>Passphrase<]")
            assert engine.luks_secrets == []

    run(test)
