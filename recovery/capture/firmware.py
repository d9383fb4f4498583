"""How did this host boot: BIOS or UEFI? Decided from what lies on its disks; every reason is kept. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from recovery.layout import Firmware


@dataclass(frozen=True)
class Evidence:
    """What was found. ``esp_files`` are upper-case paths; ``esp_in_fstab`` whether the system mounts its ESP;
    ``grub_platforms`` the folders such as ``i386-pc`` and ``x86_64-efi`` in /boot/grub."""

    esp_files: Sequence[str] = ()
    esp_in_fstab: bool = False
    bios_boot_partition: bool = False
    mbr_boot_code: bool = False
    grub_platforms: Sequence[str] = ()


@dataclass(frozen=True)
class Decision:
    """The firmware mode, whether a Secure Boot chain (shim) is installed, and why, in whole sentences."""

    firmware: Firmware
    secure_boot: bool
    why: str
    notes: list[str] = field(default_factory=list)


def decide(evidence: Evidence) -> Decision:
    """The mode the host most likely boots in; ``unknown`` when it has no boot loader that we know."""
    loaders = [path for path in evidence.esp_files if path.startswith("/EFI/") and path.endswith(".EFI")]
    shim = any(path.rsplit("/", 1)[1].startswith("SHIM") for path in loaders)
    uefi = bool(loaders)
    bios = evidence.mbr_boot_code
    if uefi and bios:
        return _both(evidence, shim)
    if uefi:
        return Decision("uefi", shim, f"the ESP has a boot loader ({loaders[0]}) and the MBR has no boot code")
    if bios:
        where = "and there is a BIOS boot partition" if evidence.bios_boot_partition else "and no EFI boot loader"
        return Decision("bios", False, f"the MBR has boot code {where}")
    return Decision("unknown", False, "there is neither MBR boot code nor an EFI boot loader")


def _both(evidence: Evidence, shim: bool) -> Decision:
    efi_grub = any(platform.endswith("-efi") for platform in evidence.grub_platforms)
    bios_grub = "i386-pc" in evidence.grub_platforms
    firmware: Firmware = "uefi"
    if evidence.esp_in_fstab and (efi_grub or not bios_grub):
        why = "the system mounts its ESP"
    elif bios_grub and not efi_grub:
        firmware, why = "bios", "GRUB keeps only its BIOS files up to date"
    elif efi_grub and not bios_grub:
        why = "GRUB keeps only its EFI files up to date"
    elif evidence.bios_boot_partition and not evidence.esp_in_fstab:
        firmware, why = "bios", "the system does not mount its ESP"
    else:
        why = "an ESP is rarely there unused"
    note = "The disks can boot by BIOS and by UEFI; --firmware overrides the decision."
    return Decision(firmware, shim, f"both boot loaders are there, and {why}", [note])


def has_boot_code(first_sector: bytes) -> bool:
    """Whether the MBR holds code: neither blank nor the stub that partitioning tools write (it only prints a text).

    A boot sector of a filesystem on the whole disk counts too, as the BIOS would run it.
    """
    code = first_sector[:440]
    if len(first_sector) < 512 or first_sector[510:512] != b"\x55\xaa" or not any(code):
        return False
    return b"non-system disk" not in code.lower() and b"not a bootable disk" not in code.lower()
