"""The firmware's list of boot entries: one for this host, the first. The fallback path works without it, so what goes
wrong here is a warning."""

from __future__ import annotations

from pathlib import Path

from recovery.adapt.efivars import BootEntries, order_with_first, parse
from recovery.adapt.model import Job
from recovery.adapt.undo import remember
from recovery.commands import run
from recovery.errors import CommandError

_EFIVARS = Path("/sys/firmware/efi/efivars")


def boot_entry(job: Job, loader: str) -> None:
    """Our entry first; entries of its kind for partitions that are gone are deleted when that was asked for, else
    told.

    ``loader`` is its path on the ESP with backslashes.
    """
    if not _EFIVARS.is_dir():
        job.warn("The firmware's boot entries cannot be reached; it will start the host by the fallback path.")
        return
    assert job.esp is not None  # noqa: S101 - checked by the caller
    try:
        _write_entry(job, job.esp.part_uuid, job.request.targets[job.esp.disk].path, job.esp.number, loader)
    except CommandError as error:
        job.warn(f"The firmware took no boot entry ({error.message}); it will start the host by the fallback path.")


def _write_entry(job: Job, part_uuid: str, disk: str, number: int, loader: str) -> None:
    said = run(["efibootmgr", "-v"]).stdout
    entries = parse(said)
    remember(job, "boot-entries.txt", said.encode())
    gone = _forget(job, entries, part_uuid, loader)
    own = entries.find(part_uuid, loader)
    if own is None:
        label = label_of(job.request.point.body.system.os_name, loader)
        words = ["--create", "--disk", disk, "--part", str(number), "--label", label, "--loader", loader]
        run(["efibootmgr", "--quiet", *words])
        job.changed(f"The firmware got a boot entry for {loader}; it is the first.")
        return
    if not own.active:
        run(["efibootmgr", "--quiet", "--bootnum", own.number, "--active"])
    order = tuple(n for n in entries.order if n not in gone)
    if order[:1] != (own.number,):
        run(["efibootmgr", "--quiet", "--bootorder", ",".join(order_with_first(order, own.number))])
        job.changed(f"Boot entry {own.number} ({own.label}) is the first now.")


def _forget(job: Job, entries: BootEntries, part_uuid: str, loader: str) -> set[str]:
    """Delete the entries of the dead disk when that was asked for. Returns the numbers of those that are gone."""
    done = run(["lsblk", "--noheadings", "--list", "--output", "PARTUUID"])
    present = {line.strip().lower() for line in done.stdout.splitlines() if line.strip()} | {part_uuid}
    stale = entries.stale(present, loader)
    if stale and not job.request.forget_entries:
        names = ", ".join(f"{entry.number} ({entry.label})" for entry in stale)
        job.changed(
            f"The firmware has boot entries for partitions that no disk here has: {names}. They do no harm; "
            "'rekindle adapt --forget-entries' deletes them."
        )
        return set()
    for entry in stale:
        run(["efibootmgr", "--quiet", "--bootnum", entry.number, "--delete-bootnum"])
        job.changed(f"Boot entry {entry.number} ({entry.label}) was deleted: its partition does not exist.")
    return {entry.number for entry in stale}


def label_of(os_name: str, loader: str) -> str:
    """What the firmware's menu shows: the system's name, else the vendor's folder. Plain ASCII for old firmware."""
    plain = os_name.encode("ascii", errors="ignore").decode().strip()
    return plain or loader.strip("\\").split("\\")[1]
