"""GRUB for BIOS on the restored disks: by the host's own packages, else by the recovery medium's."""

from __future__ import annotations

from pathlib import Path

from recovery.adapt.host import HostTree
from recovery.adapt.model import Job
from recovery.adapt.undo import file_name, remember
from recovery.commands import Completed, run
from recovery.errors import CommandError, DeviceError, UsageError
from recovery.machine.bootroom import bios_can_start, boot_disk
from recovery.machine.probe_disks import probe_table

#: Seconds.
TIMEOUT = 1200

#: GRUB's boot program in a first sector; behind it come the disk's signature and its table.
_CODE = 440
_ACTIVE = 446
#: On the medium (and on the host): the images and modules that ``grub-install`` puts together.
_MODULES = Path("/usr/lib/grub/i386-pc")


def install_bios(job: Job, host: HostTree) -> str:
    """GRUB in the boot sector of every disk that had it, else of the one that holds /boot.

    Raises UsageError when no disk can be started by a BIOS, CommandError, DeviceError.
    """
    by_grub = job.request.point.body.firmware == "uefi" or job.esp is not None
    fresh = _without_their_code(job)
    others = [disk.path for disk in job.request.targets.values() if disk.path not in fresh]
    had = [path for path in others if has_boot_code(path, by_grub)]
    disks = [*had, *fresh] or _new_disks(job)
    if not disks:
        raise UsageError(
            "No restored disk has boot code or room for it: the host starts by UEFI, and this machine was started in "
            "BIOS mode.",
            hint="Switch the machine's firmware to UEFI, start the medium again and run 'rekindle adapt'.",
        )
    own = host.program("grub-install", "grub2-install") if host.is_dir(str(_MODULES)) else None
    if own is None and had and not fresh:
        job.warn("The host has no grub-install for BIOS; the boot code that it was captured with is used.")
        return "The captured boot code is used."
    for disk in disks:
        remember(job, f"boot-sector-{file_name(disk)}.bin", read_sector(disk)[:_CODE])
        _install(job, host, own, disk, captured=disk in had)
        if disk in fresh:
            _set_active(disk)
    return f"GRUB for BIOS on {', '.join(disks)}"


def _without_their_code(job: Job) -> list[str]:
    """Disks whose boot code was left out because they got a GPT: the one that holds /boot, and those with an active
    partition."""
    point, targets = job.request.point, job.request.targets
    first = boot_disk(point, tuple(targets))
    return [
        targets[name].path
        for name in job.request.to_gpt
        if name in targets
        and (name == first or any("legacy_boot" in part.flags for part in point.disk(name).table.partitions))
    ]


def _new_disks(job: Job) -> list[str]:
    """The disk that a BIOS will start from, of a host that never was started so."""
    name = boot_disk(job.request.point, tuple(job.request.targets))
    if job.root is not None and not job.request.point.id:
        name = job.root.disk
    disk = job.request.targets.get(name)
    return [disk.path] if disk and bios_can_start(probe_table(disk.path)) else []


def _install(job: Job, host: HostTree, own: str | None, disk: str, *, captured: bool) -> None:
    if own is None and captured:
        return  # what was captured is still in place
    if own:
        done = host.run([own, "--target=i386-pc", disk], check=False, timeout=TIMEOUT, on_output=job.note)
        if done:
            job.changed(f"GRUB was installed in the boot sector of {disk}.")
            return
        if captured:
            # What was captured is still in place: GRUB writes only after all its checks.
            job.warn(f"GRUB was not renewed on {disk} ({last(done)}); the captured boot code is used.")
            return
    if not host.exists("/boot/grub/grub.cfg") and not host.program("update-grub", "grub-mkconfig"):
        raise UsageError(
            "The host has no GRUB whose menu a BIOS could show.",
            hint="Switch the machine's firmware to UEFI, start the medium again and run 'rekindle adapt'.",
        )
    words = ["grub-install", "--target=i386-pc", f"--directory={_MODULES}", f"--boot-directory={host.path('/boot')}"]
    done = run([*words, disk], check=False, timeout=TIMEOUT, on_output=job.note)
    if not done:
        raise CommandError(
            f"GRUB for BIOS cannot be installed on {disk}: {last(done)}.",
            hint="See the log. Or switch the firmware to UEFI, start the medium again and run 'rekindle adapt'.",
        )
    _set_active(disk)
    job.changed(f"This medium's GRUB for BIOS was installed in the boot sector of {disk}.")
    job.warn(
        "The host's packages do not renew GRUB for BIOS, because it has none of them: when it runs, install its "
        "package for BIOS (Debian: grub-pc)."
    )


def _set_active(disk: str) -> None:
    """Some BIOSes start only disks with an active partition, also when the table is a GPT's protective MBR."""
    sector = read_sector(disk)
    if sector[_ACTIVE + 4] == 0xEE and not any(sector[_ACTIVE + 16 * n] & 0x80 for n in range(4)):
        try:
            with Path(disk).open("r+b", buffering=0) as file:
                file.write(sector[:_ACTIVE] + b"\x80" + sector[_ACTIVE + 1 :])
        except OSError as error:
            raise DeviceError(
                f"{disk} cannot be written: {error.strerror}.", hint="Check the disk and its cable; see 'dmesg'."
            ) from error


def has_boot_code(path: str, by_grub: bool = False) -> bool:
    """Whether the first sector holds a boot program (GRUB's). Raises DeviceError."""
    sector = read_sector(path)
    return (
        any(sector[:_CODE]) and sector[510:512] == b"\x55\xaa" and (not by_grub or b"GRUB" in sector[:_CODE])
    )  # fmt: skip


def read_sector(path: str) -> bytes:
    """The first 512 bytes. Raises DeviceError."""
    try:
        with Path(path).open("rb") as disk:
            return disk.read(512)
    except OSError as error:
        raise DeviceError(
            f"{path} cannot be read: {error.strerror}.", hint="Check the disk and its cable; see 'dmesg'."
        ) from error


def last(done: Completed) -> str:
    """The last line that a program said, for a sentence."""
    return ((done.stderr.strip() or done.stdout.strip() or "no reason given").splitlines()[-1]).rstrip(".")
