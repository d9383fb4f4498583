"""LVM on a disk image without device mapper: real metadata; where a volume lies is computed."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

from recovery.commands import run


@contextlib.contextmanager
def loop_device(disk: Path, offset: int, size: int) -> Iterator[Path]:
    """A loop device over a part of ``disk``."""
    argv = ["losetup", "--find", "--show", "--offset", str(offset), "--sizelimit", str(size), str(disk)]
    device = Path(run(argv).stdout.strip())
    try:
        yield device
    finally:
        run(["losetup", "--detach", device])


def only(device: Path) -> list[str]:
    """Words for LVM's commands: nothing but this device; this machine's own LVM configuration, backups and list of
    devices are left alone; no mapper is asked for."""
    settings = f'devices {{ filter=["a|^{device}$|", "r|.*|"] use_devicesfile=0 }} backup {{ backup=0 archive=0 }}'
    return ["--driverloaded", "n", "--config", settings]


def create(device: Path, group: str, volumes: dict[str, int]) -> dict[str, int]:
    """Make ``device`` a physical volume with ``group`` and linear ``volumes`` (name -> bytes).

    Returns the byte offset of each volume on the device.
    """
    common = only(device)
    run(["pvcreate", *common, "-q", "-ff", "-y", device])
    run(["vgcreate", *common, "-q", group, device])
    for name, size in volumes.items():
        run(["lvcreate", *common, "-q", "-an", "-Zn", "-Wn", "-n", name, "-L", f"{size}b", group])
    report = ["--reportformat", "json", "--units", "b", "--nosuffix"]
    answer = run(["pvs", *common, *report, "--segments", "-o", "lv_name,pvseg_start,pe_start,vg_extent_size", device])
    offsets: dict[str, int] = {}
    for row in json.loads(answer.stdout)["report"][0]["pvseg"]:
        if row["lv_name"]:
            offsets[row["lv_name"]] = int(row["pe_start"]) + int(row["pvseg_start"]) * int(row["vg_extent_size"])
    return offsets
