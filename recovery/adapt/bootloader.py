"""Step: the firmware of this machine finds the boot loader, and the boot loader finds the host."""

from __future__ import annotations

from recovery.adapt.grub_bios import TIMEOUT, install_bios
from recovery.adapt.grub_uefi import install_uefi
from recovery.adapt.host import HostTree
from recovery.adapt.loader_entries import repair_entries, uses_entries
from recovery.adapt.make_room import firmware_of
from recovery.adapt.model import Job

TITLE = "Install the bootloader"


def install(job: Job) -> str:
    """BIOS: boot code on every disk that had it. UEFI: loader, fallback path, boot entry. Then the menu.

    Raises UsageError when the host cannot start in this machine's firmware mode, CommandError, NotFoundError,
    SpaceError, DeviceError.
    """
    host = job.host
    if host is None:
        return "No system to adapt."
    summary = install_uefi(job, host) if firmware_of(job.request) == "uefi" else install_bios(job, host)
    if uses_entries(job, host):
        repair_entries(job, host)
    else:
        _update_menu(job, host)
    return summary


def _update_menu(job: Job, host: HostTree) -> None:
    environment = {"GRUB_DISABLE_OS_PROBER": "true"}  # other disks of this machine are none of the host's business
    if program := host.program("update-grub"):
        host.run([program], timeout=TIMEOUT, env=environment, on_output=job.note)
    elif (program := host.program("grub2-mkconfig", "grub-mkconfig")) and (menu := menu_file(host)):
        host.run([program, "-o", menu], timeout=TIMEOUT, env=environment, on_output=job.note)
    else:
        job.warn("The host has no tool that writes GRUB's menu; the captured menu is used.")
        return
    job.changed("GRUB's menu was written anew.")


def menu_file(host: HostTree) -> str | None:
    """Where the host's GRUB menu is."""
    return next((f for f in ("/boot/grub/grub.cfg", "/boot/grub2/grub.cfg") if host.exists(f)), None)
