"""All of the adaptation of a disk of Windows, as ``rekindle adapt`` runs it: a disk whose partitions have devices."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from recovery.adapt import run as adapt_run
from recovery.adapt import steps as adapt_steps
from recovery.adapt.model import AdaptReport, AdaptRequest
from recovery.adapt.ntfs import facts_of
from recovery.adapt.run import adapt
from recovery.commands import Completed, run_real, use_runner
from recovery.events import Event, StepFinished
from recovery.format.point import Point
from recovery.machine.model import Disk, Machine
from recovery.units import MIB
from tests.integration.test_landing import loop
from tests.integration.test_windows_disks import WindowsHost, overrides, starts, states, uefi
from tests.support.windows_host import sh

__all__ = ["uefi"]  # the fixture

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0 or not Path("/dev/fuse").exists(), reason="needs root and FUSE"),
]


@contextlib.contextmanager
def disk(host: WindowsHost) -> Iterator[str]:
    """The host's disk as a device, with devices for its partitions."""
    with loop(host.image) as device:
        sh("partx", "--add", device)
        try:
            if not Path(f"{device}p3").exists():
                pytest.skip("partitions of loop devices get no devices here")
            yield device
        finally:
            sh("partx", "--delete", device, ok=(0, 1))


def without_udev(argv: Sequence[str], **options: object) -> Completed:
    """Programs as they are; where there is no udev, nobody has to be waited for."""
    words = ["true"] if argv[0] == "udevadm" and shutil.which("udevadm") is None else argv
    return run_real(words, **options)  # type: ignore[arg-type]


def run(point: Point, device: str, heard: list[Event], **asked: bool) -> AdaptReport:
    targets = {"disk1": Disk(id="x", path=device, size=_size(device), bus="nvme")}
    machine = Machine(firmware="uefi", memory=2**32, disks=tuple(targets.values()))
    request = AdaptRequest(point=point, targets=targets, machine=machine, **asked)  # type: ignore[arg-type]
    with use_runner(without_udev):
        return adapt(request, heard.append)


def _size(device: str) -> int:
    return int(sh("blockdev", "--getsize64", device))


@pytest.fixture(autouse=True)
def own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (adapt_run, adapt_steps):
        monkeypatch.setattr(module, "TARGET", tmp_path / "target")


@pytest.mark.parametrize("sleeps", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_windows_on_a_larger_disk(uefi: WindowsHost, sleeps: bool) -> None:  # noqa: F811
    if sleeps:
        states(uefi, "hibernated")
    point = uefi.capture()
    os.truncate(uefi.image, 160 * MIB)
    heard: list[Event] = []
    with disk(uefi) as device:
        report = run(point, device, heard, drop_hibernation=sleeps)
        assert 110 * MIB < facts_of(f"{device}p3").size < 160 * MIB
    said = " ".join(report.changes)
    assert ("was dropped" in said) == sleeps
    assert "stornvme" in said and "grew from" in said and "ntfs filesystem" in said and "backup GPT" in said
    assert [text for text in report.warnings if "was not proven" not in text] == []
    steps = [event.step for event in heard if isinstance(event, StepFinished)]
    assert "adapt.windows-loader" in steps and "adapt.initramfs" not in steps
    uefi.table = uefi.read_table()
    uefi.part = next(part for part in uefi.table.partitions if part.number == 3)
    hive = uefi.hive()
    assert set(starts(hive).values()) == {0} and overrides(hive) == []
    # Again, on a volume that Windows is asked to check by now.
    with disk(uefi) as device:
        again = run(point, device, [], drop_hibernation=sleeps)
    assert again.changes == () and [text for text in again.warnings if "was not proven" not in text] == []
