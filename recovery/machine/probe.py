"""Look at the machine in front of us. Reads only; what it can't find out it leaves empty."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from recovery.machine.model import Disk, Machine
from recovery.machine.probe_disks import lsblk, partition_path, probe_disks
from recovery.machine.probe_drivers import probe_driverless
from recovery.machine.probe_system import (
    architecture,
    cpu_count,
    probe_firmware,
    probe_memory,
    probe_model,
    probe_nics,
    probe_processor,
)
from recovery.machine.probe_volumes import probe_lvm, probe_md


def probe_machine(
    repositories: Mapping[str, str] | None = None,
    *,
    loops: bool = False,
    sysfs: Path = Path("/sys"),
    procfs: Path = Path("/proc"),
) -> Machine:
    """Everything a plan asks of the machine.

    ``repositories`` maps device paths to the id of the repository found on them (``engine.local_repositories``);
    with ``loops`` loop devices count as disks. Raises CommandError when lsblk is missing or fails.
    """
    volumes = probe_lvm()
    disks = probe_disks(lsblk(), sysfs, volumes, repositories or {}, loops=loops)
    firmware, secure_boot = probe_firmware(sysfs)
    vendor, model = probe_model(sysfs)
    return Machine(
        firmware=firmware,
        secure_boot=secure_boot,
        architecture=architecture(),
        memory=probe_memory(procfs),
        cpus=cpu_count(),
        processor=probe_processor(procfs),
        vendor=vendor,
        model=model,
        disks=disks,
        nics=probe_nics(sysfs),
        volume_groups=volumes.groups,
        md_arrays=probe_md(path for disk in disks for path in _md_members(disk)),
        driverless=probe_driverless(sysfs),
    )


def _md_members(disk: Disk) -> list[str]:
    if disk.content.kind == "linux_raid_member":
        return [disk.path]
    return [
        partition_path(disk.path, part.number)
        for part in disk.table.partitions
        if part.content.kind == "linux_raid_member"
    ]
