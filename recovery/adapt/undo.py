"""What a change undoes: kept on the restored host, below ``/var/lib/rekindle/undo``, the first time a thing is
changed.

Files of the host have their original beside them (``HostTree.write``). What is no file (partition tables, boot
sectors, the firmware's entries) is written here as its own tools print it, so that they can read it back: ``sfdisk
DISK < FILE``, ``dd if=FILE of=DISK bs=440 count=1``.
"""

from __future__ import annotations

from recovery.adapt.host import HostTree
from recovery.adapt.model import Job
from recovery.errors import SpaceError

FOLDER = "/var/lib/rekindle/undo"


def remember(job: Job, name: str, content: bytes) -> None:
    """Keep ``content`` under ``name``. Before the host is mounted it waits in the job; the oldest one counts."""
    job.undo.setdefault(name, content)
    if job.host is not None:
        write_down(job, job.host)


def write_down(job: Job, host: HostTree) -> None:
    """Write what is waiting. A full filesystem is a warning: what was changed is what makes the host boot."""
    try:
        for name, content in list(job.undo.items()):
            path = host.path(f"{FOLDER}/{name}")
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            if not path.exists():
                path.write_bytes(content)
                path.chmod(0o600)
            del job.undo[name]
    except (OSError, SpaceError) as error:
        job.undo.clear()
        job.warn(f"What undoes the changes could not be kept in {FOLDER}: {error}.")


def file_name(device: str) -> str:
    """``/dev/nvme0n1`` -> ``nvme0n1``."""
    return device.removeprefix("/dev/").replace("/", "-")
