"""Pure: the ways in which Debian hosts configure their network, as files, and what must be up in the end.

QEMU's own network is 10.0.2.0/24 with a gateway that answers pings at 10.0.2.2. A VLAN leads nowhere there: that it is
up with its address is all that can be seen.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.e2e.matrix.model import Network

ADDRESS = "10.0.2.40/24"
GATEWAY = "10.0.2.2"
VLAN_ADDRESS = "10.55.0.40/24"
#: What Linux calls the old machine's card: q35, PCI bus 0, slot 3.
NIC = "enp0s3"
MAC = "52:54:00:12:34:56"
#: In place of an interface: whichever has it. A configuration by MAC leaves the new card the name that it has here.
ANY = "a card"

_NETWORKING = "networking.service"
_NETWORKD = "systemd-networkd.service"
_NM = "NetworkManager.service"
_SERVICES = (_NETWORKING, _NETWORKD, _NM)


@dataclass(frozen=True)
class NetworkSetup:
    """``files``: path below the root -> content (mode 0600 where it has to be). ``service`` brings them up.

    ``addresses``: interface, or ANY -> address that must be up; a host must answer at the first one's gateway.
    """

    files: dict[str, str]
    service: str
    addresses: dict[str, str]

    @property
    def idle(self) -> tuple[str, ...]:
        """The services that must not run beside it."""
        return tuple(name for name in _SERVICES if name != self.service)


def setup(network: Network) -> NetworkSetup:
    """The files of one way."""
    match network:
        case "ifupdown":
            text = f"auto {NIC}\niface {NIC} inet static\n    address {ADDRESS}\n    gateway {GATEWAY}\n"
            return _ifupdown(text, {NIC: ADDRESS})
        case "ifupdown-bridge":
            return _ifupdown(f"iface {NIC} inet manual\n\n" + _bridge(NIC), {"vmbr0": ADDRESS})
        case "ifupdown-bond":
            bond = f"auto bond0\niface bond0 inet manual\n    bond-slaves {NIC}\n    bond-mode active-backup\n"
            text = f"iface {NIC} inet manual\n\n{bond}    bond-miimon 100\n\n" + _bridge("bond0")
            return _ifupdown(text, {"vmbr0": ADDRESS})
        case "ifupdown-vlan":
            text = f"auto {NIC}\niface {NIC} inet static\n    address {ADDRESS}\n    gateway {GATEWAY}\n\n"
            text += f"auto {NIC}.55\niface {NIC}.55 inet static\n    address {VLAN_ADDRESS}\n"
            return _ifupdown(text, {NIC: ADDRESS, f"{NIC}.55": VLAN_ADDRESS})
        case "networkd":
            return _networkd({"10-lan.network": f"[Match]\nName={NIC}\n\n{_ADDRESSED}"}, {NIC: ADDRESS})
        case "networkd-mac":
            return _networkd({"10-lan.network": f"[Match]\nMACAddress={MAC}\n\n{_ADDRESSED}"}, {ANY: ADDRESS})
        case "networkd-bridge":
            files = {
                "10-br0.netdev": "[NetDev]\nName=br0\nKind=bridge\n",
                "20-port.network": f"[Match]\nName={NIC}\n\n[Network]\nBridge=br0\nVLAN=vlan55\n",
                "10-vlan55.netdev": "[NetDev]\nName=vlan55\nKind=vlan\n\n[VLAN]\nId=55\n",
                "30-br0.network": f"[Match]\nName=br0\n\n{_ADDRESSED}",
                "30-vlan55.network": f"[Match]\nName=vlan55\n\n[Network]\nAddress={VLAN_ADDRESS}\n",
            }
            return _networkd(files, {"br0": ADDRESS, "vlan55": VLAN_ADDRESS})
        case "netplan-bridge":
            return NetworkSetup({"etc/netplan/50-lan.yaml": _NETPLAN}, _NETWORKD, {"br0": ADDRESS})
        case "nm-keyfile":
            text = f"[connection]\nid=lan\ntype=ethernet\ninterface-name={NIC}\n\n{_NM_ADDRESSED}"
            return _network_manager({"lan": text}, {NIC: ADDRESS})
        case "nm-bond":
            bond = "[connection]\nid=bond0\ntype=bond\ninterface-name=bond0\n\n[bond]\nmode=active-backup\n"
            bond += f"miimon=100\n\n{_NM_ADDRESSED}"
            port = f"[connection]\nid=port\ntype=ethernet\ninterface-name={NIC}\nmaster=bond0\nslave-type=bond\n"
            return _network_manager({"bond0": bond, "port": port}, {"bond0": ADDRESS})


_ADDRESSED = f"[Network]\nAddress={ADDRESS}\nGateway={GATEWAY}\n"
_NM_ADDRESSED = f"[ipv4]\nmethod=manual\naddress1={ADDRESS},{GATEWAY}\n\n[ipv6]\nmethod=disabled\n"
_NETPLAN = f"""\
network:
  version: 2
  renderer: networkd
  ethernets:
    lan:
      match: {{macaddress: "{MAC}"}}
      set-name: {NIC}
      dhcp4: false
  bridges:
    br0:
      interfaces: [lan]
      addresses: [{ADDRESS}]
      routes: [{{to: default, via: {GATEWAY}}}]
      parameters: {{stp: false, forward-delay: 0}}
"""


def _bridge(port: str) -> str:
    return (
        f"auto vmbr0\niface vmbr0 inet static\n    address {ADDRESS}\n    gateway {GATEWAY}\n"
        f"    bridge-ports {port}\n    bridge-stp off\n    bridge-fd 0\n"
    )


def _ifupdown(text: str, addresses: dict[str, str]) -> NetworkSetup:
    head = "auto lo\niface lo inet loopback\n\n"
    return NetworkSetup({"etc/network/interfaces": head + text}, _NETWORKING, addresses)


def _networkd(files: dict[str, str], addresses: dict[str, str]) -> NetworkSetup:
    return NetworkSetup({f"etc/systemd/network/{n}": text for n, text in files.items()}, _NETWORKD, addresses)


def _network_manager(files: dict[str, str], addresses: dict[str, str]) -> NetworkSetup:
    folder = "etc/NetworkManager/system-connections"
    return NetworkSetup({f"{folder}/{n}.nmconnection": text for n, text in files.items()}, _NM, addresses)


#: Connections with secrets must not be read by others; NetworkManager ignores files that can be.
PRIVATE = ("etc/NetworkManager/system-connections", "etc/netplan")
