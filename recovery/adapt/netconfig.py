"""Pure: what a host's network configuration says about its interfaces, whichever program it is written for.

Only what the move to other NICs needs is read: which names are physical NICs, what is stacked on them, which
addresses come up on what, and which MAC a name is bound to.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

_VIRTUAL_NAME = re.compile(r"(lo|virbr|docker|veth|vnet|tap|tun|wg|dummy|fwbr|fwln|ppp|ip6tnl|sit)[\d.-]*\w*$")


@dataclass
class NetConfig:
    """``lower`` maps a virtual interface (bridge, bond, VLAN) to what it stands on; all keys are interface names.

    A NIC that is matched by its MAC alone, whatever it is called, has that MAC (lower case) as its name here.
    """

    names: list[str] = field(default_factory=list)
    lower: dict[str, list[str]] = field(default_factory=dict)
    addresses: dict[str, list[str]] = field(default_factory=dict)
    macs: dict[str, str] = field(default_factory=dict)

    def mention(self, name: str) -> None:
        """An interface is named; patterns (``en*``) name none."""
        if name and not set("*?[!%\\") & set(name) and name not in self.names:
            self.names.append(name)

    def stack(self, upper: str, *lower: str) -> None:
        """``upper`` is virtual and stands on ``lower``."""
        self.mention(upper)
        below = self.lower.setdefault(upper, [])
        for name in lower:
            self.mention(name)
            if name not in below:
                below.append(name)

    def address(self, name: str, *addresses: str) -> None:
        """Addresses (or ``DHCP``) come up on ``name``."""
        known = self.addresses.setdefault(name, [])
        known += [a for a in addresses if a and a not in known]

    def mac(self, name: str, mac: str) -> None:
        """``name`` is bound to a hardware address."""
        if name and re.fullmatch(r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}", mac.lower()):
            self.macs.setdefault(name, mac.lower())

    def physical(self) -> list[str]:
        """The names that are NICs, in the order of the configuration."""
        return [n for n in self.names if n not in self.lower and not _VIRTUAL_NAME.match(n)]

    def carried(self, name: str) -> list[str]:
        """The addresses that come up on ``name`` or on anything stacked on it, as ``ADDRESS on INTERFACE``."""
        found: list[str] = []
        seen: set[str] = set()
        todo = [name]
        while todo:
            current = todo.pop(0)
            if current in seen:
                continue
            seen.add(current)
            found += [f"{address} on {current}" for address in self.addresses.get(current, ())]
            todo += [upper for upper, below in self.lower.items() if current in below]
        return found


def read_ifupdown(text: str, config: NetConfig) -> None:
    """``/etc/network/interfaces`` of Debian and Proxmox."""
    name = ""
    for line in _logical_lines(text):
        words = line.split()
        key = words[0].replace("-", "_")
        if key in ("auto", "allow_hotplug", "mapping", "source", "source_directory", "no_auto_down"):
            name = ""
        elif key == "iface" and len(words) >= 2:
            name = words[1].partition(":")[0]
            config.mention(name)
            base, dot, tag = name.rpartition(".")
            if dot and tag.isdigit():
                config.stack(name, base)
            if "dhcp" in words[3:4]:
                config.address(name, "DHCP")
        elif name and key == "address" and len(words) > 1:
            config.address(name, words[1])
        elif name and key in ("bridge_ports", "bond_slaves", "slaves", "ovs_ports", "ovs_bonds"):
            config.stack(name, *(w for w in words[1:] if w not in ("none", "all", "regex")))
        elif name and key in ("vlan_raw_device", "ovs_bridge", "bond_master") and len(words) > 1:
            config.stack(*((name, words[1]) if key == "vlan_raw_device" else (words[1], name)))
        elif name and key in ("bridge_stp", "bond_mode", "ovs_type") and words[1:2] != ["OVSPort"]:
            config.stack(name)


def read_networkd(text: str, config: NetConfig) -> None:
    """A ``.network``, ``.netdev`` or ``.link`` file of systemd."""
    keys = list(_ini(text))
    matched = [n for s, k, v in keys if s == "match" and k == "name" for n in v.split()]
    names = [n for n in matched if not set("*?[!") & set(n)]
    macs = [v for s, k, v in keys if s == "match" and k in ("macaddress", "permanentmacaddress")]
    given = [v for s, k, v in keys if s == "link" and k == "name"]
    if not matched and not given:
        names = [mac.lower() for value in macs for mac in value.split()]
    for name in names + given:
        config.mention(name)
        if len(macs) == 1:
            config.mac(name, name if ":" in name else macs[0])
    for section, key, value in keys:
        if section == "netdev" and key == "name":
            config.stack(value)
        for name in names:
            if section == "network" and key in ("bridge", "bond", "vlan", "macvlan"):
                config.stack(value, name)
            elif section in ("network", "address") and key == "address":
                config.address(name, value)
            elif section == "network" and key == "dhcp" and value.lower() in ("yes", "true", "ipv4", "ipv6"):
                config.address(name, "DHCP")


def read_keyfile(text: str, config: NetConfig) -> None:
    """A connection of NetworkManager."""
    values = {(section, key): value for section, key, value in _ini(text)}
    kind = values.get(("connection", "type"), "")
    hardware = values.get(("ethernet", "mac-address"), values.get(("802-3-ethernet", "mac-address"), ""))
    name = values.get(("connection", "interface-name"), hardware.lower())
    master = values.get(("connection", "controller"), values.get(("connection", "master"), ""))
    if not name:
        return
    config.mention(name)
    if kind not in ("ethernet", "802-3-ethernet", "wifi", "infiniband"):
        config.stack(name, *filter(None, [values.get(("vlan", "parent"), "")]))
    if master and not re.fullmatch(r"[0-9a-f-]{36}", master):
        config.stack(master, name)
    config.mac(name, hardware)
    for (section, key), value in values.items():
        if section in ("ipv4", "ipv6") and re.fullmatch(r"address\d+", key):
            config.address(name, value.partition(",")[0])
    if values.get(("ipv4", "method")) == "auto":
        config.address(name, "DHCP")


def read_ifcfg(text: str, config: NetConfig) -> None:
    """An ``ifcfg-*`` file of older RHEL and SUSE."""
    values = {}
    for line in _logical_lines(text):
        key, _, value = line.partition("=")
        values[key.strip()] = value.strip().strip("\"'")
    name = values.get("DEVICE", "")
    if not name:
        return
    config.mention(name)
    config.mac(name, values.get("HWADDR", ""))
    base, dot, tag = name.rpartition(".")
    if dot and tag.isdigit():
        config.stack(name, base)
    elif values.get("TYPE", "Ethernet").lower() in ("bridge", "bond", "ovsbridge", "team"):
        config.stack(name)
    for key in ("BRIDGE", "MASTER", "TEAM_MASTER"):
        if values.get(key):
            config.stack(values[key], name)
    for key, value in values.items():
        if re.fullmatch(r"IPADDR\d*", key):
            prefix = values.get(key.replace("IPADDR", "PREFIX"), "")
            config.address(name, f"{value}/{prefix}" if prefix else value)
    if values.get("BOOTPROTO", "").lower() == "dhcp":
        config.address(name, "DHCP")


def read_persistent_rules(text: str, config: NetConfig) -> None:
    """``70-persistent-net.rules``: names that udev bound to MACs."""
    for line in _logical_lines(text):
        mac = re.search(r'ATTR\{address\}=="([^"]+)"', line)
        name = re.search(r'NAME="([^"]+)"', line)
        if mac and name:
            config.mac(name[1], mac[1])


def _logical_lines(text: str) -> Iterator[str]:
    """Lines without comments and blanks; a trailing backslash continues."""
    for line in text.replace("\\\n", " ").splitlines():
        line = line.strip()
        if line and not line.startswith("#"):
            yield line


def _ini(text: str) -> Iterator[tuple[str, str, str]]:
    """(section, key, value), section and key in lower case."""
    section = ""
    for line in text.splitlines():
        line = line.strip()
        if line.startswith("[") and line.endswith("]"):
            section = line[1:-1].lower()
        elif line and line[0] not in "#;":
            key, equals, value = line.partition("=")
            if equals:
                yield section, key.strip().lower(), value.strip()


def add_facts(config: NetConfig, facts: Iterable[tuple[str, str, tuple[str, ...], bool]]) -> None:
    """What was known at capture (interface, MAC, addresses, DHCP) fills what the files do not say.

    A fact may be named by a netplan id or a MAC, which is no interface: it names a NIC only where no file does.
    """
    alone = not config.names
    for name, mac, addresses, dhcp in facts:
        if alone and ":" not in name:
            config.mention(name)
        if name not in config.names:
            continue
        if name not in config.lower:
            config.mac(name, mac)
        if name not in config.addresses:
            config.address(name, *addresses, *(["DHCP"] if dhcp else []))
