"""A source made ready: built, booted once on its own machine to see how good it is, and captured; cached."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Iterator
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
#: Seconds with KVM until a system has booted; the lab's slowness multiplies them. Most of it is for a loaded machine:
#: a BIOS that is emulated beside other work reads an initramfs for minutes.
BOOT = 240


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


def system_key(source: Source) -> str:
    """What decides what a source's disk holds, but for the versions of its packages."""
    here = Path(__file__).parent
    files = [here / f"{name}.py" for name in ("image", "layout", "network", "rootfs", "observe")]
    facts = dataclasses.asdict(source)
    facts.pop("title")
    return content_hash(repr(facts), *files, here.parent / "lab/host_image/grub.py")


def source_key(source: Source) -> str:
    """What decides what its repository holds: its disk, and the code that captures."""
    room = Path(__file__).parents[3] / "recovery"
    return content_hash(system_key(source), room / "capture", room / "format", room / "repository")


def ready(source: Source, cache: Path, accel: Acceleration, say: Say) -> Ready:
    """The source from the cache, or made now (minutes). Raises CommandError, LabError."""
    place = cache_folder(cache)
    system, folder = (
        place / f"system-{source.name}-{system_key(source)}",
        place / f"source-{source.name}-{source_key(source)}",
    )
    with locked(place / f"source-{source.name}.lock"):
        if not system.is_dir():
            disk = _built(source, cache, say)
            with _fresh(system, source) as made:
                run(["cp", "--sparse=always", disk, made / "disk.img"])
                _start(source, made, accel, say)
            disk.unlink()
        if not folder.is_dir():
            with _fresh(folder, source) as made:
                _capture(source, system / "disk.img", made, say)
    return Ready(source, folder, msgspec.json.decode((system / "seen.json").read_bytes(), type=Seen))


def build_only(source: Source, cache: Path, say: Say) -> Path:
    """The disk of a source that was never started, for ``ready`` to go on with. Raises CommandError."""
    with locked(cache_folder(cache) / f"source-{source.name}.lock"):
        return _built(source, cache, say)


def _built(source: Source, cache: Path, say: Say) -> Path:
    disk = cache_folder(cache) / f"image-{source.name}-{system_key(source)}.img"
    if not disk.exists():
        system = base(source.suite, source.packages, cache, say)
        for old in disk.parent.glob(f"image-{source.name}-*.img"):
            old.unlink()
        with scratch_folder(disk.parent) as work:
            image.build(source, system, work / "disk.img", say)
            (work / "disk.img").rename(disk)
    return disk


@contextlib.contextmanager
def _fresh(folder: Path, source: Source) -> Iterator[Path]:
    """A folder that appears under its name when the block is done; others of its kind go before."""
    kind = folder.name.partition("-")[0]
    for old in folder.parent.glob(f"{kind}-{source.name}-*/"):
        run(["rm", "-rf", old])
    with scratch_folder(folder.parent) as work:
        made = work / "made"
        made.mkdir()
        yield made
        made.rename(folder)


def _start(source: Source, made: Path, accel: Acceleration, say: Say) -> None:
    """Boot the disk on the source's own machine, look, and switch it off. Raises LabError when it is not good."""
    say(f"{source.name}: starting it on its own machine")
    before = _boot(source, made / "disk.img", made, accel)
    if wrong := observe.broken(observe.judge(source, before, before)):
        raise observe.LabError(
            f"The source {source.name} is not good on its own machine: {'; '.join(wrong)}. {before}"
        )
    (made / "seen.json").write_bytes(msgspec.json.encode(before))


def _capture(source: Source, disk: Path, made: Path, say: Say) -> None:
    """The disk as it was left: a host has its journal, and a swap area that was used."""
    say(f"{source.name}: capturing")
    repository, _ = Repository.create(open_local(made / "repository", create=True), PASSPHRASE)
    request = CaptureRequest(host=source.name, disks=(disk,), firmware=source.boots[0])
    capture(repository, SqliteIndex(":memory:"), request, lambda _: None, threading.Event())


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
