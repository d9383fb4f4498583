"""What a libvirt domain's definition says, for those who captured it, plan with it and adapt it. Pure."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET


def parse(definition: str) -> ET.Element:
    """The XML of a domain, pool or network. Raises ValueError when it is none."""
    try:
        # A captured definition is not trusted, but expat expands no external entities and bounds internal ones.
        return ET.fromstring(definition)  # noqa: S314
    except ET.ParseError as error:
        raise ValueError(str(error)) from error


def pci_addresses(domain: ET.Element) -> list[str]:
    """The PCI devices of the host that a domain is given (``0000:03:00.0``), by ``<hostdev>`` or ``<interface>``."""
    found = []
    for element in (*domain.iterfind("devices/hostdev"), *domain.iterfind("devices/interface")):
        address = element.find("source/address")
        if element.get("type") not in ("pci", "hostdev") or address is None:
            continue
        words = [address.get(key, "0") for key in ("domain", "bus", "slot", "function")]
        if all(re.fullmatch(r"0x[0-9a-fA-F]+|\d+", word) for word in words):
            place, bus, slot, function = (int(word, 0) for word in words)
            found.append(f"{place:04x}:{bus:02x}:{slot:02x}.{function:x}")
    return found


def other_devices(domain: ET.Element) -> list[str]:
    """What else of the host a domain is given, in words: ``USB 046d:c52b``, ``a mediated device``."""
    words = {"mdev": "a mediated device", "scsi": "a SCSI device", "usb": "a USB port"}
    found = []
    for element in domain.iterfind("devices/hostdev"):
        kind = element.get("type", "")
        ids = [element.find(f"source/{tag}") for tag in ("vendor", "product")]
        known = [one.get("id", "").removeprefix("0x") for one in ids if one is not None]
        if kind == "usb" and known:
            found.append(f"USB {':'.join(known)}")
        elif kind in words:
            found.append(words[kind])
    return found


def files_of(domain: ET.Element) -> list[str]:
    """The paths of a domain's disks that are files of the host."""
    paths = (source.get("file", "") for source in domain.iterfind("devices/disk/source"))
    return [path for path in paths if path.startswith("/")]
