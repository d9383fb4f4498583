"""What libvirt's definitions say, for those who capture them, plan with them and adapt them. Pure."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator


def parse(definition: str) -> ET.Element:
    """The XML of a domain, pool or network. Raises ValueError when it is none."""
    try:
        # A captured definition is not trusted, but expat expands no external entities and bounds internal ones.
        return ET.fromstring(definition)  # noqa: S314
    except ET.ParseError as error:
        raise ValueError(f"its definition is no XML ({error})") from error


def _given(domain: ET.Element) -> Iterator[tuple[str, ET.Element]]:
    """(type, source) of everything of the host that is handed to a domain."""
    places = ("devices/hostdev", "devices/interface[@type='hostdev']", "devices/disk[@type='nvme']")
    for element in (one for place in places for one in domain.iterfind(place)):
        source = element.find("source")
        if source is not None:
            yield ("pci" if element.tag != "hostdev" else element.get("type", "")), source


def pci_addresses(domain: ET.Element) -> list[str]:
    """The PCI devices of the host that a domain is given (``0000:03:00.0``): by ``<hostdev>``, ``<interface>`` or as
    an NVMe disk."""
    addresses = (source.find("address") for kind, source in _given(domain) if kind == "pci")
    return [place for one in addresses if one is not None and (place := _pci(one))]


def _pci(address: ET.Element) -> str:
    place = [number for key in ("domain", "bus", "slot", "function")
             if (number := _number(address.get(key, "0"))) is not None]  # fmt: skip
    return f"{place[0]:04x}:{place[1]:02x}:{place[2]:02x}.{place[3]:x}" if len(place) == 4 else ""


def _number(text: str) -> int | None:
    """As libvirt reads it: hexadecimal, octal or decimal by its beginning. None for what is none."""
    if not re.fullmatch(r"0[xX][0-9a-fA-F]{1,8}|[0-9]{1,8}", text):
        return None
    try:
        return int(text, 16 if text[:2] in ("0x", "0X") else 8 if text[0] == "0" else 10)
    except ValueError:
        return None


def scsi_addresses(domain: ET.Element) -> list[str]:
    """The SCSI devices of the host that a domain is given by adapter and place: ``0:0:1:0``."""
    found = []
    for kind, source in _given(domain):
        adapter, address = source.find("adapter"), source.find("address")
        if kind != "scsi" or adapter is None or address is None:
            continue
        host = re.fullmatch(r"scsi_host(\d{1,8})", adapter.get("name", ""))
        numbers = [_number(address.get(key, "0")) for key in ("bus", "target", "unit")]
        if host and None not in numbers:
            found.append(":".join(str(number) for number in (int(host[1]), *numbers)))
    return found


def other_devices(domain: ET.Element) -> list[str]:
    """What else of the host a domain is given, in words: ``USB 046d:c52b``, ``a mediated device``."""
    words = {"mdev": "a mediated device", "scsi": "a SCSI device", "usb": "a USB port"}
    found = []
    for kind, source in _given(domain):
        ids = [source.find(tag) for tag in ("vendor", "product")]
        known = [one.get("id", "").removeprefix("0x") for one in ids if one is not None]
        if kind == "usb" and known:
            found.append(f"USB {':'.join(known)}")
        elif kind in words:
            found.append(words[kind])
    return found


def network_names(domain: ET.Element) -> list[str]:
    """The networks of libvirt that a domain's interfaces are in."""
    sources = domain.iterfind("devices/interface[@type='network']/source")
    return [name for source in sources if (name := source.get("network", ""))]


def addresses_of_network(network: ET.Element) -> dict[str, list[str]]:
    """Name of a network whose cards are devices of the host -> their PCI addresses; empty for other networks."""
    forward = network.find("forward[@mode='hostdev']")
    if forward is None:
        return {}
    return {network.findtext("name", ""): [place for one in forward.iterfind("address") if (place := _pci(one))]}


def disk_files(domain: ET.Element) -> list[str]:
    """The paths of a domain's disks that are files, without those of which it can do without (CDs, optional ones)."""
    found = []
    for disk in domain.iterfind("devices/disk"):
        source = disk.find("source")
        path = source.get("file", "") if source is not None else ""
        optional = source is not None and source.get("startupPolicy") == "optional"
        if disk.get("device", "disk") == "disk" and path.startswith("/") and not optional:
            found.append(path)
    return found
