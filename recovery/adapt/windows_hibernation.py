"""Step: no session of Windows sleeps on the restored disks. It expects the hardware that it fell asleep on, and its
volumes are not to be written to while it sleeps."""

from __future__ import annotations

from recovery.adapt.model import Job
from recovery.adapt.ntfs import ntfs_mounted, why_not_writable
from recovery.adapt.windows_system import Found, in_each
from recovery.errors import IntegrityError
from recovery.windows.system import is_hibernated

TITLE = "See that Windows was shut down"


def end_hibernation(job: Job) -> str:
    """Raises IntegrityError where the host is a Windows that sleeps and its session is not to be dropped, or cannot
    be; CommandError. A session that was dropped cannot be brought back from this disk: the recovery point has it."""
    count = in_each(job, lambda found: _end(job, found))
    return "Windows was shut down." if count else "No Windows on these disks."


def _end(job: Job, found: Found) -> None:
    device = found.node.path
    with ntfs_mounted(device) as root:
        if not is_hibernated(root):
            return
    if not job.request.drop_hibernation:
        raise IntegrityError(
            f"{found.name} on {device} is hibernated, or was shut down with fast start: it is left as it is.",
            hint="Start the host where it was, shut it down in full ('shutdown /s /t 0' after 'powercfg /h off'), and "
            "capture it again; or give its session up (--drop-hibernation).",
        )
    if why := why_not_writable(device, hibernated=False):
        raise IntegrityError(
            f"The session of {found.name} on {device} cannot be dropped, because {why}.",
            hint="Start the host where it was, shut it down in full, and capture it again.",
        )
    with ntfs_mounted(device, write=True, options="remove_hiberfile") as root:
        if is_hibernated(root):
            raise IntegrityError(f"The session of {found.name} on {device} was not dropped by ntfs-3g.")
    job.changed(f"The session that slept in {found.name} on {device} was dropped (hiberfil.sys was removed).")
