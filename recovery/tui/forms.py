"""From what was typed to what the engine takes. Pure; raises UsageError that says which field and why."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping

from recovery.engine.api import Access, NetworkConfig
from recovery.errors import UsageError


def network_config(interface: str, dhcp: bool, fields: Mapping[str, str]) -> NetworkConfig:
    """The configuration of ``interface`` from the fields ``address``, ``gateway``, ``dns`` and ``vlan``."""
    if not interface:
        raise UsageError(
            "No network interface was found.", hint="Check the cable, the card and its driver (F2: dmesg)."
        )
    vlan_text = fields.get("vlan", "").strip()
    vlan: int | None = None
    if vlan_text:
        if not vlan_text.isdecimal() or not 1 <= int(vlan_text) <= 4094:
            raise UsageError(f"'{vlan_text}' is not a VLAN id.", hint="Type a number from 1 to 4094, or nothing.")
        vlan = int(vlan_text)
    if dhcp:
        return NetworkConfig(interface=interface, dhcp=True, vlan=vlan)
    address = fields.get("address", "").strip()
    gateway = fields.get("gateway", "").strip()
    dns = tuple(re.split(r"[\s,;]+", fields.get("dns", "").strip())) if fields.get("dns", "").strip() else ()
    try:
        if "/" not in address:
            raise ValueError
        ipaddress.ip_interface(address)
    except ValueError:
        raise UsageError(
            f"'{address}' is not an address with its prefix length.", hint="Type it like 192.168.1.20/24."
        ) from None
    for name, text in (("gateway", gateway), *(("DNS server", server) for server in dns)):
        if text:
            try:
                ipaddress.ip_address(text)
            except ValueError:
                raise UsageError(
                    f"'{text}' is not the address of a {name}.", hint="Type it like 192.168.1.1."
                ) from None
    return NetworkConfig(interface=interface, dhcp=False, address=address, gateway=gateway, dns=dns, vlan=vlan)


def server_url(text: str) -> str:
    """The server's address with its scheme and without a slash at the end. Raises UsageError when empty."""
    text = text.strip().rstrip("/")
    if not text:
        raise UsageError("The server's address is missing.", hint="Type it like backup.example.org:8460.")
    if "://" not in text:
        text = f"https://{text}"
    if not text.startswith("https://"):
        raise UsageError(f"'{text}' is not an https address.", hint="The server speaks TLS only: https://NAME:PORT.")
    return text


def server_access(fields: Mapping[str, str], fingerprint: str) -> Access:
    """Access to a server; ``fingerprint`` is what the operator confirmed, or empty to rely on the medium's CA."""
    url = server_url(fields.get("server", ""))
    code = fields.get("code", "").strip()
    user, password = fields.get("user", "").strip(), fields.get("password", "")
    if not code and not (user and password):
        raise UsageError(
            "Nobody is signed in yet.", hint="Type user and password, or a one-time code from the administrator."
        )
    secret = _secret(fields)
    if code:
        return Access(url=url, fingerprint=fingerprint, code=code, secret=secret)
    return Access(url=url, fingerprint=fingerprint, user=user, password=password, secret=secret)


def local_access(path: str, fields: Mapping[str, str]) -> Access:
    """Access to a repository on a disk of this machine."""
    return Access(path=path, secret=_secret(fields))


def _secret(fields: Mapping[str, str]) -> str:
    secret = fields.get("secret", "").strip()
    if not secret:
        raise UsageError(
            "The repository's passphrase is missing.",
            hint="Type the passphrase, or the recovery key that was printed when the repository was made.",
        )
    return secret
