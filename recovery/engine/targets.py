"""The last look at the targets before the first write: still the same disks with the same content, and let go of."""

from __future__ import annotations

from recovery.adapt.devices import scan
from recovery.adapt.stack import release
from recovery.commands import run
from recovery.errors import BusyError, CommandError, UnsafeTargetError
from recovery.machine.file_target import file_target
from recovery.machine.model import Disk, Machine
from recovery.plan.model import DiskAssignment, RestorePlan

#: What must be the same as in the plan that was confirmed.
_IDENTITY = ("id", "path", "size", "sector_size", "model", "serial", "wwn", "bus")
_CONTENT = ("table", "content", "volume_groups")


def check_unchanged(plan: RestorePlan, machine: Machine) -> None:
    """Compare with a new probe. Raises UnsafeTargetError, naming what differs."""
    for assignment in plan.assignments:
        planned = assignment.target
        now = _now(assignment, machine)
        if now is None:
            raise UnsafeTargetError(
                f"The target {planned.path} ({planned.id}) is not there any more. Nothing was written.",
                hint="Check the cabling, then plan again.",
            )
        if any(getattr(now, field) != getattr(planned, field) for field in _IDENTITY):
            raise UnsafeTargetError(
                f"{planned.path} is not the disk that was confirmed: it was {_identity(planned)}, now it is "
                f"{_identity(now)}. Nothing was written.",
                hint="Plan again, and confirm the disk that is there now.",
            )
        if any(getattr(now, field) != getattr(planned, field) for field in _CONTENT):
            raise UnsafeTargetError(
                f"What lies on {planned.path} has changed since the plan was made. Nothing was written.",
                hint="Plan again, look at what would be lost now, and confirm it.",
            )
        if now.busy or now.boot_medium or now.repository or now.read_only:
            raise UnsafeTargetError(
                f"{planned.path} must not be written: {' '.join(now.busy) or 'it is read-only.'} Nothing was written.",
                hint="Plan again.",
            )


def _now(assignment: DiskAssignment, machine: Machine) -> Disk | None:
    target = assignment.target
    if target.bus == "file":
        return file_target(target.id, size=assignment.source.size, sector_size=assignment.source.sector_size)
    return machine.disk(target.id)


def _identity(disk: Disk) -> str:
    return f"{disk.path}, {disk.model or 'no model'}, serial {disk.serial or 'none'}, {disk.size} bytes"


def let_go(plan: RestorePlan) -> list[str]:
    """Stop LVM and md on the target disks, which udev may have started. Returns sentences on what was stopped.

    Raises BusyError when something can't be stopped.
    """
    disks = {a.source.name: a.target for a in plan.assignments if a.target.bus != "file"}
    if not disks:
        return []
    before = [node.path for node in scan(disks) if node.kind not in ("disk", "loop", "part")]
    if not before:
        return []
    release(scan(disks))
    left = [node.path for node in scan(disks) if node.kind not in ("disk", "loop", "part")]
    if left:
        raise BusyError(
            f"{', '.join(left)} on the targets can't be stopped. Nothing was written.",
            hint="Something uses it; see 'lsblk', 'dmsetup ls' and 'cat /proc/mdstat'.",
        )
    return [f"{', '.join(before)} on the targets was stopped."]


def settle(plan: RestorePlan) -> str:
    """Let kernel and udev see the restored partition tables. Returns a line on how it went; never raises, because
    the disks are complete whether the kernel looks at them or not."""
    _try(["udevadm", "settle", "--timeout=30"])
    disks = [a.target.path for a in plan.assignments if a.target.bus != "file"]
    missed = [disk for disk in disks if not _try(["blockdev", "--rereadpt", disk])]
    _try(["udevadm", "settle", "--timeout=30"])
    return (
        f"The kernel did not read {', '.join(missed)} anew." if missed else "The kernel sees the restored partitions."
    )


def _try(argv: list[str]) -> bool:
    try:
        return bool(run(argv, check=False, timeout=60))
    except CommandError:
        return False
