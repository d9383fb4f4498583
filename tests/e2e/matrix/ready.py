"""A source made ready: built, booted once on its own machine to see how good it is, and captured; cached."""

from __future__ import annotations

import dataclasses
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import msgspec
from rekindle_image.scratch import scratch_folder
from rekindle_image.workshop import content_hash

from recovery.capture.pipeline import capture
from recovery.capture.request import CaptureRequest
from recovery.commands import run
from recovery.format.point import Point
from recovery.repository.index import SqliteIndex
from recovery.repository.repository import Repository
from recovery.repository.store import open_local
from tests.e2e.lab.accel import Acceleration
from tests.e2e.lab.hardware import DiskSpec, Hardware
from tests.e2e.lab.host_image.rootfs import Say
from tests.e2e.lab.qemu import Machine
from tests.e2e.matrix import image, network, observe
from tests.e2e.matrix.model import Source
from tests.e2e.matrix.observe import Seen
from tests.e2e.matrix.rootfs import base, cache_folder, locked

PASSPHRASE = "correct horse battery staple"  # noqa: S105 - of repositories that hold test systems only
#: Seconds with KVM until a source has booted; the lab's slowness multiplies them.
BOOT = 60


@dataclass(frozen=True)
class Ready:
    """A captured source: its repository, and how it was on its own machine."""

    source: Source
    folder: Path
    before: Seen

    @property
    def repository(self) -> Path:
        """The repository's directory; its one host has the source's name."""
        return self.folder / "repository"

    def open(self) -> tuple[Repository, Point]:
        """The repository and the point in it."""
        repository = Repository.open(open_local(self.repository), PASSPHRASE)
        return repository, repository.point(self.source.name, "latest")


class _Story(msgspec.Struct):
    before: Seen
    built: float
    booted: float
    captured: float
    used: int


def source_key(source: Source) -> str:
    """What decides what a source holds, but for the versions of its packages, and how it is captured."""
    here = Path(__file__).parent
    room = here.parents[2] / "recovery"
    files = [here / f"{name}.py" for name in ("image", "layout", "network", "rootfs", "ready", "observe")]
    code = [room / "capture", room / "format", room / "repository", here.parent / "lab/host_image/grub.py"]
    facts = dataclasses.asdict(source)
    facts.pop("title")
    return content_hash(repr(facts), *files, *code)


def ready(source: Source, cache: Path, accel: Acceleration, say: Say) -> Ready:
    """The source from the cache, or made now (minutes). Raises CommandError, LabError."""
    folder = cache_folder(cache) / f"source-{source.name}-{source_key(source)}"
    system = base(source.suite, source.packages, cache, say)
    with locked(cache_folder(cache) / f"source-{source.name}.lock"):
        if not folder.is_dir():
            for old in folder.parent.glob(f"source-{source.name}-*/"):
                run(["rm", "-rf", old])
            with scratch_folder(folder.parent) as work:
                made = work / "source"
                made.mkdir()
                _make(source, system, made, work, accel, say)
                made.rename(folder)
    story = msgspec.json.decode((folder / "story.json").read_bytes(), type=_Story)
    return Ready(source, folder, story.before)


def _make(source: Source, system: Path, made: Path, work: Path, accel: Acceleration, say: Say) -> None:
    times = [time.monotonic()]
    disk = work / "disk.img"
    image.build(source, system, disk, say)
    times.append(time.monotonic())
    say(f"{source.name}: starting it on its own machine")
    before = _boot(source, disk, work, accel)
    if wrong := observe.broken(observe.judge(source, before, before)):
        raise observe.LabError(
            f"The source {source.name} is not good on its own machine: {'; '.join(wrong)}. {before}"
        )
    times.append(time.monotonic())
    say(f"{source.name}: capturing")
    # The image that was booted: a host has a machine-id, its journal, a swap area that was used.
    repository, _ = Repository.create(open_local(made / "repository", create=True), PASSPHRASE)
    request = CaptureRequest(host=source.name, disks=(disk,), firmware=source.boots[0])
    index = SqliteIndex(":memory:")
    point = capture(repository, index, request, lambda _: None, threading.Event())
    times.append(time.monotonic())
    built, booted, captured = (round(b - a, 1) for a, b in zip(times, times[1:], strict=False))
    story = _Story(before, built, booted, captured, sum(d.used for d in point.body.disks))
    (made / "story.json").write_bytes(msgspec.json.encode(story))


def own_machine(source: Source, disk: Path) -> Hardware:
    """The machine that the source comes from."""
    firmware = source.boots[0]
    return Hardware(
        firmware, (DiskSpec(disk, source.bus, source.serial),), nic="e1000e", nic_slot=3, mac=network.MAC, memory=1024,
    )  # fmt: skip


def _boot(source: Source, disk: Path, work: Path, accel: Acceleration) -> Seen:
    hardware = own_machine(source, disk)
    # The boot entry of its own machine is not on the disk; the fallback path does for this one boot.
    if hardware.firmware == "uefi":
        image.add_fallback(source, disk)
    limit = BOOT * accel.slowness
    with Machine(hardware, work / "vm", accel) as machine:
        seen, _ = observe.look(machine, source.name, 0, limit)
        machine.serial_send("systemctl poweroff\n")
        machine.wait_for_power_off(limit)
    if hardware.firmware == "uefi":
        image.remove_fallback(source, disk)
    return seen
