"""What speaks against a Windows starting here, and what is made of it. Pure.

No Windows was started in a test yet: this project may pass none on. What is changed in it was tried on registry hives
and NTFS volumes that were made for that, and the plan says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from recovery.format.point import Point, PointDisk
from recovery.layout import WINDOWS, Landing, WindowsSystem
from recovery.machine.model import Disk, Machine
from recovery.plan.model import Choices, Problem, Severity
from recovery.plan.names import short_name
from recovery.windows.drivers import SERVICES, missing_for

Pairs = tuple[tuple[PointDisk, Disk], ...]

UNPROVEN = "No Windows was seen starting in a test yet: keep the way back open."
_SHUT_DOWN = "Start the host where it was, shut it down in full, and capture it again"
_AS_IT_IS = "restore without adaptation (--no-adapt) onto hardware of the same kind"


def check_windows(
    point: Point, pairs: Pairs, machine: Machine, choices: Choices, landings: Mapping[str, Landing]
) -> Iterator[Problem]:
    """Each Windows on the disks that are restored. Where it is not the host itself, or nobody asked for adaptation,
    what speaks against it is a warning."""
    targets = {source.name: target for source, target in pairs if target.bus != "file"}
    host = point.body.system.os_id == WINDOWS
    severity: Severity = "error" if host and choices.adapt else "warning"
    for windows in point.body.windows:
        disk, _, number = windows.volume.partition(":")
        if disk not in targets:
            continue
        found = [
            *(_state(windows, choices, severity) if choices.adapt else ()),
            *_disk(windows, targets[disk], choices, severity),
            *_moved(point.disk(disk), int(number or 0), windows, landings.get(disk), severity),
        ]
        yield from found
        if choices.adapt and not any(problem.severity == "error" for problem in found):
            yield _adapted(windows, host=host)
        if not host and point.body.firmware != machine.firmware and "unknown" not in (
            point.body.firmware, machine.firmware,
        ):  # fmt: skip
            yield Problem(
                severity="warning",
                code="windows-firmware",
                what=f"{windows.name} on {windows.volume} does not start in this machine's firmware mode.",
                why="Its boot manager is for the other one, and is left as it is.",
                todo="Switch this machine to the other firmware mode if it is needed.",
            )
    yield from _encrypted(point, pairs)


def _state(windows: WindowsSystem, choices: Choices, severity: Severity) -> Iterator[Problem]:
    where = f"{windows.name} on {windows.volume}"
    if windows.hibernated and choices.drop_hibernation and not windows.unclean:
        yield Problem(
            severity="warning",
            code="windows-hibernated",
            what=f"The session that sleeps in {where} is given up: hiberfil.sys is removed.",
            why="What was open in it and not saved is lost. The recovery point keeps it.",
            todo="Go on if that is meant.",
        )
    elif windows.hibernated:
        yield Problem(
            severity=severity,
            code="windows-hibernated",
            what=f"{where} is hibernated, or was shut down with fast start.",
            why="Its session expects the old hardware, and while it sleeps its volume may not be written to.",
            todo=f"{_SHUT_DOWN} ('powercfg /h off', then 'shutdown /s /t 0'); or {_AS_IT_IS}"
            + ("." if windows.unclean else "; or give the session up (--drop-hibernation)."),
        )
    elif windows.unclean:
        yield Problem(
            severity=severity,
            code="windows-unclean",
            what=f"The volume of {where} was not left whole: it is not written to.",
            why=f"{windows.unclean[0].upper()}{windows.unclean[1:]}, and only Windows can make it whole.",
            todo=f"{_SHUT_DOWN}; or {_AS_IT_IS}, let it start, and shut it down.",
        )
    if windows.problem:
        yield Problem(
            severity=severity if windows.damaged else "warning",
            code="windows-registry",
            what=f"Which drivers {where} has is not known.",
            why=windows.problem,
            todo=f"{_SHUT_DOWN}." if windows.damaged else "Go on if it has drivers for this machine's disks.",
        )


def _disk(windows: WindowsSystem, target: Disk, choices: Choices, severity: Severity) -> Iterator[Problem]:
    if target.bus == "usb":
        yield Problem(
            severity=severity,
            code="windows-usb",
            what=f"{windows.name} does not start from a USB disk, and {short_name(target)} is one.",
            why="Windows starts its USB drivers after it has looked for its disk.",
            todo="Attach the disk inside of the machine, or choose another one.",
        )
    lacking = missing_for(target.bus, target.modules, windows.drivers or ()) if windows.drivers is not None else ()
    if lacking:
        yield Problem(
            severity=severity,
            code="windows-driver-missing",
            what=f"{windows.name} on {windows.volume} has no driver for the controller of {short_name(target)}.",
            why=f"That would be {' or '.join(lacking)} ({SERVICES[lacking[0]]}); drivers are not installed here.",
            todo="Choose a disk on another bus (for AHCI and NVMe Windows brings the driver), or install the driver "
            "in the host before it is captured.",
        )


def _moved(
    source: PointDisk, number: int, windows: WindowsSystem, landing: Landing | None, severity: Severity
) -> Iterator[Problem]:
    """On an MBR its boot manager looks for partitions by the byte where they start."""
    moved = {placed.number for placed in landing.placements if placed.moved} if landing is not None else set[int]()
    if source.table.kind != "mbr" or not moved:
        return
    active = {part.number for part in source.table.partitions if "boot" in part.flags}
    own = sorted(moved & (active | {number}))
    if own:
        yield Problem(
            severity=severity,
            code="windows-moved",
            what=f"{windows.name} starts from partition {' and '.join(map(str, own))} of {source.name}, which moves.",
            why="Its boot manager (BCD) finds partitions of an MBR by the byte where they start, and is not changed "
            "here.",
            todo="Let something else grow, or choose a disk on which the partitions stay where they are.",
        )
    else:
        yield Problem(
            severity="warning",
            code="windows-moved",
            what=f"Partition {' and '.join(map(str, sorted(moved)))} of {source.name} moves; Windows is told of it.",
            why="Drive letters are kept (registry, MountedDevices). A recovery environment there is not found again.",
            todo="If there is one, run 'reagentc /enable' in Windows afterwards.",
        )


def _adapted(windows: WindowsSystem, *, host: bool) -> Problem:
    drivers = ", ".join(windows.drivers or ()) or "none that is known"
    return Problem(
        severity="warning" if host else "info",
        code="windows-adapted",
        what=f"{windows.name} on {windows.volume} is prepared for this machine.",
        why=f"The storage drivers that it has ({drivers}) are loaded at its start, and drive letters are kept. Its "
        f"boot manager (BCD) is left as it is. {UNPROVEN}",
        todo="Go on if that is meant." if host else "",
    )


def _encrypted(point: Point, pairs: Pairs) -> Iterator[Problem]:
    for source, _ in pairs:
        for part in source.table.partitions:
            if part.content.kind == "BitLocker":
                yield Problem(
                    severity="warning",
                    code="windows-bitlocker",
                    what=f"Partition {part.number} of {source.name} is encrypted (BitLocker): it is not looked into.",
                    why="Nothing in it is adapted, and the key in the old machine's TPM does not come along.",
                    todo="Have its recovery key at hand: Windows will ask for it.",
                )
