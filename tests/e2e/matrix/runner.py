"""One cell: restore the source onto the target's disk, make it boot there, boot it, look, boot it again."""

from __future__ import annotations

import contextlib
import json
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from recovery.commands import run
from recovery.engine.planning import plan_recorded
from recovery.errors import RekindleError
from recovery.format.point import Point
from recovery.machine.model import Machine as MachineFacts
from recovery.plan.model import Choices, RestorePlan
from recovery.repository.repository import Repository
from recovery.restore.disk import restore_disk
from tests.e2e.lab.accel import Acceleration
from tests.e2e.lab.hardware import DiskSpec, Hardware, emulator_version, make_blank_disk
from tests.e2e.lab.host_image.rootfs import Say
from tests.e2e.lab.medium_shell import GUEST_SHARE, MediumFiles, MediumShell, medium_shell
from tests.e2e.lab.qemu import LabError, Machine
from tests.e2e.lab.server import CHECKOUT
from tests.e2e.matrix import catalogue, observe
from tests.e2e.matrix.model import Cell, Source, Target
from tests.e2e.matrix.ready import BOOT, PASSPHRASE, Ready, ready
from tests.e2e.matrix.results import PROMISES_BROKEN, Result, code_key, target_facts

SERIAL = "NEWDISK01"
_MAC = "52:54:00:ab:cd:ef"
#: Another slot than the source's card had, so that it gets another name.
_SLOT = 7
#: Seconds with KVM; the lab's slowness multiplies them. An emulated processor packs an initramfs for minutes.
_ADAPT = 300
_SECTORS = {"512": (512, 512), "512e": (512, 4096), "4Kn": (4096, 4096)}
_MEDIUM_MEMORY = 1024


@dataclass
class World:
    """What cells share. ``scratch`` holds a folder a cell while it runs; kept for those that fail with ``keep``."""

    cache: Path
    scratch: Path
    files: MediumFiles
    accel: Acceleration
    keep: bool = False
    inside: bool = False
    """Restore on the medium in QEMU, instead of outside of it onto the image file."""


@dataclass
class _Run:
    """A cell on its way: its result is filled in as far as it comes."""

    cell: Cell
    world: World
    say: Say
    result: Result
    folder: Path
    source: Source = field(init=False)

    def __post_init__(self) -> None:
        self.source = catalogue.SOURCES[self.cell.source]

    @property
    def disk(self) -> Path:
        return self.folder / "target.img"

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time a phase."""
        self.say(f"{self.cell.name}: {name}")
        start = time.monotonic()
        try:
            yield
        finally:
            self.result.seconds[name] = round(time.monotonic() - start, 1)


def run_cell(cell: Cell, world: World, say: Say) -> Result:
    """Run one cell to its result. Never raises for what the cell does; what goes wrong is in the result."""
    result = Result(
        cell=cell.name, source=cell.source, target=target_facts(cell), status="lab-failed",
        accelerator=world.accel.kind, emulator=emulator_version(), at=round(time.time()), code=code_key(),
        revision=_revision(),
    )  # fmt: skip
    running = _Run(cell, world, say, result, world.scratch / cell.name)
    try:
        if reason := catalogue.untestable(cell.target):
            result.status, result.reason = "untested", reason
            return result
        _run(running)
    except (LabError, RekindleError, OSError) as error:
        result.reason = result.reason or f"{type(error).__name__}: {error}"[:3000]
    finally:
        if result.status in PROMISES_BROKEN and (fault := _emulators_fault(running)):
            result.status, result.reason = "lab-failed", fault
        if not world.keep or result.status in ("booted", "refused"):
            shutil.rmtree(running.folder, ignore_errors=True)
    return result


def _emulators_fault(running: _Run) -> str:
    """What QEMU is known to do wrong and did here; empty when it was not that."""
    line = running.folder / "vm/serial.log"
    said = line.read_bytes().decode(errors="replace") if line.exists() else ""
    # megasas_complete_cmd_dpc: "Unexpected context value".
    if running.cell.target.bus == "megasas" and "kernel BUG at drivers/scsi/megaraid/megaraid_sas_base.c" in said:
        return "QEMU's MegaRAID gave Linux's driver an answer to no question (kernel BUG at megaraid_sas_base.c)"
    return ""


def _run(running: _Run) -> None:
    cell, world, result = running.cell, running.world, running.result
    with running.phase("source"):
        source = ready(running.source, world.cache, world.accel, running.say)
    shutil.rmtree(running.folder, ignore_errors=True)
    make_blank_disk(running.disk, disk_size(running.source, cell.target))
    if not _restore_and_adapt(running, source):
        return
    result.status = "no-boot"
    limit = BOOT * world.accel.slowness
    if cell.target.nvram == "lost":
        (running.folder / "vm/OVMF_VARS.fd").unlink(missing_ok=True)
    with Machine(hardware(cell.target, running.disk), running.folder / "vm", world.accel) as machine:
        try:
            with running.phase("first boot"):
                result.first, place = observe.look(machine, running.source.name, 0, limit)
            result.status = "broken"
            with running.phase("second boot"):
                result.second = observe.second_boot(machine, running.source.name, place, limit)
        except LabError as error:
            result.reason = _end_of(error)
            return
    result.checks = observe.judge(running.source, source.before, result.first)
    result.checks += observe.again(result.first, result.second)
    wrong = observe.broken(result.checks)
    result.status, result.reason = ("broken" if wrong else "booted"), "; ".join(wrong)


def disk_size(source: Source, target: Target) -> int:
    """Bytes: as large, four times as large, or seven eighths."""
    eighths = {"equal": 8, "larger": 32, "smaller": 7}[target.size]
    return source.disk * eighths // 8 << 20


def hardware(target: Target, disk: Path) -> Hardware:
    """The target machine with its one disk."""
    logical, physical = _SECTORS[target.sector]
    return Hardware(
        target.firmware, (DiskSpec(disk, target.bus, SERIAL, logical=logical, physical=physical),), nic=target.nic,
        nic_slot=_SLOT, mac=_MAC, memory=target.memory, chipset=target.chipset, cpu=target.cpu, end_at_reset=True,
    )  # fmt: skip


def _restore_and_adapt(running: _Run, source: Ready) -> bool:
    """On the medium on the target machine: probe, plan, restore, adapt. False when it ends here."""
    cell, world, result = running.cell, running.world, running.result
    machine = hardware(cell.target, running.disk)
    repository, point = source.open()
    with contextlib.ExitStack() as stack:
        with running.phase("medium"):
            shell = stack.enter_context(
                medium_shell(
                    running.folder,
                    firmware=machine.firmware,
                    disks=machine.disks,
                    nic=machine.nic,
                    nic_slot=machine.nic_slot,
                    mac=machine.mac,
                    memory=max(machine.memory, _MEDIUM_MEMORY),
                    chipset=machine.chipset,
                    accel=world.accel,
                    files=world.files,
                    say=running.say,
                )  # fmt: skip
            )
            facts = msgspec.json.decode(shell.check("rekindle machine --json 2> /dev/null"), type=MachineFacts)
        target = shell.disk(SERIAL)
        plan = _plan(point, facts, target)
        if refusals := [problem for problem in plan.problems if problem.severity == "error"]:
            result.status = "refused"
            result.reason = " ".join(f"{p.what} {p.why}" for p in refusals)
            return False
        # From here on the plan has promised that it boots.
        result.status = "adapt-failed"
        code, said = _on_medium(running, shell, repository, point, source, target)
        if code:
            result.reason = _error_of(said)
            # Kept with the cell's folder: what the kernel had to say.
            shell.run("dmesg | tail -60")
            return False
        shell.power_off()
    return True


def _plan(point: Point, facts: MachineFacts, target: str) -> RestorePlan:
    disk = facts.disk(target)
    choices = Choices(
        host=point.header.host, point=point.id, targets={point.body.disks[0].name: disk.id if disk else target},
        adapt=True, grow=True,
    )  # fmt: skip
    return plan_recorded(point, facts, choices)


def _on_medium(
    running: _Run, shell: MediumShell, repository: Repository, point: Point, source: Ready, target: str
) -> tuple[int, str]:
    """The restore, where it is to run, and the adaptation on the medium; its exit code and what it said."""
    # Hard links: the medium reads it below the folder that is shared.
    run(["cp", "-al", source.repository, shell.share / "repository"])
    secret = shell.share / "secret"
    secret.touch(0o600)
    secret.write_text(PASSPHRASE + "\n")
    access = f"--host {point.header.host} --secret-file {GUEST_SHARE}/secret --json"
    name = point.body.disks[0].name
    # Only the engine on the medium moves and shrinks what is on its way; a plain copy can be made from outside, which
    # spares an emulated processor the decoding.
    if running.world.inside or running.cell.target.size == "smaller" or running.cell.target.sector == "4Kn":
        running.result.restored = "on the medium in QEMU"
        with running.phase("restore and adapt"):
            words = f"--target {name}={target} --confirm {name}={SERIAL} --adapt"
            code, said = shell.run(f"rekindle restore {GUEST_SHARE}/repository {access} {words}", _ADAPT * 2)
    else:
        running.result.restored = "outside QEMU, onto the image file"
        with running.phase("restore"):
            restore_disk(repository, point, name, str(running.disk), lambda _: None, threading.Event())
            # The guest has read sectors of the disk when it was empty.
            shell.check(f"blockdev --flushbufs {target}; echo 3 > /proc/sys/vm/drop_caches")
        with running.phase("adapt"):
            words = f"{name}={target} --repository {GUEST_SHARE}/repository"
            code, said = shell.run(f"rekindle adapt {words} {access}", _ADAPT)
    report = _report_of(said)
    running.result.changes = list(report.get("changes", ()))
    running.result.warnings = list(report.get("warnings", ()))
    return code, said


def _json_lines(said: str) -> list[dict[str, Any]]:
    found = []
    for line in said.splitlines():
        with contextlib.suppress(ValueError):
            row = json.loads(line)
            if isinstance(row, dict):
                found.append(row)
    return found


def _report_of(said: str) -> dict[str, Any]:
    """The report of ``adapt --json`` or ``restore --json``."""
    for row in reversed(_json_lines(said)):
        if row.get("type") == "adapt-report":
            return dict(row)
        if row.get("type") == "report":
            return dict(row["report"])
    return {}


def _error_of(said: str) -> str:
    """The error that a command ended with, else its last words."""
    for row in reversed(_json_lines(said)):
        error = row.get("error", row)
        if isinstance(error, dict) and error.get("message") and row.get("type") != "message":
            return f"{error['message']} {error.get('hint', '')}".strip()
    return said.strip()[-2000:] or "it said nothing"


def _end_of(error: LabError) -> str:
    """The first line, and the last of what the machine said."""
    first, _, rest = str(error).partition("\n")
    return f"{first} ... {rest[-1200:]}" if rest else first


def _revision() -> str:
    """The commit that the checkout is at, for the report; empty when it is none."""
    try:
        done = run(["git", "-C", CHECKOUT, "describe", "--always", "--dirty"], check=False)
    except RekindleError:
        return ""
    return done.stdout.strip() if done else ""
