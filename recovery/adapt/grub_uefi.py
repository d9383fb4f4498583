"""The boot loader for UEFI: on the ESP, under the fallback path, and in the firmware's list."""

from __future__ import annotations

from pathlib import Path

from recovery.adapt import esp as esp_files
from recovery.adapt.efivars import choose_loader
from recovery.adapt.grub_bios import TIMEOUT, last
from recovery.adapt.host import HostTree
from recovery.adapt.model import Job
from recovery.adapt.nvram import boot_entry
from recovery.adapt.signed import install_signed
from recovery.errors import UsageError


def install_uefi(job: Job, host: HostTree) -> str:
    """Renew or install the loader, write the fallback path, make the boot entry.

    Raises UsageError when the host has no ESP, NotFoundError, SpaceError, CommandError.
    """
    if job.esp is None:
        raise UsageError(
            "The host has no EFI system partition: it starts by BIOS, and this machine by UEFI.",
            hint="Run 'rekindle adapt' without --step: it makes one. Or switch the firmware to BIOS (legacy, CSM) and "
            "start the medium again.",
        )
    root = host.path(job.esp_path)
    _by_host(job, host, root)
    found = choose_loader(esp_files.loader_files(root), vendor(job, host))
    unsigned = job.request.machine.secure_boot and "shim" not in (found or "").lower()
    if (found is None or unsigned) and _has_menu(host):
        install_signed(job, host, root)
        loader = str((esp_files.find_folder(root, "EFI", "debian", "shimx64.efi")).relative_to(root))
    else:
        loader = esp_files.vendor_loader(root, vendor(job, host))
        if unsigned:
            job.warn(
                "Secure Boot is on, but the host has no signed shim: switch Secure Boot off, or it will not start."
            )
    for sentence in esp_files.ensure_fallback(root, loader):
        job.changed(sentence)
    boot_entry(job, "\\" + loader.replace("/", "\\"))
    return f"Boot loader for UEFI: {loader}"


def _by_host(job: Job, host: HostTree, root: Path) -> None:
    """The host's own GRUB, when it has one for UEFI."""
    assert job.esp is not None  # noqa: S101 - checked by the caller
    program = host.program("grub-install", "grub2-install")
    # RHEL's grub2-install refuses to replace the signed loader, and rightly: there the packages own the ESP.
    if not program or program.endswith("grub2-install") or not host.is_dir("/usr/lib/grub/x86_64-efi"):
        return
    words = [program, "--target=x86_64-efi", f"--efi-directory={job.esp_path}", "--no-nvram"]
    # Into the folder that the host has, whatever GRUB_DISTRIBUTOR says today: signed GRUB knows no other.
    if captured := choose_loader(esp_files.loader_files(root), vendor(job, host)):
        if "systemd" in captured.lower():
            return  # it has GRUB's modules, but does not start by it
        words.append(f"--bootloader-id={captured.split('/')[1]}")
    done = host.run(words, check=False, timeout=TIMEOUT, on_output=job.note)
    if done:
        job.changed(f"GRUB was installed on the EFI system partition {job.esp.path}.")
    else:
        job.warn(f"GRUB was not renewed on {job.esp.path} ({last(done)}); what is there is used.")


def _has_menu(host: HostTree) -> bool:
    """Whether the host has a GRUB menu that Debian's GRUB can show."""
    text = host.read("/boot/grub/grub.cfg")
    return text is not None and "blscfg" not in text


def vendor(job: Job, host: HostTree) -> str:
    """The vendor's folder on the ESP is the os-release ID, but for a few."""
    for line in (host.read("/etc/os-release") or "").splitlines():
        key, _, value = line.partition("=")
        if key == "ID":
            return value.strip("\"'")
    return job.request.point.body.system.os_id
