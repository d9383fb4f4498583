"""Step: on a larger disk the backup GPT moves to the end; then the table must be the captured one."""

from __future__ import annotations

from pathlib import Path

from recovery.adapt.model import Job
from recovery.adapt.tables import LiveTable, backup_gpt_lba, differences, parse_sfdisk
from recovery.commands import run
from recovery.errors import DeviceError, IntegrityError

TITLE = "Check the partition tables"


def check_tables(job: Job) -> str:
    """Raises IntegrityError when a disk does not hold the point's table, DeviceError, CommandError.

    All disks are looked at before the first is changed: 'rekindle adapt' may be given the wrong one.
    """
    tables = {name: job.request.point.disk(name).table for name in job.request.targets}
    for name, table in tables.items():
        disk = job.request.targets[name]
        wrong = differences(read_table(disk.path), table) if table.kind != "none" else []
        if wrong:
            raise IntegrityError(
                f"{disk.path} does not hold the partition table of {name}: {'; '.join(wrong)}. It was not changed.",
                hint="Is it the right disk? If it was restored with --grow-to or --to-gpt, say so here too.",
            )
    for name, table in tables.items():
        disk = job.request.targets[name]
        if table.kind == "gpt" and move_backup_gpt(disk.path, disk.size, disk.sector_size):
            job.changed(f"The backup GPT of {disk.path} was moved to the end of the disk.")
    return "The partition tables are those of the recovery point."


def read_table(path: str) -> LiveTable:
    """The table on a disk or image. Raises CommandError, IntegrityError."""
    return parse_sfdisk(run(["sfdisk", "--json", path]).stdout)


def move_backup_gpt(path: str, size: int, sector: int) -> bool:
    """Put the backup GPT where it belongs; False when it was there. Raises DeviceError, CommandError."""
    last = size // sector - 1
    try:
        with Path(path).open("rb") as disk:
            disk.seek(sector)
            where = backup_gpt_lba(disk.read(sector))
            disk.seek(last * sector)
            there = disk.read(8) == b"EFI PART"
    except OSError as error:
        raise DeviceError(
            f"{path} cannot be read: {error.strerror}.", hint="Check the disk and its cable; see 'dmesg'."
        ) from error
    if where == last and there:
        return False
    run(["sgdisk", "--move-second-header", path])
    return True
