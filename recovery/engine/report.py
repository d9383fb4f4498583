"""The report of a run as files, and where they are kept for afterwards."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from recovery.adapt.luks import Passphrases
from recovery.adapt.mount import place_to_mount
from recovery.adapt.run import AdaptRequest, mounted
from recovery.adapt.stack import NOTHING
from recovery.commands import run
from recovery.engine.api import Report, RunState
from recovery.engine.journal import CONSOLE_REPORT
from recovery.errors import ErrorReport, NotFoundError, RekindleError, SpaceError
from recovery.format.point import Point
from recovery.machine.model import Disk, Machine
from recovery.machine.probe_disks import partition_path

REPORT = "report.json"
_WRITABLE = ("vfat", "exfat", "ext4", "ext3", "ext2", "xfs")


def write(report: Report, error: ErrorReport | None, directory: Path) -> None:
    """``report.json`` beside the log; a full disk must not spoil a run that ended."""
    content = {"report": msgspec.to_builtins(report), "error": msgspec.to_builtins(error)}
    with contextlib.suppress(OSError):
        (directory / REPORT).write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n")


def save(
    source: Path,
    directory: str,
    state: RunState,
    point: Point | None,
    machine: Machine,
    passphrases: Passphrases = NOTHING,
) -> str:
    """Copy log and report; see EngineApi.save_log. Raises NotFoundError, SpaceError and what mounting raises."""
    if directory:
        return _copy(source, Path(directory))
    if state.phase == "finished" and state.plan and point and state.plan.choices.adapt:
        targets = {a.source.name: a.target for a in state.plan.assignments}
        request = AdaptRequest(point=point, targets=targets, machine=machine)
        with contextlib.suppress(RekindleError), mounted(request, passphrases=passphrases) as host:
            if host is not None:
                # var/log of the host may be a link; only a real folder inside of it is written to.
                folder = host.root / "var/log/rekindle"
                real = Path(os.path.realpath(folder))
                if folder.parent.is_dir() and real.is_relative_to(os.path.realpath(host.root)):
                    _copy(source, folder)
                    return f"/var/log/rekindle of {state.plan.choices.host}"
    written = {a.target.id for a in state.plan.assignments} if state.plan else set()
    with _usb_volume(machine, written) as (device, folder):
        name = f"rekindle-log-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}"
        _copy(source, folder / name)
        return f"{name} on {device}"


def _copy(source: Path, target: Path) -> str:
    try:
        target.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in ("engine.log", REPORT, *sorted(path.name for path in source.glob(CONSOLE_REPORT))):
            if (source / name).exists():
                shutil.copyfile(source / name, target / name)
    except OSError as error:
        raise SpaceError(
            f"The log can't be written to '{target}': {error.strerror}.", hint="Choose another place."
        ) from error
    return str(target)


@contextlib.contextmanager
def _usb_volume(machine: Machine, written: set[str]) -> Iterator[tuple[str, Path]]:
    """A filesystem on a removable disk that is neither the medium, nor holds backups, nor was restored to."""
    for device in _candidates(machine, written):
        with place_to_mount("usb") as folder:
            if run(["mount", "-o", "nosuid,nodev,noexec", device, folder], check=False, timeout=60):
                yield device, folder
                return
    raise NotFoundError(
        "There is no place to save the log to.",
        hint="Plug in a USB stick with a filesystem (FAT is fine), and try again.",
    )


def _candidates(machine: Machine, written: set[str]) -> Iterator[str]:
    def usable(disk: Disk) -> bool:
        removable = disk.removable or disk.bus == "usb"
        return removable and not (disk.busy or disk.boot_medium or disk.repository or disk.read_only)

    for disk in machine.disks:
        if disk.id in written or not usable(disk):
            continue
        if disk.content.kind in _WRITABLE:
            yield disk.path
        for partition in disk.table.partitions:
            if partition.content.kind in _WRITABLE:
                yield partition_path(disk.path, partition.number)
