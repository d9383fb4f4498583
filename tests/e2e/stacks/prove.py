"""Captures the sources, restores them in the medium onto another bus by the real engine, and boots what came out."""

from __future__ import annotations

import json
import re
import secrets
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recovery.units import MIB
from tests.e2e.lab.accel import Acceleration
from tests.e2e.lab.hardware import DiskSpec, Hardware, make_blank_disk
from tests.e2e.lab.host_image.rootfs import Say
from tests.e2e.lab.medium_shell import GUEST_SHARE, MediumFiles, MediumShell, medium_shell
from tests.e2e.lab.qemu import LabError, Machine
from tests.e2e.lab.server import rekindle
from tests.e2e.stacks import layouts
from tests.e2e.stacks.layouts import Case, Check, Layout
from tests.e2e.stacks.sources import disk_path

#: Nothing of a run may contain it, but the file that it is read from.
_SECRET_FILE = f"{GUEST_SHARE}/luks-secret"
_NO_UNIT_FAILED = Check("no unit failed", "systemctl list-units --failed --plain --no-legend; echo end", r"^end\s*$")


@dataclass
class Outcome:
    """How a case went: what held, what did not (and why), times in seconds, what the report of the restore said."""

    case: str
    held: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    changes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def check(self, what: str, held: bool, detail: str = "") -> bool:
        """Note a check."""
        if held:
            self.held.append(what)
        else:
            self.failed[what] = detail[-3000:]
        return held


class Repository:
    """A repository in a directory, and its passphrase's file."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "repository"
        self.secret = folder / "repository-secret"
        if not self.path.exists():
            self.secret.touch(mode=0o600)
            self.secret.write_text(secrets.token_hex(8) + "\n")
            key = folder / "recovery-key"
            rekindle("repo", "init", self.path, "--passphrase-file", self.secret, "--recovery-key-file", key)


def capture(case: Case, folder: Path, repository: Repository, outcome: Outcome) -> None:
    """Capture the case's disks as a host of its own, and look at what the point says. Raises CommandError."""
    layout = layouts.layout(case.layout)
    images = [disk_path(folder, layout.name, number) for number in case.disks]
    start = time.monotonic()
    words: list[str | Path] = ["capture", repository.path, *images, "--format", "raw", "--host", case.name]
    lines = rekindle(*words, "--secret-file", repository.secret)
    outcome.seconds["capture"] = round(time.monotonic() - start, 1)
    body = next(line for line in lines if line.get("type") == "point")["body"]
    root = body["system"]["root"]
    outcome.check(f"the point names the root '{layout.point_root}'", root == layout.point_root, f"it names '{root}'")
    found = [volume["on"] for volume in body["luks_volumes"]]
    outcome.check("the point knows what is encrypted", bool(found) == bool(layout.passphrase), str(found))


def target_path(folder: Path, case: Case, number: int) -> Path:
    """The image of a target disk."""
    return folder / "targets" / f"{case.name}-{number}.img"


def target_disks(folder: Path, case: Case) -> tuple[DiskSpec, ...]:
    """The disks of the new machine."""
    return tuple(
        DiskSpec(target_path(folder, case, number), case.bus, f"NEW-{case.name}-{number}") for number in case.disks
    )


def restore_all(
    cases: Sequence[Case],
    folder: Path,
    repository: Repository,
    outcomes: dict[str, Outcome],
    say: Say,
    files: MediumFiles | None = None,
    prepare: Callable[[MediumShell], None] = lambda shell: None,
) -> None:
    """Restore every case in one guest, each onto blank disks of its own. Raises LabError, CommandError.

    ``prepare`` may do something in the shell beforehand.
    """
    disks: list[DiskSpec] = []
    for case in cases:
        sizes = [layouts.layout(case.layout).disks[number - 1] + case.larger for number in case.disks]
        for number, size in zip(case.disks, sizes, strict=True):
            make_blank_disk(target_path(folder, case, number), size * MIB)
        disks += target_disks(folder, case)
    with medium_shell(folder / "restore", disks=tuple(disks), memory=2048, files=files, say=say) as shell:
        shutil.copytree(repository.path, shell.share / "repository", copy_function=_link)
        shutil.copy(repository.secret, shell.share / "secret")
        prepare(shell)
        for case in cases:
            say(f"restoring {case.name} to {case.bus}")
            try:
                _restore(case, folder, shell, outcomes[case.name])
            except LabError as error:
                outcomes[case.name].check("the restore ends", False, str(error))
        shell.power_off()


def _link(source: str, target: str) -> str:
    Path(target).hardlink_to(source)
    return target


def _restore(case: Case, folder: Path, shell: MediumShell, outcome: Outcome) -> None:
    layout = layouts.layout(case.layout)
    words = f"rekindle restore {GUEST_SHARE}/repository --secret-file {GUEST_SHARE}/secret --host {case.name} --json"
    for place, disk in enumerate(target_disks(folder, case), 1):
        words += f" --target disk{place}={shell.disk(disk.serial)} --confirm disk{place}={disk.serial}"
    if layout.passphrase:
        _refusals(layout, words, shell, outcome)
        words += f" --luks-secret-file {_SECRET_FILE}"
        (shell.share / "luks-secret").write_text(layout.passphrase + "\n")
    start = time.monotonic()
    code, output = shell.run(words, 900)
    outcome.seconds["restore and adapt"] = round(time.monotonic() - start, 1)
    outcome.check("the restore ends well", code == 0, output)
    report = _report(output)
    outcome.changes, outcome.warnings = report.get("changes", []), report.get("warnings", [])
    said = "\n".join(outcome.warnings)
    if case.warns:
        outcome.check(f"it warns: {case.warns}", bool(re.search(case.warns, said)), said)
    if layout.passphrase:
        log = shell.run("cat /var/log/rekindle/engine.log; journalctl --no-pager 2>/dev/null", 60)[1]
        told = layout.passphrase in log + output
        outcome.check("the passphrase is in no log and no output", not told, "it is")
    left = shell.run("ls /dev/mapper; cat /proc/mdstat; mount | grep rekindle", 30)[1]
    clean = not re.search(r"vg|crypt|^md\d|/run/rekindle/target", left, re.MULTILINE)
    outcome.check("nothing stays assembled or mounted", clean, left)


def _refusals(layout: Layout, words: str, shell: MediumShell, outcome: Outcome) -> None:
    """Without the passphrase, and with a wrong one, nothing is written."""
    disk = words.partition("--target disk1=")[2].split()[0]
    code, output = shell.run(words, 300)
    outcome.check("without the passphrase the plan is refused", code == 11 and "luks-secret-missing" in output, output)
    (shell.share / "luks-secret").write_text("not the passphrase\n")
    code, output = shell.run(f"{words} --luks-secret-file {_SECRET_FILE}", 300)
    outcome.check("with a wrong one it is refused", code == 11 and "luks-secret-wrong" in output, output)
    blank = shell.run(f"cmp -n 4194304 {disk} /dev/zero", 60)
    outcome.check("and nothing was written", blank[0] == 0, blank[1])


def _report(output: str) -> dict[str, Any]:
    for line in reversed(output.splitlines()):
        if line.startswith("{") and '"type":"report"' in line.replace('": "', '":"'):
            found: dict[str, Any] = json.loads(line)["report"]
            return found
    return {}


def boot(case: Case, folder: Path, accel: Acceleration, outcome: Outcome, say: Say) -> None:
    """Boot what was restored, type the passphrase where one is asked for, log in, and ask."""
    layout = layouts.layout(case.layout)
    hardware = Hardware("bios", target_disks(folder, case), memory=1024)
    start = time.monotonic()
    say(f"booting {case.name}")
    with Machine(hardware, folder / "boot" / case.name, accel) as machine:
        try:
            _log_in(machine, layout, accel.slowness)
            outcome.seconds["boot to login"] = round(time.monotonic() - start, 1)
            outcome.check("root logs in", True)
            for check in (*layout.checks, *case.checks, _NO_UNIT_FAILED):
                said = _ask(machine, check.command, 30 * accel.slowness)
                outcome.check(check.what, bool(re.search(check.shows, said, re.MULTILINE)), said)
        except LabError as error:
            outcome.check("root logs in, and the host answers", False, str(error))


def _log_in(machine: Machine, layout: Layout, slowness: float) -> None:
    at = 0
    if layout.passphrase:
        at = machine.wait_for_serial(r"Please unlock disk \S+", 60 * slowness)
        time.sleep(slowness)
        machine.serial_send(layout.passphrase + "\n")
    at = machine.wait_for_serial(rf"{layout.host} login: ", 90 * slowness, since=at)
    machine.serial_send("root\n")
    at = machine.wait_for_serial(r"Password: ", 30 * slowness, since=at)
    machine.serial_send(f"{layouts.ROOT_PASSWORD}\n")
    machine.wait_for_serial(rf"root@{layout.host}", 60 * slowness, since=at)
    _ask(machine, "dmesg -n 1; bind 'set enable-bracketed-paste off'; stty -echo; TERM=dumb; PS1=", 30 * slowness)


def _ask(machine: Machine, command: str, timeout: float) -> str:
    mark = secrets.token_hex(4)
    start = len(machine.serial_text())
    # The mark in two halves, so that its echo is not taken for the answer.
    machine.serial_send(f"echo {mark[:4]}''{mark[4:]}; {command}; echo {mark[:4]}''{mark[4:]} end\n")
    end = machine.wait_for_serial(rf"{mark} end", timeout, since=start)
    text = machine.serial_text()[start:end].replace("\r", "")
    return text.split(mark)[1].strip()
