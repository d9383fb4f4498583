"""NTFS on the captured disks: was it left whole, and is a Windows on it whose drivers a plan has to know?

Nothing is written: the state is read from the volume's own structures, its files through a read-only mount.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from recovery.capture.mounts import mounted, used_bytes
from recovery.capture.ranges import read_range
from recovery.capture.volumes import Volume
from recovery.errors import CommandError, RekindleError
from recovery.layout import WINDOWS, Content, SystemFacts, WindowsSystem
from recovery.windows.ntfs import read_facts
from recovery.windows.system import (
    Installed,
    architecture,
    find_installed,
    is_hibernated,
    product_name,
    read_drivers,
)

Warn = Callable[[str], None]
#: The clause of a volume in which a session of Windows sleeps.
SLEEPS = "a session of Windows sleeps in it (hibernation or fast start)"


@dataclass(frozen=True)
class FoundNtfs:
    """What is on an NTFS volume; ``windows`` None when no Windows is."""

    content: Content
    windows: WindowsSystem | None = None
    architecture: str = ""


def look_at_ntfs(volume: Volume, warn: Warn, *, inside: bool) -> FoundNtfs:
    """Look at an NTFS volume of one extent, and with ``inside`` (root) at its files. What cannot be read is left out,
    with a warning."""
    extent = volume.extents[0]
    content = volume.content
    try:
        facts = read_facts(lambda offset, length: read_range(extent.path, extent.offset + offset, length))
    except RekindleError as error:
        warn(f"{volume.name}: {error.message}")
        return FoundNtfs(msgspec.structs.replace(content, unclean="it is damaged"))
    content = msgspec.structs.replace(content, unclean=facts.unclean)
    if not inside:
        return FoundNtfs(content)
    try:
        with mounted(volume) as root:
            content = msgspec.structs.replace(content, used=used_bytes(root))
            sleeps = is_hibernated(root)
            installed = find_installed(root)
            windows = _read(volume.name, installed, facts.unclean, sleeps, warn) if installed else None
            kind = architecture(installed.folder) if installed else ""
    except (RekindleError, OSError) as error:
        why = error.message if isinstance(error, RekindleError) else str(error)
        warn(f"The filesystem on {volume.name} was not looked into: {why}")
        return FoundNtfs(content)
    if sleeps:
        content = msgspec.structs.replace(content, unclean=SLEEPS)
    return FoundNtfs(content, windows, kind)


def as_host(windows: WindowsSystem, architecture: str, esp: str) -> SystemFacts:
    """The facts of a host that is this Windows. Pure."""
    return SystemFacts(
        os_name=windows.name,
        os_id=WINDOWS,
        architecture=architecture or "x86_64",
        root=windows.volume,
        esp=esp,
        bootloader="bootmgr",
    )


def _read(name: str, installed: Installed, unclean: str, sleeps: bool, warn: Warn) -> WindowsSystem:
    drivers: tuple[str, ...] | None = None
    problem, damaged = "", False
    try:
        drivers = read_drivers(installed)
    except RekindleError as error:
        problem, damaged = error.message, not isinstance(error, CommandError)
        warn(f"The registry of the Windows on {name} was not looked into: {error.message}")
    return WindowsSystem(
        volume=name,
        name=product_name(Path(installed.folder)),
        drivers=drivers,
        problem=problem,
        damaged=damaged,
        hibernated=sleeps,
        unclean=unclean,
    )
