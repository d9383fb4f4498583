"""What a site adds to its medium: packages, drivers, keyboard, SSH keys, network, answers. Parsers and renderers.

Pure. Parsers raise UsageError that says what is wrong with the value; who calls them knows where it stands.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from recovery.errors import UsageError

#: Key types that Debian 13's sshd takes.
_KEY_TYPES = ("ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-rsa",
              "sk-ssh-ed25519@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com")  # fmt: skip
_MAC = re.compile(r"([0-9a-fA-F]{2}[:-]){5}[0-9a-fA-F]{2}")


@dataclass(frozen=True)
class Card:
    """How one network card, or a VLAN on it, is set up. ``interface`` is a name or a MAC address (lower case, colons);
    without ``addresses`` (CIDR) it asks by DHCP."""

    interface: str
    addresses: tuple[str, ...] = ()
    gateways: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
    vlan: int | None = None


def parse_package(text: str) -> str:
    """A Debian package's name (Debian Policy 5.6.1)."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9+.-]+", text):
        raise UsageError(f"'{text}' is not the name of a Debian package.", hint="Names look like ipmitool.")
    return text


def parse_driver(text: str) -> str:
    """The name of a kernel module, with underscores as the kernel writes it."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", text):
        raise UsageError(f"'{text}' is not the name of a driver.", hint="'lspci -k' shows names such as mpt3sas.")
    return text.replace("-", "_")


def parse_keymap(text: str) -> str:
    """The name of a keyboard layout of the Linux console; whether Debian has it is known when the base is there."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", text):
        raise UsageError(f"'{text}' is not a keyboard layout.", hint="Names look like de-latin1, fr, us.")
    return text


def parse_ssh_key(text: str) -> str:
    """One line of an authorized_keys file without options: type, key, comment."""
    hint = "Give the line of the .pub file, such as: ssh-ed25519 AAAA... operator@example"
    if "PRIVATE" in text:
        raise UsageError("This is a private key; a medium must not carry one.", hint=hint)
    words = text.split()
    if len(words) < 2 or words[0] not in _KEY_TYPES or "\n" in text.strip() or not text.isprintable():
        raise UsageError(f"'{text[:40]}' is not an SSH public key.", hint=hint)
    try:
        blob = base64.b64decode(words[1], validate=True)
    except (binascii.Error, ValueError):
        blob = b""
    name = words[0].encode()
    if blob[: 4 + len(name)] != len(name).to_bytes(4, "big") + name or len(blob) < 40:
        raise UsageError(f"The SSH public key '{text[:40]}' is cut off or damaged.", hint=hint)
    return " ".join(words)


def parse_interface(text: str) -> str:
    """A card's name, or its MAC address."""
    if _MAC.fullmatch(text):
        return text.lower().replace("-", ":")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}", text):
        raise UsageError(
            f"'{text}' is neither a card's name nor a MAC address.", hint="Write eno1 or 52:54:00:12:34:56."
        )
    return text


def parse_address(text: str) -> str:
    """An address with its prefix length."""
    hint = "Write it like 192.0.2.10/24 or 2001:db8::10/64."
    if "/" not in text:
        raise UsageError(f"The address '{text}' has no prefix length.", hint=hint)
    try:
        interface = ipaddress.ip_interface(text)
    except ValueError as error:
        raise UsageError(f"'{text}' is not an address.", hint=hint) from error
    if interface.ip == interface.network.network_address and interface.network.prefixlen < interface.max_prefixlen - 1:
        raise UsageError(f"'{text}' is a network's address, not a machine's.", hint=hint)
    return str(interface)


def parse_host_address(text: str) -> str:
    """An address without a prefix length."""
    try:
        return str(ipaddress.ip_address(text))
    except ValueError as error:
        raise UsageError(f"'{text}' is not an address.", hint="Write it like 192.0.2.1 or 2001:db8::1.") from error


def parse_vlan(number: int) -> int:
    """A VLAN id."""
    if not 1 <= number <= 4094:
        raise UsageError(f"{number} is not a VLAN id.", hint="VLAN ids are 1 to 4094.")
    return number


def parse_parameter(text: str) -> str:
    """A kernel parameter for every entry of the boot menu (``nomodeset``, ``pci=noaer``)."""
    hint = 'Write one parameter as the kernel has it, such as "nomodeset" or "pci=noaer".'
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.,:=/@%+*-]*", text):
        raise UsageError(f"'{text}' is not a kernel parameter.", hint=hint)
    if text.startswith("rekindle."):
        raise UsageError(
            f"'{text}' is an answer to Rekindle, which the menu gives its unattended entry only.",
            hint="Put it into the [unattended] table of the profile.",
        )
    return text


def parse_word(value: object) -> object:
    """A value that can stand in a word of the kernel's command line (and in GRUB's quotes)."""
    items = value if isinstance(value, list) else [value]
    for item in items:
        text = str(item)
        if not text.isprintable() or any(c in text for c in "'\"\\"):
            raise UsageError(f"'{text}' has quotes or characters that a boot menu cannot hold.")
        if isinstance(value, list) and "," in text:
            raise UsageError(f"'{text}' has a comma, which separates the items of a list.")
    return value


def kernel_words(answers: Mapping[str, Any], prefix: str = "rekindle.") -> Iterator[str]:
    """Answers as words of the kernel's command line: ``rekindle.disks.disk1=serial:X``."""
    for key, value in answers.items():
        match value:
            case dict():
                yield from kernel_words(value, f"{prefix}{key}.")
            case bool():
                yield f"{prefix}{key}={'yes' if value else 'no'}"
            case list():
                yield f"{prefix}{key}={','.join(map(str, value))}"
            case _:
                yield f"{prefix}{key}={value}"


def network_files(cards: tuple[Card, ...]) -> dict[str, str]:
    """File name -> content for systemd-networkd: after the console's choice (10-), before the medium's own (80-)."""
    files: dict[str, str] = {}
    by_card: dict[str, list[Card]] = {}
    for card in cards:
        by_card.setdefault(card.interface, []).append(card)
    for interface, setups in by_card.items():
        match = "MACAddress" if ":" in interface else "Name"
        stem = f"50-site-{interface.replace(':', '')}"
        plain = next((card for card in setups if card.vlan is None), None)
        vlans = [card for card in setups if card.vlan is not None]
        lines = [f"[Match]\n{match}={interface}\nKind=!*\n\n[Link]\nRequiredForOnline=no\n\n[Network]"]
        lines += [f"VLAN=vlan{card.vlan}" for card in vlans]
        lines += _addressing(plain) if plain else ["LinkLocalAddressing=no", "IPv6AcceptRA=no"]
        files[f"{stem}.network"] = "\n".join(lines) + "\n"
        for card in vlans:
            files[f"{stem}-vlan{card.vlan}.netdev"] = (
                f"[NetDev]\nName=vlan{card.vlan}\nKind=vlan\n\n[VLAN]\nId={card.vlan}\n"
            )
            files[f"{stem}-vlan{card.vlan}.network"] = (
                f"[Match]\nName=vlan{card.vlan}\n\n[Network]\n" + "\n".join(_addressing(card)) + "\n"
            )
    return files


def _addressing(card: Card) -> list[str]:
    lines = [f"Address={address}" for address in card.addresses] or ["DHCP=yes"]
    lines += [f"Gateway={gateway}" for gateway in card.gateways]
    return lines + [f"DNS={server}" for server in card.dns]
