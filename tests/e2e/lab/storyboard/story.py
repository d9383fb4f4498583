"""The story: a virtualization host is captured twice, dies, and comes back elsewhere, as it was at the first point.

``Options.live``: it runs instead, captured by its own agent, until its power fails, and comes back to its last minute.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from recovery.commands import run
from recovery.units import GIB, format_size
from tests.e2e.lab.accel import KERNEL_PARAMETER, Acceleration, best_acceleration
from tests.e2e.lab.hardware import DiskSpec, Firmware, Hardware, free_port, make_blank_disk
from tests.e2e.lab.host_agent import AgentSetup
from tests.e2e.lab.host_image import build, recipe
from tests.e2e.lab.qemu import LabError, Machine
from tests.e2e.lab.screen import ScreenReader
from tests.e2e.lab.server import Serving, rekindle, serving
from tests.e2e.lab.storyboard.live import DISK, LiveSource
from tests.e2e.lab.storyboard.operator import Operator, Task, restore_figures
from tests.e2e.lab.storyboard.power import PowerLosses
from tests.e2e.lab.storyboard.report import DemoReport, Phase
from tests.e2e.lab.storyboard.restored import Shell, check_host
from tests.e2e.lab.storyboard.stage import Stage

TARGET_SIZE = 12 * GIB
TARGET_SERIAL = "NEWDISK42"
HOST = recipe.HOST_NAME


@dataclass(frozen=True)
class Options:
    """``folder`` is this run's own. With ``keep`` disks and repository stay in it, else only report and pictures."""

    folder: Path
    firmware: Firmware = "uefi"
    keep: bool = False
    interactive: bool = False
    power_losses: PowerLosses | None = None
    """The power of the new machine fails in the middle of the restore."""
    live: LiveSource | None = None
    """The source host runs with the agent on it, until its power fails."""


@dataclass
class Story:
    """What the phases hand to each other."""

    stage: Stage
    options: Options
    image: build.HostImage
    accel: Acceleration
    disk: Path
    repository: Path
    passphrase: str
    server: Serving

    @property
    def url(self) -> str:
        """The server as the command line on this machine reaches it."""
        return f"https://127.0.0.1:{self.server.port}"


def play(options: Options, stage: Stage) -> DemoReport:
    """Play it and return the report, also when something failed: then it says what."""
    report = stage.report
    start = time.monotonic()
    options.folder.mkdir(parents=True, exist_ok=True)
    try:
        _play(options, stage)
    except KeyboardInterrupt:
        report.error = "Stopped by the operator."
    except Exception as error:
        report.error = f"{type(error).__name__}: {error}"
    finally:
        report.seconds = round(time.monotonic() - start, 1)
        report.judge()
        report.write(options.folder / "report.json")
        if not options.keep:
            _clean(options.folder)
    return report


def _clean(folder: Path) -> None:
    for name in ("repository", "repository-server", "recovery.iso", "host.img", "new-disk.img", "secrets", "source"):
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _play(options: Options, stage: Stage) -> None:
    folder, report = options.folder, stage.report
    with stage.phase("host", "Build a virtualization host (Debian, libvirt, two VMs)") as phase:
        image = build.build(stage.say)
        disk = folder / "host.img"
        run(["cp", "--sparse=always", "--reflink=auto", image.disk, disk])
        phase.figures |= {"disk": format_size(recipe.DISK_SIZE), "cached": "yes" if image.cached else "no"}
    with stage.phase("accelerator", "Find out how fast this machine can emulate") as phase:
        accel = best_acceleration(image.kernel)
        report.accelerator = accel.kind
        phase.figures["accelerator"] = accel.kind
    (folder / "secrets").mkdir(mode=0o700)
    passphrase = secrets.token_hex(8)
    port = free_port()[0]
    with contextlib.ExitStack() as stack:
        with stage.phase("server", "Create a repository and serve it over HTTPS"):
            repository = folder / "repository"
            secret = _secret(folder, "passphrase", passphrase)
            key = folder / "secrets/recovery-key"
            rekindle("repo", "init", repository, "--passphrase-file", secret, "--recovery-key-file", key)
            log = folder / "server.log"
            server = stack.enter_context(serving(repository, log, port, names=("10.0.2.2",)))
            password = _secret(folder, "capture-password", secrets.token_hex(12))
            role = ["--role", "capture", "--host", HOST]
            rekindle("user", "add", "agent", *role, "--password-file", password, "--state", server.state)
        story = Story(stage, options, image, accel, disk, repository, passphrase, server)
        if options.live is None:
            _capture_twice(story)
            iso = _build_iso(story)
        else:
            iso = _build_iso(story)
            _run_source(story, options.live, iso)
        with stage.phase("death", "The host dies: its disk is gone"):
            disk.unlink()
        target = make_blank_disk(folder / "new-disk.img", TARGET_SIZE)
        with stage.phase("check-repository", "Check every byte of the repository") as phase:
            _check_repository(story, phase)
        hardware = _new_hardware(options.firmware, target)
        report.source = {
            "bus": "SATA",
            "disk": format_size(recipe.DISK_SIZE),
            "nic": f"virtio-net ({recipe.NIC_NAME})",
        }
        report.target = {
            "bus": "NVMe",
            "disk": format_size(TARGET_SIZE),
            "nic": "e1000e",
            "firmware": options.firmware,
        }
        _recover(story, hardware, iso)
        _return(story, hardware)


def _capture_twice(story: Story) -> None:
    stage = story.stage
    with stage.phase("capture-older", "Capture the host: the older point") as phase:
        _capture(story, "before the change", phase)
    with stage.phase("change", "Change the host: data encrypted by a stranger, both VMs' disks changed"):
        build.change(story.disk, story.image.facts, "newer")
    with stage.phase("capture-newer", "Capture the host again: the newer point") as phase:
        _capture(story, "after the change", phase)


def _run_source(story: Story, live: LiveSource, iso: Path) -> None:
    stage, folder = story.stage, story.options.folder
    with stage.phase("agent", "Install the agent on the host") as phase:
        password = (folder / "secrets/capture-password").read_text().strip()
        url = f"https://10.0.2.2:{story.server.port}"
        setup = AgentSetup(url, story.server.ca_fingerprint, "agent", password, story.passphrase, DISK)
        phase.figures |= live.install(story.disk, setup, story.accel)
    # What an emulated host need not compress and encrypt itself.
    with stage.phase("capture-off", "Capture the host once while it is off") as phase:
        _capture(story, "before it ran", phase)
    hardware = live.hardware(story.options.firmware, story.disk, iso)
    live.run(hardware, story.accel, story.repository, story.passphrase)


def _secret(folder: Path, name: str, text: str) -> Path:
    path = folder / "secrets" / name
    path.touch(mode=0o600)
    path.write_text(text + "\n")
    return path


def _capture(story: Story, note: str, phase: Phase) -> None:
    secret = story.options.folder / "secrets"
    before = _stored(story.repository)
    lines = rekindle(
        "capture", story.url, story.disk, "--host", HOST, "--note", note, "--ca", story.server.ca_fingerprint,
        "--firmware", "bios" if story.options.firmware == "bios" else "uefi",
        "--user", "agent", "--password-file", secret / "capture-password", "--secret-file", secret / "passphrase",
        say=_progress(story.stage),
    )  # fmt: skip
    point = next(line for line in lines if line.get("type") == "point")
    disks, vms = point["body"]["disks"], point["body"]["vms"]
    phase.figures |= {
        "point": point["id"][:12],
        "vms": ", ".join(vm["name"] for vm in vms),
        "logical": sum(disk["size"] for disk in disks),
        "stored": _stored(story.repository) - before,
    }
    names = sorted(vm["name"] for vm in vms)
    if names != sorted(recipe.VIRTUAL_MACHINES):
        raise LabError(f"The capture found the VMs {names}, not {sorted(recipe.VIRTUAL_MACHINES)}.")


def _stored(repository: Path) -> int:
    return sum(path.stat().st_size for path in repository.rglob("*") if path.is_file())


def _progress(stage: Stage) -> Callable[[str], None]:
    """Turns the JSON lines of a command into what the stage says."""

    def hear(line: str) -> None:
        with contextlib.suppress(ValueError):
            event = json.loads(line)
            if event.get("type") == "progress" and event.get("total"):
                stage.say(f"{event.get('note') or event['step']}: {100 * event['done'] // event['total']} %")
            elif event.get("type") in ("step-started", "message"):
                stage.say(event.get("title") or event.get("text") or "")

    return hear


def _build_iso(story: Story) -> Path:
    iso = story.options.folder / "recovery.iso"
    url = f"https://10.0.2.2:{story.server.port}"
    words: list[str | Path] = ["--server", url, "--ca", story.server.ca_fingerprint, "--output", iso]
    with story.stage.phase("iso", "Build the recovery medium") as phase:
        # Packed fast: the medium of a demonstration lives for minutes.
        words += ["--firmware", "none", "--compression", "3", "--kernel-parameter", KERNEL_PARAMETER]
        lines = rekindle("iso", "build", *words, say=_progress(story.stage))
        phase.figures["iso"] = next(line for line in lines if line.get("type") == "medium")["size"]
    return iso


def _check_repository(story: Story, phase: Phase) -> None:
    secret = story.options.folder / "secrets/passphrase"
    hear = _progress(story.stage)
    lines = rekindle("repo", "check", story.repository, "--read-data", "--secret-file", secret, say=hear)
    found = next(line for line in lines if line.get("type") == "check-report")
    phase.figures |= {"points": found["points"], "packs": found["packs"]}
    story.stage.report.check("repository", "every byte of the repository is whole", bool(found["ok"]))


def _new_hardware(firmware: Firmware, target: Path) -> Hardware:
    """Other hardware than the host had: NVMe for SATA, a larger disk, an Intel card in another slot for virtio."""
    return Hardware(
        firmware,
        (DiskSpec(target, "nvme", TARGET_SERIAL),),
        nic="e1000e",
        nic_slot=7,
        mac="52:54:00:ab:cd:ef",
        memory=3072,
        forwards={free_port()[0]: (recipe.ADDRESS, 22)},
    )


def _recover(story: Story, hardware: Hardware, iso: Path) -> None:
    stage, folder, patience = story.stage, story.options.folder, story.accel.slowness
    reader = ScreenReader.default(iso.with_suffix(".psf"))
    viewer = f"127.0.0.1:{_free_display()}" if story.options.interactive else ""
    medium = hardware.with_medium(iso, vnc=viewer)
    losses, pictures = story.options.power_losses, list[str]()
    if losses is not None:
        pictures = losses.happen(medium, story.accel, reader, lambda: _new_task(story))
    task = _new_task(story)
    with Machine(medium, folder / "vm", story.accel, reader) as machine:
        operator = Operator(machine, folder / "screens", stage.say, patience)
        operator.taken = pictures
        try:
            with stage.phase("boot-medium", f"Boot the medium on new hardware ({hardware.firmware})"):
                operator.wait_for_console(120)
            if story.options.interactive:
                _by_hand(story, machine, task)
                return
            with stage.phase("choose", "Drive the console: network, repository, host, point, target, plan"):
                operator.choose(task)
            with stage.phase("restore", "Restore, and make it boot here") as phase:
                operator.restore(240)
                text = operator.result()
                stage.report.restore = restore_figures(text)
                phase.figures |= stage.report.restore
                if losses is not None:
                    losses.judge(stage.report.restore)
            (folder / "result.txt").write_text(text + "\n")
            operator.restart()
            # The disc is taken out while the machine restarts: QEMU ends instead of starting over.
            machine.wait_for_power_off(60 * patience)
        finally:
            stage.report.screenshots = operator.taken
            shutil.copy(machine.serial_log, folder / "serial-medium.log")


def _new_task(story: Story) -> Task:
    """What the operator gets from the server's administrator; its code works once."""
    lines = rekindle("code", "issue", "--host", HOST, "--valid", "4h", "--state", story.server.state)
    point = 0 if story.options.live else 1
    return Task(HOST, lines[0]["code"], story.passphrase, point=point, target_serial=TARGET_SERIAL)


def _free_display() -> int:
    """A VNC display number whose port (5900 and it) is free."""
    for number in range(100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", 5900 + number)) != 0:
                return number
    raise LabError("No port for a viewer is free between 5900 and 5999.")


def _by_hand(story: Story, machine: Machine, task: Task) -> None:
    """A person drives the console in a viewer."""
    console = story.stage.console
    address, display = machine.hardware.vnc.split(":")
    console.print(f"[bold]Your turn.[/] Point a VNC viewer at {address}, port {5900 + int(display)}.")
    which = "the older of two points" if task.point else "the newest point"
    console.print(f"  Host {task.host}, {which}. One-time code: {task.code}")
    console.print(
        f"  Passphrase of the repository: {task.passphrase}    Serial number of the disk: {task.target_serial}"
    )
    console.print("  Restart at the end; the demonstration goes on by itself.")
    with story.stage.phase("by-hand", "A person drives the console"):
        machine.wait_for_power_off(4 * 3600)


def _return(story: Story, hardware: Hardware) -> None:
    stage, folder = story.stage, story.options.folder
    with Machine(hardware, folder / "vm", story.accel) as machine:
        try:
            with stage.phase("boot-host", "Boot from the new disk, without the medium"):
                machine.wait_for_serial(rf"{HOST} login: ", 150 * story.accel.slowness)
            with stage.phase("checks", "Ask the restored host") as phase:
                check_host(stage, machine, next(iter(hardware.forwards)), "older", story.accel.slowness)
                phase.figures["held"] = sum(check.held for check in stage.report.checks)
                if story.options.live is not None:
                    Shell(machine).run("sync", 60 * story.accel.slowness)
        finally:
            with contextlib.suppress(LabError):
                machine.screenshot(folder / "screens/restored-host.png")
            shutil.copy(machine.serial_log, folder / "serial-host.log")
    if story.options.live is not None:
        with stage.phase("records", "Look for every record on the restored host's disk"):
            story.options.live.judge(hardware.disks[0].path, story.repository, story.passphrase)
