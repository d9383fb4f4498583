"""The addresses of a captured host, from the configuration of ifupdown, systemd-networkd, netplan and NetworkManager.

Pure parsers of text, and ``read_network`` that finds the files in a Tree. Only what a person needs to recognise a host
and what a plan must carry over is read; the configuration itself is restored with the disk.
"""

from __future__ import annotations

import configparser
import ipaddress
import re
from dataclasses import dataclass, field

from recovery.capture.tree import Tree
from recovery.capture.yamlsubset import parse_yaml
from recovery.layout import Address


@dataclass
class _Interface:
    mac: str = ""
    addresses: list[str] = field(default_factory=list)
    dhcp: bool = False


Found = dict[str, _Interface]


def read_network(tree: Tree) -> tuple[Address, ...]:
    """All configured interfaces but the loopback, in the order found; each address ``192.0.2.5/24``."""
    found: Found = {}
    read_ifupdown(tree, "/etc/network/interfaces", found)
    for folder in ("/etc/systemd/network", "/usr/lib/systemd/network"):
        for name in tree.names(folder):
            if name.endswith(".network") and not re.match(r"\d+-(container|vm|wifi|ipv4ll|6rd)|80-|89-", name):
                parse_networkd(tree.text(f"{folder}/{name}"), found)
    for name in tree.names("/etc/netplan"):
        if name.endswith((".yaml", ".yml")):
            parse_netplan(tree.text(f"/etc/netplan/{name}"), found)
    for name in tree.names("/etc/NetworkManager/system-connections"):
        parse_keyfile(tree.text(f"/etc/NetworkManager/system-connections/{name}"), found)
    return tuple(
        Address(interface=name, mac=item.mac, addresses=tuple(dict.fromkeys(item.addresses)), dhcp=item.dhcp)
        for name, item in found.items()
        if name != "lo"
    )


def read_ifupdown(tree: Tree, path: str, found: Found, depth: int = 0) -> None:
    """``/etc/network/interfaces`` with its ``source`` lines."""
    text = tree.text(path)
    parse_ifupdown(text, found)
    if depth > 4:
        return
    for line in text.splitlines():
        words = line.split()
        if len(words) < 2 or words[0] not in ("source", "source-directory"):
            continue
        folder, _, pattern = words[1].rpartition("/")
        if words[0] == "source-directory":
            folder, pattern = words[1].rstrip("/"), "*"
        if not folder.startswith("/"):
            folder = f"/etc/network/{folder}".rstrip("/")
        expression = "".join(".*" if char == "*" else "." if char == "?" else re.escape(char) for char in pattern)
        for name in tree.names(folder):
            if re.fullmatch(expression, name) and not name.startswith("."):
                read_ifupdown(tree, f"{folder}/{name}", found, depth + 1)


def _with_prefix(address: str, netmask: str) -> str:
    if "/" in address or not netmask:
        return address
    try:
        return ipaddress.ip_interface(f"{address}/{netmask}").with_prefixlen
    except ValueError:
        return address


def parse_ifupdown(text: str, found: Found) -> None:
    """The ``iface`` stanzas of one file."""
    current: _Interface | None = None
    options: dict[str, str] = {}

    def close() -> None:
        if current is not None and options.get("address"):
            current.addresses.append(_with_prefix(options["address"], options.get("netmask", "")))

    for line in text.replace("\\\n", " ").splitlines():
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if words[0] in ("iface", "auto", "mapping", "source", "source-directory") or words[0].startswith("allow-"):
            close()
            current, options = None, {}
            if words[0] == "iface" and len(words) >= 4:
                current = found.setdefault(words[1], _Interface())
                current.dhcp |= words[3] in ("dhcp", "auto")
        elif current is not None and len(words) >= 2:
            options[words[0]] = words[1]
            if words[0] == "hwaddress":
                current.mac = words[-1].lower()
    close()


def parse_networkd(text: str, found: Found) -> None:
    """A ``.network`` file; its name is taken from [Match] Name=, else from the MAC address."""
    section, match, addresses, dhcp = "", {"name": "", "mac": ""}, [], False
    for line in text.splitlines():
        line = line.strip()
        if line.startswith("["):
            section = line.strip("[]")
            continue
        key, _, value = (part.strip() for part in line.partition("="))
        if section == "Match" and key == "Name":
            match["name"] = value.split()[0] if value else ""
        elif section == "Match" and key in ("MACAddress", "PermanentMACAddress"):
            match["mac"] = value.split()[0].lower() if value else ""
        elif section in ("Network", "Address") and key == "Address":
            addresses.append(value)
        elif section == "Network" and key == "DHCP":
            dhcp = value.lower() in ("yes", "true", "ipv4", "ipv6", "both")
    name = match["name"] or match["mac"]
    if name:
        item = found.setdefault(name, _Interface())
        item.mac = item.mac or match["mac"]
        item.addresses += addresses
        item.dhcp |= dhcp


def parse_netplan(text: str, found: Found) -> None:
    """A netplan file: ethernets, bridges, bonds and VLANs."""
    document = parse_yaml(text)
    network = document.get("network") if isinstance(document, dict) else None
    for group in ("ethernets", "bridges", "bonds", "vlans"):
        interfaces = network.get(group) if isinstance(network, dict) else None
        for name, facts in interfaces.items() if isinstance(interfaces, dict) else ():
            item = found.setdefault(str(name), _Interface())
            if not isinstance(facts, dict):
                continue
            match = facts.get("match")
            mac = match.get("macaddress", "") if isinstance(match, dict) else facts.get("macaddress", "")
            item.mac = item.mac or str(mac).lower()
            item.dhcp |= str(facts.get("dhcp4", "")).lower() in ("true", "yes", "on")
            addresses = facts.get("addresses")
            for address in addresses if isinstance(addresses, list) else ():
                item.addresses.append(str(next(iter(address)) if isinstance(address, dict) else address))


def parse_keyfile(text: str, found: Found) -> None:
    """A NetworkManager connection."""
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        parser.read_string(text)
    except configparser.Error:
        return
    connection = parser["connection"] if parser.has_section("connection") else None
    if connection is None:
        return
    name = connection.get("interface-name") or connection.get("id", "")
    if not name:
        return
    item = found.setdefault(name, _Interface())
    for section in ("ethernet", "802-3-ethernet"):
        item.mac = item.mac or parser.get(section, "mac-address", fallback="").lower()
    item.dhcp |= parser.get("ipv4", "method", fallback="") == "auto"
    for section in ("ipv4", "ipv6"):
        for key, value in parser.items(section) if parser.has_section(section) else ():
            if re.fullmatch(r"address\d*", key) and value:
                item.addresses.append(value.split(",")[0])
