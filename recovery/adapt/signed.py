"""The recovery medium's own boot loader for UEFI on a host's ESP: Debian's shim and GRUB, which Secure Boot accepts.

Debian's signed GRUB reads ``\\EFI\\debian\\grub.cfg`` of the ESP that it was started from, whatever folder it lies
in; that file leads to the menu on the host's own filesystem.
"""

from __future__ import annotations

from pathlib import Path

from recovery.adapt.esp import copy_file, find_folder, write_file
from recovery.adapt.host import HostTree
from recovery.adapt.model import Job
from recovery.commands import run
from recovery.errors import NotFoundError, SpaceError

#: The folder that Debian's signed GRUB was made for.
FOLDER = "debian"
_FILES = (
    ("usr/lib/shim/shimx64.efi.signed", "shimx64.efi"),
    ("usr/lib/shim/mmx64.efi.signed", "mmx64.efi"),
    ("usr/lib/shim/BOOTX64.CSV", "BOOTX64.CSV"),
    ("usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed", "grubx64.efi"),
)


def install_signed(job: Job, host: HostTree, esp: Path, medium: Path = Path("/")) -> None:
    """Put shim, GRUB and the way to the host's menu on the ESP mounted at ``esp``. What was there is kept beside.

    ``medium`` is the root of the system with the signed files. Raises NotFoundError, SpaceError, CommandError.
    """
    missing = [name for name, _ in _FILES if not (medium / name).is_file()]
    if missing:
        raise NotFoundError(
            f"This system has no signed boot loader for UEFI ({', '.join(missing)}).",
            hint="Run 'rekindle adapt' on the recovery medium, or install shim-signed and grub-efi-amd64-signed.",
        )
    menu = host.path("/boot/grub")
    uuid = run(["grub-probe", "--target=fs_uuid", menu]).stdout.strip()
    folder = run(["grub-mkrelpath", menu]).stdout.strip()
    target = find_folder(esp, "EFI", FOLDER)
    try:
        target.mkdir(parents=True, exist_ok=True)
        for source, name in _FILES:
            copy_file(medium / source, find_folder(target, name))
        write_file(find_folder(target, "grub.cfg"), lead_to(uuid, folder).encode())
    except OSError as error:
        raise SpaceError(
            f"The EFI system partition cannot be written: {error.strerror}.",
            hint="Remove old files from it (in the host's /boot/efi), then run 'rekindle adapt' again.",
        ) from error
    job.changed(f"This medium's shim and GRUB, signed, were put on the EFI system partition, in \\EFI\\{FOLDER}.")
    job.warn(
        "The host's packages do not renew the boot loader for UEFI, because it has none of them: when it runs, "
        "install its packages for UEFI (Debian: grub-efi-amd64 and shim-signed)."
    )


def lead_to(uuid: str, folder: str) -> str:
    """The configuration that leads to the menu in ``folder`` of the filesystem ``uuid``, as grub-install writes it.
    Pure."""
    return f"search.fs_uuid {uuid} root\nset prefix=($root)'{folder}'\nconfigfile $prefix/grub.cfg\n"
