"""An installed Windows in a folder where its volume is mounted: its files, whatever their case, and what they say.

Links are never followed: on NTFS they are junctions and reparse points of the captured system, and on this machine
they would mean this machine's files.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from recovery.errors import RekindleError
from recovery.windows.drivers import SERVICES
from recovery.windows.hives import Hive, control_sets
from recovery.windows.ntfs import HIBERFILE, HIBERFILE_HEAD, hibernated

#: Machine types of a program's PE header (``IMAGE_FILE_MACHINE_...`` of ``winnt.h``).
_ARCHITECTURES = {0x8664: "x86_64", 0x014C: "i686", 0xAA64: "aarch64"}
#: The first build that is called Windows 11; its registry still says 10.
_ELEVEN = 22000


@dataclass(frozen=True)
class Installed:
    """Where Windows lies: its folder (``.../Windows``) and the registry hive that starts it."""

    folder: Path
    system: Path


def locate(root: Path, *names: str) -> Path | None:
    """A file or folder below ``root``, whatever its case is; None when it is not there, or behind a link."""
    path = root
    for name in names:
        try:
            found = next((entry for entry in path.iterdir() if entry.name.lower() == name.lower()), None)
        except OSError:
            return None
        if found is None or found.is_symlink():
            return None
        path = found
    return path


def find_installed(root: Path) -> Installed | None:
    """The Windows on a volume that is mounted at ``root``; None when there is none."""
    system = locate(root, "Windows", "System32", "config", "SYSTEM")
    folder = locate(root, "Windows")
    return Installed(folder, system) if system is not None and folder is not None and system.is_file() else None


def is_hibernated(root: Path) -> bool:
    """Whether a system sleeps in the volume mounted at ``root``. Raises OSError."""
    path = locate(root, HIBERFILE)
    if path is None or not path.is_file():
        return False
    with path.open("rb") as file:
        return hibernated(file.read(HIBERFILE_HEAD))


def drivers_present(hive: Hive, control_set: str, folder: Path) -> tuple[str, ...]:
    """Of the storage drivers that are known here, those of which Windows has the service and the file, as it spells
    them. Raises IntegrityError."""
    known = {name.lower() for name in SERVICES}
    services = f"{control_set}/Services"
    found = [name for name in hive.children(services) if name.lower() in known]
    return tuple(name for name in found if _has_file(folder, hive.text(f"{services}/{name}", "ImagePath"), name))


def product_name(folder: Path) -> str:
    """``Windows Server 2022 Standard``, as far as its registry can be read."""
    path = locate(folder, "System32", "config", "SOFTWARE")
    if path is None:
        return "Windows"
    try:
        hive = Hive(path)
        version = "Microsoft/Windows NT/CurrentVersion"
        name, build = hive.text(version, "ProductName"), hive.text(version, "CurrentBuildNumber")
    except (RekindleError, OSError):
        return "Windows"  # its name is not worth a warning
    if build.isdigit() and int(build) >= _ELEVEN:
        name = name.replace("Windows 10", "Windows 11")
    return name or "Windows"


def architecture(folder: Path) -> str:
    """The processor that its kernel is for."""
    path = locate(folder, "System32", "ntoskrnl.exe")
    try:
        head = path.open("rb").read(4096) if path is not None else b""
        offset = struct.unpack_from("<I", head, 0x3C)[0]
        machine = struct.unpack_from("<H", head, offset + 4)[0] if head[offset : offset + 4] == b"PE\0\0" else 0
    except (OSError, struct.error):
        machine = 0
    return _ARCHITECTURES.get(machine, "x86_64")


def read_drivers(installed: Installed) -> tuple[str, ...]:
    """What ``drivers_present`` finds in the control set that Windows used last. Raises CommandError without hivex,
    IntegrityError."""
    hive = Hive(installed.system, write=True)  # opened as it will be for the change: what speaks against it is told
    sets: Sequence[str] = control_sets(hive)
    return drivers_present(hive, sets[0], installed.folder) if sets else ()


def _has_file(folder: Path, image: str, service: str) -> bool:
    r"""``\SystemRoot\System32\drivers\x.sys``, ``System32\drivers\x.sys``, or nothing, which means that place."""
    names = [part for part in image.replace("/", "\\").split("\\") if part and part.lower() != "systemroot"]
    path = locate(folder, *(names or ("System32", "drivers", f"{service}.sys")))
    return path is not None and path.is_file()
