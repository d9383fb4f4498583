"""Step: Windows loads the drivers of this machine's disk controllers at its start, and those of the usual others: the
disk may be moved once more. Only drivers that it has; none is installed."""

from __future__ import annotations

from recovery.adapt.model import Job
from recovery.adapt.windows_system import Found, change_registry, in_each, is_windows
from recovery.errors import IntegrityError
from recovery.machine.modules import modules_in_use
from recovery.windows.drivers import BOOT_START, missing_for
from recovery.windows.hives import Hive, control_sets
from recovery.windows.system import Installed, drivers_present

TITLE = "Let Windows load the drivers of other disks"


def enable_drivers(job: Job) -> str:
    """Raises IntegrityError where the host is a Windows that has no driver for this machine's disks, or whose registry
    may not be written to; CommandError, SpaceError."""
    count = in_each(job, lambda found: _enable(job, found))
    if count and is_windows(job.request):
        job.warn("Whether Windows starts here was not proven: none was started in a test yet. Keep the way back open.")
    return "The drivers that Windows has are loaded at its start." if count else "No Windows on these disks."


def _enable(job: Job, found: Found) -> None:
    disk = job.request.targets[found.node.disk]
    present: list[str] = []

    def change(hive: Hive, installed: Installed) -> list[str]:
        sets = control_sets(hive)
        if not sets:
            raise IntegrityError(
                f"The registry of {found.name} on {found.node.path} has no control set that it starts with.",
                hint="Choose an earlier recovery point.",
            )
        said = []
        for control_set in sets:
            drivers = drivers_present(hive, control_set, installed.folder)
            present.extend(drivers)
            said += [text for name in drivers if (text := start_at_boot(hive, control_set, name))]
        return said

    said = change_registry(job, found, change)
    if lacking := missing_for(disk.bus, disk.modules or modules_in_use(disk.path), present):
        raise IntegrityError(
            f"{found.name} on {found.node.path} has no driver for the controller of {disk.path}: "
            f"{' or '.join(lacking)}.",
            hint="Attach the disk to SATA (AHCI) or NVMe, or install the driver in the host before it is captured.",
        )
    if said:
        names = ", ".join(dict.fromkeys(text.partition(" ")[0] for text in said))
        job.changed(
            f"{found.name} on {found.node.path} loads {names} at its start (registry, {said[-1].split()[-1]})."
        )


def start_at_boot(hive: Hive, control_set: str, name: str) -> str:
    """Let the boot loader load a driver; the keys that set another start type for some hardware are deleted. What was
    altered, or nothing. Raises IntegrityError."""
    service = f"{control_set}/Services/{name}"
    override = next((child for child in hive.children(service) if child.lower() == "startoverride"), "")
    before = hive.dword(service, "Start")
    if before == BOOT_START and not override:
        return ""
    hive.set_dword(service, "Start", BOOT_START)
    if override:
        hive.delete(f"{service}/{override}")
    return f"{name} in {control_set}"
