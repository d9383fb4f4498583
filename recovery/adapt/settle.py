"""Step: the kernel and udev learn what was written. Stacks that the medium assembled by itself are let go first."""

from __future__ import annotations

from recovery.adapt.devices import scan
from recovery.adapt.model import Job
from recovery.adapt.stack import release
from recovery.commands import run
from recovery.errors import BusyError

TITLE = "Look at the restored disks"


def settle(job: Job) -> str:
    """Re-read the partition tables. Raises BusyError when a disk is in use, CommandError."""
    tell_kernel(job)
    job.nodes = scan(job.request.targets)
    return f"{sum(n.kind == 'part' for n in job.nodes)} partitions on {len(job.request.targets)} disks"


def tell_kernel(job: Job) -> None:
    """The kernel's view of the target disks becomes what is written on them."""
    disks = [disk.path for disk in job.request.targets.values()]
    run(["udevadm", "settle", "--timeout=30"], check=False)
    # udev on the medium assembles LVM and md as soon as it sees them; a disk in use does not re-read its table.
    nodes = scan(job.request.targets)
    for node in nodes:
        if node.mounted:
            raise BusyError(
                f"{node.path} is in use at {', '.join(node.mounted)}.",
                hint="Unmount it ('umount', 'swapoff'), then run 'rekindle adapt' again.",
            )
    release(nodes)
    for disk in disks:
        done = run(["blockdev", "--rereadpt", disk], check=False)
        if not done and not run(["partx", "--update", disk], check=False):
            raise BusyError(
                f"The partition table of {disk} cannot be read again: {done.stderr.strip()}.",
                hint="Something uses the disk. See 'lsblk' and 'mount'; unmount it, then run 'rekindle adapt' again.",
            )
    run(["udevadm", "settle", "--timeout=30"], check=False)
