"""Network cards and storage controllers that do not work here, and what they miss: a driver, or its firmware.

A controller without a driver shows no disk, a card without firmware no link: the console must name them, because
nothing else on the screen would.
"""

from __future__ import annotations

import re
from pathlib import Path

from recovery.machine.model import Driverless
from recovery.machine.probe_disks import read_text
from recovery.machine.probe_volumes import said

#: The first byte of a PCI class (PCI Code and ID Assignment Specification): what a restore needs.
_CLASSES = {"0x01": "storage", "0x02": "network"}
#: ``bnx2x 0000:03:00.0: firmware: failed to load bnx2x/x.fw (-2)``, and the same of kernels without Debian's patch.
_FIRMWARE = re.compile(
    r"(?:^|\s)([0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7])[: ].*?"
    r"(?:firmware: failed to load|Direct firmware load for) (\S+)"
)


def probe_driverless(sysfs: Path) -> tuple[Driverless, ...]:
    """Every such device on the PCI buses, in their order. What can't be found out stays empty."""
    folder = sysfs / "bus" / "pci" / "devices"
    if not folder.is_dir():
        return ()
    wanting = firmware_wanted(said(["dmesg"]))
    found = []
    for device in sorted(folder.iterdir()):
        purpose = _CLASSES.get(read_text(device / "class")[:4])
        firmware = wanting.get(device.name, ())
        bound = (device / "driver").exists()
        if purpose is None or (bound and not firmware):
            continue
        alias = read_text(device / "modalias")
        modules = tuple(said(["modprobe", "--resolve-alias", alias]).split()) if alias and not bound else ()
        driver = (device / "driver").resolve().name if bound else ""
        found.append(
            Driverless(
                slot=device.name,
                purpose=purpose,  # type: ignore[arg-type]
                name=_name(device, sysfs),
                modalias=alias,
                modules=(driver,) if driver else modules,
                firmware=firmware,
                reason=explain(driver, modules, firmware, sysfs),
            )
        )
    return tuple(found)


def explain(driver: str, modules: tuple[str, ...], firmware: tuple[str, ...], sysfs: Path) -> str:
    """What is missing, in a sentence."""
    if firmware:
        return (
            f"The firmware {', '.join(firmware)}{f' of its driver {driver}' if driver else ''} is not on this medium."
        )
    if not modules:
        return "This medium has no driver for it."
    loaded = [name for name in modules if (sysfs / "module" / name).is_dir()]
    if loaded:
        return f"The driver {', '.join(loaded)} is loaded and does not take it; 'dmesg' may say why."
    return f"The driver {', '.join(modules)} is not loaded: try 'modprobe {modules[0]}'."


def firmware_wanted(log: str) -> dict[str, tuple[str, ...]]:
    """PCI address -> firmware files that the kernel did not find, from its log. Pure."""
    found: dict[str, list[str]] = {}
    for line in log.splitlines():
        match = _FIRMWARE.search(line)
        if match:
            files = found.setdefault(match.group(1), [])
            if match.group(2) not in files:
                files.append(match.group(2))
    return {slot: tuple(files) for slot, files in found.items()}


def _name(device: Path, sysfs: Path) -> str:
    facts = dict(
        line.partition("=")[::2]
        for line in said(["udevadm", "info", "-q", "property", "-p", f"/bus/pci/devices/{device.name}"]).splitlines()
    )
    words = [facts.get("ID_VENDOR_FROM_DATABASE", ""), facts.get("ID_MODEL_FROM_DATABASE", "")]
    ids = f"PCI {read_text(device / 'vendor').removeprefix('0x')}:{read_text(device / 'device').removeprefix('0x')}"
    return " ".join(word for word in words if word) or ids
