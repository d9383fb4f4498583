"""Each recorded machine, with an operator's answers written down beside it, through the real console and the real
engine up to the question for the serial numbers: what is suggested, what is refused and why, and that nothing can be
written.

The repository is real too: a directory with one host for each script, whose disk has the size the script wants.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from recovery.cli.engine import engine as engine_command
from recovery.engine.rehearsal import RecordedProber, Rehearsal
from recovery.errors import UsageError
from recovery.format.chunkmap import MapBuilder
from recovery.format.mapcodec import encode_map
from recovery.format.point import DiskMapRef, PointDisk
from recovery.layout import SystemFacts
from recovery.machine.model import Disk
from recovery.plan.model import RestorePlan
from recovery.repository.repository import Repository
from recovery.tui.describe import short_name, unavailable
from recovery.tui.screens import network as network_screen
from recovery.units import GIB, MIB, TIB
from tests.support.repositories import PASSPHRASE, new_repository
from tests.support.windows import Service
from tests.unit.plan.hosts import MACHINES as MACHINE_FILES
from tests.unit.plan.hosts import all_machines, disk, point, recorded
from tests.unit.tui.console import Console, console_of, run

MACHINES = sorted(all_machines())
#: One where all goes well; refusals and choices are slow ones.
QUICK = ("small_server",)


class Script(msgspec.Struct, frozen=True, kw_only=True):
    """What the operator has and does. ``onto``: the target that they take instead of the suggestion ``suggested``
    (empty: there is none). ``verdict``: what stands on Plan; ``says``: texts that stand there or on Target disks."""

    size: int
    device: str = "/dev/sda"
    sector: int = 512
    full: bool = False
    suggested: str = ""
    onto: str = ""
    verdict: str = "The restore is possible"
    says: tuple[str, ...] = ()


SCRIPTS = {
    "laptop_windows": Script(size=500 * GIB, full=True, onto="/dev/nvme0n1", verdict="refused", says=("small",)),
    "dell_perc": Script(size=400 * GIB, suggested="/dev/sda"),
    "hp_smart_array": Script(size=480070426624, suggested="/dev/sda"),
    "multipath_sas": Script(size=2 * TIB, suggested="/dev/sdd"),
    "usb_only": Script(size=100 * GIB, onto="/dev/sda"),
    "fourkn": Script(size=4000787030016, sector=4096, suggested="/dev/sda"),
    "lvm_on_three_disks": Script(size=960197124096, suggested="/dev/sda", says=("useless without it",)),
    "proxmox_zfs": Script(size=960197124096, device="/dev/nvme0n1", suggested="/dev/nvme0n1"),
    "full_of_data": Script(size=100 * GIB, suggested="/dev/sda", says=("lost:",)),
    "jbod_24_bays": Script(size=4000787030016, device="/dev/sdc", suggested="/dev/sdy"),
    "md_members": Script(size=2000398934016, suggested="/dev/sdc"),
    "nvme_only": Script(size=3840755982336, device="/dev/nvme0n1", suggested="/dev/nvme2n1"),
    "vmware_pvscsi": Script(size=40 * GIB, suggested="/dev/sda"),
    "old_bios_mbr": Script(size=100 * GIB, suggested="/dev/sda", says=("reiserfs",)),
    "sd_module_no_driver": Script(size=20 * GIB),
    "nvme_secure_boot": Script(size=100 * GIB, suggested="/dev/nvme0n1"),
    "small_server": Script(size=100 * GIB, suggested="/dev/sdb"),
    "tiny_vm": Script(size=10 * GIB, suggested="/dev/vda", verdict="refused", says=("memory",)),
}  # fmt: skip


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A host for each script, whose disk is all holes."""
    made = new_repository(tmp_path_factory.mktemp("rehearsal") / "repository")
    for host, script in SCRIPTS.items():
        map = MapBuilder(script.size, MIB).finish()
        name = made.put_map(encode_map(map, made.keys))
        source = disk(
            size=script.size, device=script.device, sector_size=script.sector, root=map.root().hex(),
            used=script.size if script.full else script.size // 4,
        )  # fmt: skip
        planned = point(
            source, firmware=recorded(host).firmware, system=SystemFacts(root="disk1:2", os_name="Debian 13")
        )
        header = msgspec.structs.replace(
            planned.header, host=host, repository=made.id, maps=(DiskMapRef(disk="disk1", map=name),)
        )
        made.commit(header, planned.body)
    return made


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Network stays until a key is pressed, whatever addresses this machine has."""
    monkeypatch.setattr(network_screen, "POLL_SECONDS", 3600.0)


def rehearsal(repository: Repository, machine: str) -> Rehearsal:
    root = getattr(repository.store, "root")  # noqa: B009 - a directory store has one
    return Rehearsal(RecordedProber(recorded(machine), root))


def test_there_is_a_script_for_every_machine() -> None:
    assert set(SCRIPTS) == set(MACHINES)
    assert len(SCRIPTS) >= 12


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in MACHINES]
)
def test_the_operator_goes_as_far_as_the_confirmation(name: str, repository: Repository) -> None:
    script = SCRIPTS[name]
    engine = rehearsal(repository, name)

    async def test() -> None:
        async with console_of(engine) as c:
            await to_targets(c, name)
            source = sources(c)[0]
            chosen = c.app.session.machine.disk(c.app.session.targets.get(source.name, ""))
            assert (chosen.path if chosen else "") == script.suggested
            await look_at_each_disk(c)
            if script.onto:
                await choose(c, script.onto)
            wanted = script.onto or script.suggested
            c.app.screen.query_one("#continue").focus()
            await c.press("enter")
            if not wanted:
                await c.shows("No disk has a target")
                return
            await c.on("Plan")
            await c.until(lambda: c.app.session.plan is not None, "a plan")
            await c.shows(script.verdict)
            plan = c.app.session.plan
            assert isinstance(plan, RestorePlan)
            assert [a.target.path for a in plan.assignments] == [wanted]
            problems = "".join(str(problem) for problem in plan.problems)
            for text in script.says:
                if text not in problems:
                    await c.shows(text)  # the verdict can be drawn a frame before the rest
            if not plan.allowed:
                await c.shows("( Continue )")
                return
            await c.press("enter")
            await c.on("Confirm")
            await c.type(plan.assignments[0].target.confirmation)
            await c.press("enter")
            await c.shows("[>Back<]")
            await c.press("left")
            await c.shows("[>Restore now<]")
            await c.press("enter")
            await c.shows("This is a rehearsal in front of a recorded machine: nothing is written.")

    try:
        run(test)
        assert engine.state().phase == "idle"
    finally:
        engine.close()


async def to_targets(c: Console, host: str) -> None:
    """From Task to Target disks, with the repository on a disk of the machine."""
    await c.task()
    await c.until(lambda: c.title in ("Rekindle · Network", "Rekindle · Repository"), "Network or Repository")
    if c.title.endswith("Network"):
        c.app.screen.query_one("#continue").focus()
        await c.press("enter")
    await c.on("Repository")
    await c.shows(", repository ")
    c.app.screen.query_one("#places").focus()
    await c.press("down", "enter")
    await c.type(PASSPHRASE)
    await c.press("enter")
    await c.on("Host")
    hosts = c.app.session.repository.hosts if c.app.session.repository else ()
    await c.press(*["down"] * hosts.index(host), "enter")
    await c.on("Point")
    await c.until(lambda: "reading" not in c.text.lower(), "its details")
    await c.press("enter")
    await c.on("Target disks")


def sources(c: Console) -> tuple[PointDisk, ...]:
    assert c.app.session.point is not None
    return c.app.session.point.body.disks


def listed(c: Console) -> tuple[Disk, ...]:
    return c.app.session.machine.disks


async def look_at_each_disk(c: Console) -> None:
    """Go through the list; Enter on a disk that must not be written says why, and chooses nothing."""
    before = dict(c.app.session.targets)
    for target in listed(c):
        if not unavailable(target):
            continue
        await enter_on(c, target.path)
        await c.shows(f"{short_name(target.path)} cannot be chosen.")
        await c.press("enter")
        await c.on("Target disks")
        assert c.app.session.targets == before


async def choose(c: Console, path: str) -> None:
    await enter_on(c, path)
    target = c.app.session.machine.disk(path)
    assert target is not None
    await c.until(lambda: c.app.session.targets == {"disk1": target.id}, f"{path} chosen")


async def enter_on(c: Console, path: str) -> None:
    c.app.screen.query_one("#targets").focus()
    await c.press("home", *["down"] * [d.path for d in listed(c)].index(path), "enter")


def test_nothing_else_changes_this_machine_either(repository: Repository) -> None:
    engine = rehearsal(repository, "small_server")
    try:
        for action in (
            lambda: engine.reboot(power_off=True),
            lambda: engine.remote_access(ssh=True),
            lambda: engine.start("x", {}),
        ):
            with pytest.raises(UsageError, match="rehearsal"):
                action()
        assert not engine.remote_access().ssh
        assert engine.answers().text == ""
    finally:
        engine.close()


def test_the_command_serves_a_rehearsal(tmp_path: Path) -> None:
    service = Service(tmp_path, "--machine", str(MACHINE_FILES / "small_server.json"))
    try:
        client = service.client()
        assert [d.path for d in client.machine().disks] == [d.path for d in recorded("small_server").disks]
        with pytest.raises(UsageError, match="rehearsal"):
            client.reboot()
    finally:
        service.close()


@pytest.mark.parametrize("words", [["--machine", "small_server.json", "--loops"], ["--repository", "."]])
def test_what_does_not_go_together_is_refused(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(MACHINE_FILES)
    done = CliRunner().invoke(engine_command, words)
    assert isinstance(done.exception, UsageError)
    assert "--machine" in done.exception.message
