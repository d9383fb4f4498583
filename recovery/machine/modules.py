"""The kernel modules that drive a disk on this machine: its own, and those of the controllers that it hangs on."""

from __future__ import annotations

from pathlib import Path


def modules_in_use(disk: str, sysfs: Path = Path("/sys")) -> list[str]:
    """The modules that drive ``disk`` (``/dev/nvme0n1``) on this machine now, the disk's own first.

    A driver built into the medium's kernel has no module and is given by the driver's name.
    """
    place = sysfs / "class/block" / Path(disk).resolve().name
    names = []
    if place.exists():
        for folder in [place.resolve(), *place.resolve().parents]:
            driver = folder / "driver"
            if driver.is_symlink():
                module = driver.resolve() / "module"
                names.append((module if module.exists() else driver).resolve().name)
            if folder == sysfs.resolve():
                break
    return list(dict.fromkeys(name.replace("-", "_") for name in names))
