"""Everything that can be found wrong by looking at point, machine and choices. Each check is a pure function.

Codes are stable; docs/operations.md and scripts may rely on them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import combinations

from recovery.format.point import Point, PointDisk
from recovery.layout import Content, VolumeGroup
from recovery.machine.identity import same_device
from recovery.machine.model import Disk, Machine
from recovery.plan.firmware import check_firmware
from recovery.plan.losses import losses
from recovery.plan.model import Choices, Problem
from recovery.plan.names import short_name
from recovery.plan.place_checks import check_place
from recovery.units import GIB, MIB, format_size

Pairs = tuple[tuple[PointDisk, Disk], ...]

_MINIMUM_MEMORY = 512 * MIB


def check_choices(point: Point, machine: Machine, choices: Choices) -> Iterator[Problem]:
    """Names that must exist, and exist once."""
    names = [disk.name for disk in point.body.disks]
    if not choices.targets:
        yield Problem(
            severity="error",
            code="nothing-to-restore",
            what="No target disk was chosen.",
            why="A restore needs at least one disk of the point and the disk that it goes to.",
            todo=f"Choose a target for one of {', '.join(names)}.",
        )
    for name in choices.targets:
        if name not in names:
            yield Problem(
                severity="error",
                code="unknown-disk",
                what=f"The point has no disk '{name}'.",
                why=f"Its disks are {', '.join(names)}.",
                todo="Choose one of them.",
            )
    used: dict[str, list[str]] = defaultdict(list)
    for name, target in choices.targets.items():
        found = machine.disk(target)
        if found is None and name in names:
            yield Problem(
                severity="error",
                code="target-missing",
                what=f"The target '{target}' of {name} is not there.",
                why="No disk of this machine has that id or path.",
                todo="Look at the disks with 'rekindle machine', check the cabling, and choose again.",
            )
        used[found.id if found else target].append(name)
    for one, other in combinations([disk for name in choices.targets.values() if (disk := machine.disk(name))], 2):
        if same_device(one, other):
            yield Problem(
                severity="error",
                code="same-target-twice",
                what=f"{one.path} and {other.path} are two paths to the same disk (WWN {one.wwn}).",
                why="What goes to the second would overwrite the first.",
                todo="Choose a different target for each.",
            )
    for target, disks in used.items():
        if len(disks) > 1:
            yield Problem(
                severity="error",
                code="same-target-twice",
                what=f"{' and '.join(disks)} would go to the same target {target}.",
                why="The second would overwrite the first.",
                todo="Choose a different target for each.",
            )


def check_target(
    source: PointDisk, target: Disk, machine: Machine, groups: tuple[VolumeGroup, ...] = ()
) -> Iterator[Problem]:
    """May this disk be written, and does the source fit on it? ``groups`` are the point's volume groups."""
    name = short_name(target)
    other = "Choose another target."
    if target.boot_medium:
        yield Problem(
            severity="error",
            code="target-is-boot-medium",
            what=f"{name} is the medium this system runs from.",
            why="Overwriting it would stop the restore in the middle.",
            todo=other,
        )
    if target.repository:
        yield Problem(
            severity="error",
            code="target-holds-repository",
            what=f"{name} holds the repository {target.repository[:16]}.",
            why="A disk with backups on it is never overwritten.",
            todo=other,
        )
    if target.busy and not (target.boot_medium or target.repository):
        yield Problem(
            severity="error",
            code="target-busy",
            what=f"{name} is in use.",
            why=" ".join(target.busy),
            todo="Unmount or stop what uses it, or choose another target.",
        )
    for twin in (disk for disk in machine.disks if same_device(target, disk)):
        if twin.busy or twin.boot_medium or twin.repository:
            yield Problem(
                severity="error",
                code="target-busy",
                what=f"{name} is the same disk as {twin.path} (WWN {twin.wwn}), which is in use.",
                why=" ".join(twin.busy) or "It is the boot medium, or holds a repository.",
                todo="Unmount or stop what uses it, or choose another target.",
            )
    if target.read_only:
        yield Problem(
            severity="error",
            code="target-read-only",
            what=f"{name} is read-only.",
            why="The kernel or a switch on the device forbids writing.",
            todo="Turn write protection off, or choose another target.",
        )
    yield from check_place(source, target, machine, groups)
    lost = losses(target, machine)
    if lost:
        yield Problem(
            severity="warning",
            code="target-has-data",
            what=f"Everything on {name} will be lost.",
            why=" ".join(lost),
            todo="Go on only if nobody needs it.",
        )


def check_fit(point: Point, pairs: Pairs, machine: Machine, choices: Choices) -> Iterator[Problem]:
    """Does the host fit this machine: firmware, architecture, memory, Secure Boot?"""
    if 0 < machine.memory < _MINIMUM_MEMORY:
        yield Problem(
            severity="error",
            code="memory-low",
            what=f"This machine has only {format_size(machine.memory)} of memory.",
            why=f"A restore needs {format_size(_MINIMUM_MEMORY)}.",
            todo="Restore on a machine with more memory.",
        )
    if not any(target.bus != "file" for _, target in pairs):
        return
    body = point.body
    if body.system.architecture != machine.architecture:
        yield Problem(
            severity="error",
            code="architecture-differs",
            what=f"The host is for {body.system.architecture}, this machine is {machine.architecture}.",
            why="Its programs can't run here.",
            todo=f"Restore on a machine with {body.system.architecture} processors.",
        )
    yield from check_firmware(point, pairs, machine, choices)
    if machine.firmware == "uefi" and machine.secure_boot and not body.secure_boot:
        yield Problem(
            severity="warning",
            code="secure-boot-on",
            what="Secure Boot is on in this machine, and was off in the host.",
            why="The host may have a boot loader, kernel or modules without a signature, which will be refused.",
            todo="If it does not start, turn Secure Boot off in the firmware setup.",
        )
    if machine.firmware == "uefi" and body.secure_boot and not machine.secure_boot:
        yield Problem(
            severity="info",
            code="secure-boot-off",
            what="Secure Boot is off in this machine, and was on in the host.",
            why="The host starts all the same, without that protection.",
            todo="Turn it on in the firmware setup afterwards.",
        )


def check_names(point: Point, pairs: Pairs, machine: Machine) -> Iterator[Problem]:
    """Names that would exist twice once the host is here: volume groups and filesystem UUIDs on remaining disks."""
    if not any(target.bus != "file" for _, target in pairs):
        return
    overwritten = {target.id for _, target in pairs}
    remaining = [disk for disk in machine.disks if disk.id not in overwritten and disk.bus != "file"]
    restored_pvs = {content.uuid for source, _ in pairs for content in _contents(source)}
    for group in point.body.volume_groups:
        holders = [disk for disk in remaining if group.name in disk.volume_groups]
        if holders and (not group.pv_uuids or restored_pvs.intersection(group.pv_uuids)):
            yield Problem(
                severity="error",
                code="lvm-name-clash",
                what=f"A volume group {group.name} exists on {', '.join(short_name(d) for d in holders)} as well.",
                why="LVM cannot tell two groups of the same name apart, so the host may start from the wrong one.",
                todo="Detach that disk, rename its group with 'vgrename', or choose it as the target.",
            )
    wanted = {content.uuid for source, _ in pairs for content in _contents(source) if content.uuid and content.kind}
    for disk in remaining:
        here = [disk.content.uuid, *(p.content.uuid for p in disk.table.partitions)]
        same = [uuid for uuid in here if uuid in wanted]
        if same:
            yield Problem(
                severity="warning",
                code="duplicate-uuid",
                what=f"{short_name(disk)} holds filesystems with the same UUIDs as the host's.",
                why=f"The host may mount those instead of the restored ones: {', '.join(same)}.",
                todo="Detach that disk before the host is started.",
            )


def _contents(disk: PointDisk) -> list[Content]:
    """What lies on a disk: on the whole of it, or in its partitions."""
    return [disk.content, *(partition.content for partition in disk.table.partitions)]


def check_left_out(point: Point, choices: Choices) -> Iterator[Problem]:
    """Disks of the point without a target."""
    restored = {d.name for d in point.body.disks if d.name in choices.targets}
    if not restored:
        return
    needed = needed_to_start(point)
    for disk in point.body.disks:
        if disk.name in restored:
            continue
        essential = disk.name in needed
        yield Problem(
            severity="error" if essential and choices.adapt else "warning",
            code="disk-not-restored",
            what=f"{disk.name} ({disk.device or 'disk'}, {format_size(disk.size)}) is not restored.",
            why=f"It holds {needed[disk.name]}, so the host would not start."
            if essential
            else "What lies on it will be missing on the host.",
            todo="Choose a target for it"
            + (", or restore without making the host start here." if essential else ", if it is needed."),
        )


def needed_to_start(point: Point) -> dict[str, str]:
    """Disks that the host can't start without -> what they hold (``the root filesystem``)."""
    facts = point.body.system
    needed: dict[str, str] = {}
    for where, what in (
        (facts.esp, "the EFI system partition"),
        (facts.boot, "/boot"),
        (facts.root, "the root file system"),
    ):
        if where and "/" not in where:  # "disk1:2", or a whole disk
            needed[where.partition(":")[0]] = what
            continue
        pvs = next((g.pv_uuids for g in point.body.volume_groups if g.name == where.partition("/")[0]), ())
        for disk in point.body.disks:
            if any(content.uuid in pvs for content in _contents(disk) if content.uuid):
                needed[disk.name] = f"a part of the volume group with {what}"
    return needed


def check_adaptation(pairs: Pairs, choices: Choices) -> Iterator[Problem]:
    """Adaptation works on disks of the machine that the host will start on."""
    files = [target.path for _, target in pairs if target.bus == "file"]
    if choices.adapt and files:
        yield Problem(
            severity="error",
            code="adapt-needs-device",
            what=f"A host restored to a file ({', '.join(files)}) can't be adapted here.",
            why="Adaptation makes it start on the machine in which its disks are.",
            todo="Restore without adaptation, and run 'rekindle adapt' on the machine that gets the image.",
        )
    if pairs and not (choices.adapt or choices.compare or files):
        yield Problem(
            severity="info",
            code="not-adapted",
            what="The host is not adapted to this machine.",
            why="It comes back as it was. On other hardware than it was captured on it may not start.",
        )


def check_memory_for_speed(machine: Machine) -> Iterator[Problem]:
    """Enough to work, but not much to work with."""
    if _MINIMUM_MEMORY <= machine.memory < GIB:
        yield Problem(
            severity="info",
            code="memory-scarce",
            what=f"This machine has {format_size(machine.memory)} of memory.",
            why="The restore works with fewer parallel reads and is slower.",
        )
