"""Firmware, memory, vendor and network interfaces of the machine, from sysfs, procfs and ``ip``."""

from __future__ import annotations

import os
import platform
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import msgspec

from recovery.layout import Firmware
from recovery.machine.model import Nic
from recovery.machine.probe_disks import read_text
from recovery.machine.probe_volumes import said

_SECURE_BOOT = "SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"


def probe_firmware(sysfs: Path) -> tuple[Firmware, bool]:
    """The firmware mode that this system was started in, and whether Secure Boot is on."""
    if not (sysfs / "firmware" / "efi").is_dir():
        return "bios", False
    try:
        # Four bytes of attributes, then the value.
        value = (sysfs / "firmware" / "efi" / "efivars" / _SECURE_BOOT).read_bytes()
    except OSError:
        value = b""
    return "uefi", len(value) >= 5 and value[4] == 1


def probe_memory(procfs: Path) -> int:
    """Bytes of memory, 0 when unknown."""
    for line in read_text(procfs / "meminfo").splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    return 0


def probe_processor(procfs: Path) -> tuple[str, ...]:
    """The flags of the first processor; those of virtualization are missing where the firmware has it switched off.
    Empty where it has no such line (other architectures)."""
    for line in read_text(procfs / "cpuinfo").splitlines():
        if line.startswith("flags"):
            return tuple(line.partition(":")[2].split())
    return ()


def probe_model(sysfs: Path) -> tuple[str, str]:
    """Vendor and model as the firmware tells them."""
    dmi = sysfs / "class" / "dmi" / "id"
    return read_text(dmi / "sys_vendor"), read_text(dmi / "product_name")


def architecture() -> str:
    """The kernel's name of the processor architecture (``x86_64``)."""
    return platform.machine()


def cpu_count() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0))


def _links() -> list[dict[str, Any]]:
    text = said(["ip", "-j", "-d", "addr", "show"])
    try:
        links: list[dict[str, Any]] = msgspec.json.decode(text) if text.strip() else []
    except msgspec.DecodeError:
        links = []
    return links


def _addresses(links: list[dict[str, Any]], bonds: dict[str, str]) -> dict[str, list[str]]:
    """Interface -> global addresses in CIDR form. Those of a VLAN count for the interface below it as well, those of
    a bond for its members."""
    below: dict[str, list[str]] = defaultdict(list)
    for member, bond in bonds.items():
        below[bond].append(member)
    for link in links:
        if link.get("link"):
            below[str(link.get("ifname"))].append(str(link["link"]))
    found: dict[str, list[str]] = defaultdict(list)

    def give(name: str, address: str, depth: int = 0) -> None:
        found[name].append(address)
        for lower in below[name] if depth < 4 else ():  # a veth's peer may point back at it
            if address not in found[lower]:
                give(lower, address, depth + 1)

    for link in links:
        for info in link.get("addr_info", ()):
            if info.get("scope") == "global":
                give(str(link.get("ifname")), f"{info.get('local')}/{info.get('prefixlen')}")
    return found


def _bonds(links: list[dict[str, Any]]) -> dict[str, str]:
    """Member -> its bond."""
    kinds = {link.get("ifname"): (link.get("linkinfo") or {}).get("info_kind") for link in links}
    return {str(x["ifname"]): str(x["master"]) for x in links if x.get("master") and kinds.get(x["master"]) == "bond"}


def _model(name: str, sysfs: Path) -> str:
    facts = dict(
        line.partition("=")[::2]
        for line in said(["udevadm", "info", "-q", "property", "-p", f"/sys/class/net/{name}"]).splitlines()
    )
    words = (facts.get("ID_VENDOR_FROM_DATABASE", ""), facts.get("ID_MODEL_FROM_DATABASE", ""))
    return " ".join(word for word in words if word)


def _slot(device: Path) -> str:
    """The PCI address; a virtio card's lies one level up."""
    for folder in (device.resolve(), device.resolve().parent):
        if re.fullmatch(r"[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]", folder.name):
            return folder.name
    return ""


def probe_nics(sysfs: Path) -> tuple[Nic, ...]:
    """The network interfaces that are hardware; bridges, VLANs and tunnels are not."""
    folder = sysfs / "class" / "net"
    names = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
    links = _links()
    bonds = _bonds(links)
    addresses = _addresses(links, bonds)
    nics = []
    for name in names:
        link = folder / name
        if not (link / "device").exists():
            continue
        driver = link / "device" / "driver"
        speed = read_text(link / "speed")
        nics.append(
            Nic(
                name=name,
                mac=read_text(link / "address"),
                driver=driver.resolve().name if driver.exists() else "",
                carrier=read_text(link / "carrier") == "1",
                speed=int(speed) if speed.isdigit() and int(speed) > 0 else None,
                addresses=tuple(addresses.get(name, ())),
                model=_model(name, sysfs),
                state=read_text(link / "operstate"),
                slot=_slot(link / "device"),
                bond=bonds.get(name, ""),
            )
        )
    return tuple(nics)
