"""Set up a network interface of the medium through systemd-networkd, and wait until it has its address."""

from __future__ import annotations

import ipaddress
import time
from pathlib import Path
from typing import Any

import msgspec

from recovery.commands import run
from recovery.engine.api import NetworkConfig
from recovery.errors import CommandError, NotFoundError, UsageError
from recovery.machine.probe_disks import read_text

FOLDER = Path("/run/systemd/network")
_DHCP_PATIENCE = 45.0
_STATIC_PATIENCE = 15.0


BOND = "bond0"
#: networkd's words for the ways of a bond that need no knowledge of the network, and the one that switches do (LACP).
BOND_MODES = ("active-backup", "802.3ad", "balance-rr", "balance-xor", "balance-alb", "balance-tlb", "broadcast")
_QUIET = "LinkLocalAddressing=no\nIPv6AcceptRA=no\n"


def network_files(config: NetworkConfig) -> dict[str, str]:
    """File name -> content for networkd. Raises UsageError for addresses that are none. Pure.

    Interface, bond and VLAN are laid on each other in this order; the topmost has the addresses.
    """
    check_config(config)
    stem = f"10-rekindle-{config.interface}"
    files: dict[str, str] = {}
    top = f"{stem}.network"
    if config.bond:
        for member in (config.interface, *config.bond):
            files[f"10-rekindle-{member}.network"] = f"[Match]\nName={member}\n\n[Network]\nBond={BOND}\n{_QUIET}"
        lacp = "LACPTransmitRate=fast\n" if config.bond_mode == "802.3ad" else ""
        files[f"{stem}-bond.netdev"] = (
            f"[NetDev]\nName={BOND}\nKind=bond\n\n[Bond]\nMode={config.bond_mode}\nMIIMonitorSec=100ms\n{lacp}"
        )
        top = f"{stem}-bond.network"
    base = base_name(config)
    if config.vlan is None:
        files[top] = f"[Match]\nName={base}\n\n{_addressing(config)}"
        return files
    vlan = vlan_name(config)
    files[top] = f"[Match]\nName={base}\n\n[Network]\nVLAN={vlan}\n{_QUIET}"
    files[f"{stem}-vlan.netdev"] = f"[NetDev]\nName={vlan}\nKind=vlan\n\n[VLAN]\nId={config.vlan}\n"
    files[f"{stem}-vlan.network"] = f"[Match]\nName={vlan}\n\n{_addressing(config)}"
    return files


def base_name(config: NetworkConfig) -> str:
    """The interface below a VLAN: the card, or its bond."""
    return BOND if config.bond else config.interface


def vlan_name(config: NetworkConfig) -> str:
    """The VLAN's interface: the kernel allows 15 characters, so a long name gives way to the id."""
    name = f"{base_name(config)}.{config.vlan}"
    return name if len(name) <= 15 else f"vlan{config.vlan}"


def _addressing(config: NetworkConfig) -> str:
    if config.dhcp:
        return "[Network]\nDHCP=yes\n" + "".join(f"DNS={server}\n" for server in config.dns)
    lines = ["[Network]", f"Address={config.address}"]
    lines += [f"Gateway={config.gateway}"] if config.gateway else []
    lines += [f"DNS={server}" for server in config.dns]
    return "\n".join(lines) + "\n"


def check_config(config: NetworkConfig) -> None:
    """Raises UsageError naming the field that is wrong."""
    for name in (config.interface, *config.bond):
        if not name or "/" in name or any(c.isspace() for c in name):
            raise UsageError(f"'{name}' cannot be an interface's name.", hint="Choose one from the list.")
    if len({config.interface, *config.bond}) != 1 + len(config.bond):
        raise UsageError("An interface is named twice in the bond.", hint="Name each of its members once.")
    if config.bond_mode not in BOND_MODES:
        raise UsageError(f"'{config.bond_mode}' is not a mode of a bond.", hint=f"Modes: {', '.join(BOND_MODES)}.")
    if config.vlan is not None and not 1 <= config.vlan <= 4094:
        raise UsageError(f"{config.vlan} is not a VLAN id.", hint="VLAN ids are 1 to 4094.")
    for server in config.dns:
        _parse(server, "The name server")
    if config.dhcp:
        return
    if "/" not in config.address:
        raise UsageError(f"The address '{config.address}' has no prefix length.", hint="Write it like 192.0.2.10/24.")
    try:
        address = ipaddress.ip_interface(config.address)
    except ValueError as error:
        raise UsageError(f"'{config.address}' is not an address.", hint="Write it like 192.0.2.10/24.") from error
    if config.gateway:
        gateway = _parse(config.gateway, "The gateway")
        if gateway.version == address.version and gateway not in address.network and not gateway.is_link_local:
            raise UsageError(
                f"The gateway {gateway} is not in the network {address.network} of the address.",
                hint="Check the address, its prefix length and the gateway.",
            )


def _parse(text: str, what: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        return ipaddress.ip_address(text)
    except ValueError as error:
        raise UsageError(f"{what} '{text}' is not an address.", hint="Write it like 192.0.2.1.") from error


def configure(config: NetworkConfig, *, folder: Path = FOLDER, sysfs: Path = Path("/sys")) -> list[str]:
    """Apply and wait; returns the addresses. Raises UsageError, NotFoundError, CommandError."""
    files = network_files(config)
    members = (config.interface, *config.bond)
    for interface in members:
        if not (sysfs / "class/net" / interface).exists():
            raise NotFoundError(
                f"There is no interface '{interface}'.", hint="See 'ip link'; was a USB adapter pulled?"
            )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        unbonded = _forget(members, folder)
        for name, text in files.items():
            # networkd runs as its own user and must be able to read it; there is no secret in it.
            (folder / name).write_text(text)
            (folder / name).chmod(0o644)
    except OSError as error:
        raise CommandError(f"'{folder}' cannot be written: {error.strerror}.", hint="Run as root.") from error
    if unbonded:
        run(["ip", "link", "delete", BOND], check=False)
    if not config.bond:  # members of a bond are taken in while they are down
        run(["ip", "link", "set", config.interface, "up"], check=False)
    run(["networkctl", "reload"], timeout=30)
    run(["networkctl", "reconfigure", *members, *unbonded], check=False, timeout=30)
    return _wait(config, base_name(config) if config.vlan is None else vlan_name(config), sysfs)


def _forget(members: tuple[str, ...], folder: Path) -> list[str]:
    """Remove what was set before for these interfaces. A bond that loses one of them ends, as there is only one:
    the names of all its members are returned. Raises OSError."""
    bonded = {file: file.read_text() for file in folder.glob("10-rekindle-*.network")}
    unbonded = [
        text.partition("Name=")[2].partition("\n")[0] for text in bonded.values() if f"\nBond={BOND}\n" in text
    ]
    ends = bool(set(unbonded) & set(members))
    stems = {f"10-rekindle-{name}" for name in (*members, *(unbonded if ends else ()))}
    for file in folder.glob("10-rekindle-*"):
        stem = file.name.rpartition(".")[0]
        if stem in stems or stem.removesuffix("-vlan").removesuffix("-bond") in stems:
            file.unlink()
    return unbonded if ends else []


def _wait(config: NetworkConfig, name: str, sysfs: Path) -> list[str]:
    deadline = time.monotonic() + (_DHCP_PATIENCE if config.dhcp else _STATIC_PATIENCE)
    wanted = "" if config.dhcp else str(ipaddress.ip_interface(config.address).ip)
    while True:
        found = addresses(name)
        if found and (not wanted or any(a.split("/")[0] == wanted for a in found)):
            return found
        if time.monotonic() >= deadline:
            break
        time.sleep(0.5)
    members = (config.interface, *config.bond)
    if all(read_text(sysfs / "class/net" / member / "carrier") != "1" for member in members):
        raise CommandError(
            f"{' and '.join(members)} {'has' if len(members) == 1 else 'have'} no link.",
            hint="Is the cable plugged in, and the port of the switch enabled?",
        )
    if config.dhcp:
        raise CommandError(
            f"No DHCP server answered on {name} within {_DHCP_PATIENCE:.0f} seconds.",
            hint="Check cable and VLAN, or set a static address.",
        )
    raise CommandError(
        f"{name} did not take the address {config.address}.",
        hint="Perhaps another machine has it; see 'networkctl status' and 'journalctl -u systemd-networkd'.",
    )


def addresses(name: str) -> list[str]:
    """Usable global addresses of an interface in CIDR form."""
    done = run(["ip", "-j", "addr", "show", "dev", name], check=False)
    try:
        links: list[dict[str, Any]] = msgspec.json.decode(done.stdout) if done and done.stdout.strip() else []
    except msgspec.DecodeError:
        links = []
    return [
        f"{info['local']}/{info['prefixlen']}"
        for link in links
        for info in link.get("addr_info", ())
        if info.get("scope") == "global" and not info.get("tentative") and "local" in info
    ]
