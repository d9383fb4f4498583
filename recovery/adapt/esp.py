"""The EFI system partition: every firmware finds the host there, also one that forgot its boot entries."""

from __future__ import annotations

from pathlib import Path

from recovery.adapt.efivars import choose_loader
from recovery.adapt.host import KEPT, keep
from recovery.errors import NotFoundError, SpaceError


def loader_files(esp: Path) -> list[str]:
    """All ``.efi`` files below an ESP, as paths relative to it."""
    files = (p.relative_to(esp) for p in esp.rglob("*") if p.is_file() and p.suffix.lower() == ".efi")
    return sorted(str(path) for path in files)


def vendor_loader(esp: Path, os_id: str) -> str:
    """The loader that the fallback path and the boot entry start. Raises NotFoundError."""
    loader = choose_loader(loader_files(esp), os_id)
    if loader is None:
        raise NotFoundError(
            "The EFI system partition of the restored host has no bootloader.",
            hint="Install one in its chroot (grub-install --target=x86_64-efi), then run 'rekindle adapt' again.",
        )
    return loader


def ensure_fallback(esp: Path, loader: str) -> list[str]:
    """Make ``\\EFI\\BOOT\\BOOTX64.EFI`` start the host; returns what was changed, in sentences.

    Shim looks for GRUB and MokManager beside itself, so both are copied along. ``fbx64.efi`` is put aside: with it,
    shim started from this folder would write boot entries and reset the machine instead of booting - for ever on
    a firmware that does not keep them. Raises SpaceError.
    """
    vendor = (esp / loader).parent
    boot = find_folder(esp, "EFI", "BOOT")
    changes = []
    pairs = [(esp / loader, "BOOTX64.EFI")]
    if "shim" in Path(loader).name.lower():
        pairs += [(vendor / name, name) for name in ("grubx64.efi", "mmx64.efi")]
    try:
        boot.mkdir(parents=True, exist_ok=True)
        for source, name in pairs:
            if source.is_file() and copy_file(source, _find(boot, name)):
                changes.append(f"The fallback path has {source.relative_to(esp)} as \\EFI\\BOOT\\{name}.")
        fallback = _find(boot, "fbx64.efi")
        if fallback.exists():
            fallback.replace(fallback.with_name(fallback.name + KEPT))
            changes.append("\\EFI\\BOOT\\fbx64.efi was put aside, so that the fallback path boots at once.")
    except OSError as error:
        raise SpaceError(
            f"The EFI system partition cannot be written: {error.strerror}.",
            hint="Remove old files from it (in the host's /boot/efi), then run 'rekindle adapt' again.",
        ) from error
    return changes


def find_folder(esp: Path, *names: str) -> Path:
    """A folder below the ESP whatever its case is (FAT does not care, a test's directory does)."""
    path = esp
    for name in names:
        path = _find(path, name)
    return path


def _find(folder: Path, name: str) -> Path:
    if folder.is_dir():
        for entry in folder.iterdir():
            if entry.name.lower() == name.lower():
                return entry
    return folder / name


def copy_file(source: Path, target: Path) -> bool:
    """Put a copy of ``source`` at ``target``, whole or not at all; False when it was there. Raises OSError."""
    return write_file(target, source.read_bytes())


def write_file(target: Path, data: bytes) -> bool:
    """The same for ``data``; what was there is kept beside."""
    if target.is_file():
        if target.read_bytes() == data:
            return False
        keep(target)
    # FAT has no journal: write beside and rename, so that a power cut leaves a whole loader.
    new = target.with_name(target.name + ".new")
    new.write_bytes(data)
    new.replace(target)
    return True
