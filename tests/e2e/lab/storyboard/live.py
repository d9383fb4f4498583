"""The source host runs, with the agent on it, while its VMs and a writer of stamped records work; its power fails.

The writer tells us which record was safe (``told``). What came back must be a prefix of these records without a hole,
with all that were safe before the point's moment, and end at most ``LONGEST_LAG`` seconds before the power failed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import random
import shutil
import time
from pathlib import Path

from recovery.repository.repository import Repository
from recovery.repository.store import open_local
from tests.e2e.lab import host_agent
from tests.e2e.lab.accel import KERNEL_PARAMETER, Acceleration
from tests.e2e.lab.hardware import DiskSpec, Firmware, Hardware
from tests.e2e.lab.host_image import recipe
from tests.e2e.lab.host_image.build import mounted_root
from tests.e2e.lab.medium_shell import start_by_grub
from tests.e2e.lab.qemu import LabError, Machine
from tests.e2e.lab.storyboard.restored import Shell
from tests.e2e.lab.storyboard.stage import Stage
from tests.e2e.lab.storyboard.told import Listener, Safe, lag_of
from tests.support.prefix import WRITER, check_prefix

#: Seconds; the issue's: a point a minute, and what it takes to make and send one.
LONGEST_LAG = 75.0
#: The name of the old machine's disk there.
DISK = "/dev/sda"
_UNIT = "stamp-records"
_RECORDS = Path("srv/records")
_WRITER = Path(f"usr/local/sbin/{_UNIT}")
#: Seconds between two records, and more of them than a demonstration lasts.
_PAUSE, _MOST = 0.25, 50_000
#: Seconds with KVM. An emulated host boots two VMs that it emulates itself, and reads all of its disk meanwhile.
_START, _KEYFRAME, _MINUTE, _COMMAND = 150, 300, 90, 30
_WORDS = f"root=UUID={recipe.ROOT.uuid} ro console=tty0 console=ttyS0,115200 {KERNEL_PARAMETER}"


class LiveSource:
    """``minutes`` points by the minute are waited for, then a moment that ``seed`` chooses."""

    def __init__(self, stage: Stage, seed: int, minutes: int = 3) -> None:
        self._stage = stage
        self._source = random.Random(seed)
        self.seed, self._wanted = seed, minutes
        self._folder = stage.folder / "source"
        self._cut: float | None = None
        self._told: list[Safe] = []

    def install(self, disk: Path, setup: host_agent.AgentSetup, accel: Acceleration) -> dict[str, float | int | str]:
        """Agent and writer onto the host's disk. Returns figures for the phase. Raises CommandError."""
        if accel.kind != "kvm":
            # An emulated processor takes ten times as long for the same work.
            setup = dataclasses.replace(setup, freeze="10s")
        host_agent.install(disk, setup, self._stage.say)
        self._folder.mkdir(parents=True, exist_ok=True)
        with mounted_root(disk) as root:
            (root / _RECORDS).mkdir(parents=True)
            (root / _WRITER).write_text(WRITER)
            kernel = next((root / "boot").glob("vmlinuz-*"))
            self._version = kernel.name.removeprefix("vmlinuz-")
            shutil.copyfile(kernel, self._folder / "vmlinuz")
            shutil.copyfile(root / f"boot/initrd.img-{self._version}", self._folder / "initrd.img")
        return {"a point every": setup.journal, "freeze limit": setup.freeze}

    def hardware(self, firmware: Firmware, disk: Path, iso: Path) -> Hardware:
        """The old machine. Its kernel is started by QEMU, with Secure Boot by the signed loaders of the medium: nobody
        has entered the host's own loader in the NVRAM of this machine."""
        signed = firmware == "uefi-sb"
        return Hardware(
            firmware, (DiskSpec(disk, "sata", "OLDDISK1"),), nic_slot=recipe.NIC_SLOT, memory=3072,
            cdrom=iso if signed else None,
            kernel=None if signed else (self._folder / "vmlinuz", self._folder / "initrd.img", _WORDS),
        )  # fmt: skip

    def run(self, hardware: Hardware, accel: Acceleration, repository: Path, passphrase: str) -> None:
        """From power-on to the power cut. Raises LabError."""
        stage, patience = self._stage, accel.slowness
        listener, off = Listener(), _points(repository)
        with contextlib.closing(listener), Machine(hardware, self._folder / "vm", accel) as machine:
            shell = Shell(machine)
            try:
                with stage.phase("source", "The host runs: Debian's kernel, two VMs, the agent") as phase:
                    if hardware.firmware == "uefi-sb":
                        start_by_grub(machine, _grub_lines(self._version))
                    shell.log_in(_START * patience)
                    _, kernel = shell.run("uname -r; cat /sys/kernel/security/lockdown", _COMMAND * patience)
                    phase.figures["kernel"] = " ".join(kernel.split())
                with stage.phase("keyframe", "The agent reads all of the disk, and makes its first point") as phase:
                    self._wait(machine, repository, off + 1, _KEYFRAME * patience)
                    phase.figures |= _last(repository, passphrase)
                with stage.phase("minutes", "Records are written, and a point is made every minute") as phase:
                    self._start_writer(shell, listener.port, patience)
                    before = _points(repository)
                    self._wait(machine, repository, before + self._wanted, self._wanted * _MINUTE * patience)
                    phase.figures |= self._vms(shell, patience)
                    moment = self._source.uniform(0.0, 55.0)
                    self._stage.say(f"the power fails in {moment:.0f} s")
                    time.sleep(moment)
                    phase.figures |= {"points": _points(repository) - before, "seed": self.seed}
                    phase.figures |= _last(repository, passphrase)
                with stage.phase("power-cut", "The power fails in the middle of the work") as phase:
                    self._cut = time.time()
                    machine.lose_power()
                    time.sleep(1.0)  # what was on its way to us arrives
                    self._told = listener.records
                    phase.figures["records"] = len(self._told)
            except LabError:
                self._keep_traces(shell, _COMMAND * patience)
                raise
            finally:
                listener.write(stage.folder / "records.txt")
                shutil.copy(machine.serial_log, stage.folder / "serial-source.log")

    def _start_writer(self, shell: Shell, port: int, patience: float) -> None:
        # Bash opens the connection to us; the writer's words go there.
        words = f"exec python3 /{_WRITER} /{_RECORDS} {_PAUSE} {_MOST} > /dev/tcp/10.0.2.2/{port}"
        code, said = shell.run(f"systemd-run --quiet --unit={_UNIT} bash -c '{words}'", _COMMAND * patience)
        if code:
            raise LabError(f"The writer did not start: {said}")

    def _vms(self, shell: Shell, patience: float) -> dict[str, float | int | str]:
        _, said = shell.run("virsh list --name --state-running | xargs", _COMMAND * patience)
        return {"running VMs": said}

    def _wait(self, machine: Machine, repository: Path, count: int, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while (made := _points(repository)) < count:
            if not machine.running or time.monotonic() > deadline:
                raise LabError(f"There are {made} points instead of {count} after {timeout:.0f} s.")
            self._stage.say(f"{made} points")
            time.sleep(0.5)

    def _keep_traces(self, shell: Shell, timeout: float) -> None:
        """What a person would look at next, kept in the folder."""
        commands = [
            f"systemctl --no-pager status rekindle-agent {_UNIT}",
            "journalctl -b -u rekindle-agent --no-pager",
            "rekindle agent status",
            "journalctl -b -p warning --no-pager | tail -n 60",
        ]
        with (self._stage.folder / "source-trouble.txt").open("w") as file:
            for command in commands:
                try:
                    file.write(f"# {command}\n{shell.run(command, timeout)[1]}\n\n")
                except LabError as error:
                    file.write(f"# {command}\n{error}\n")
                    return

    def judge(self, target: Path, repository: Path, passphrase: str) -> None:
        """Look at the records on the restored host's disk, which nobody uses any more. Raises LabError."""
        if self._cut is None:
            raise LabError("The power has not failed.")
        opened = Repository.open(open_local(repository), passphrase)
        moment = opened.points(recipe.HOST_NAME)[-1].created
        what = "the records that came back are a prefix without a hole, with all that were safe before the point"
        try:
            with mounted_root(target) as root:
                count = check_prefix(root / _RECORDS, moment, [safe.there for safe in self._told])
            lag = lag_of(self._cut, self._told, count)
        except (AssertionError, ValueError) as error:
            self._note("prefix", what, False, str(error))
            return
        self._note("prefix", what, True, f"{count} came back, {len(self._told)} were told of")
        detail = f"{lag:.1f} s from the last record that came back to the power cut; a point every minute"
        self._note("lag", f"the host came back to its last minute: {lag:.0f} s before the power cut, of "
                   f"{LONGEST_LAG:.0f} allowed", lag <= LONGEST_LAG, detail)  # fmt: skip

    def _note(self, name: str, what: str, held: bool, detail: str) -> None:
        self._stage.verdict(what, self._stage.report.check(name, what, held, detail))


def _grub_lines(version: str) -> list[str]:
    return [
        f"search --no-floppy --fs-uuid --set=root {recipe.ROOT.uuid}",
        f"linux /boot/vmlinuz-{version} {_WORDS}",
        f"initrd /boot/initrd.img-{version}",
        "boot",
    ]


def _points(repository: Path) -> int:
    return len(list((repository / "points" / recipe.HOST_NAME).glob("*")))


def _last(repository: Path, passphrase: str) -> dict[str, float | int | str]:
    """How the newest point came about."""
    opened = Repository.open(open_local(repository), passphrase)
    point = opened.point(recipe.HOST_NAME, "latest")
    live = point.body.live
    if live is None:
        return {}
    kinds = {True: "journal", False: "keyframe"}
    return {
        "newest": kinds[any(disk.journals for disk in point.body.disks)], "tracker": live.tracker,
        "frozen ms": round(live.freeze_milliseconds), "consistency": point.body.consistency,
    }  # fmt: skip
