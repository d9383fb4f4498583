"""What a guest's configuration file of Proxmox says, for those who capture it and plan with it. Pure."""

from __future__ import annotations

import re


def current(text: str) -> dict[str, str]:
    """The settings in force: what stands before the first section, which is a snapshot or a pending change."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        if line.startswith("["):
            break
        key, colon, value = line.partition(":")
        if colon and not key.startswith("#"):
            found.setdefault(key.strip(), value.strip())
    return found


def options(value: str, first: str = "") -> dict[str, str]:
    """``local:100/a.raw,size=8G`` -> {first: ``local:100/a.raw``, ``size``: ``8G``}."""
    found: dict[str, str] = {}
    for word in value.split(","):
        key, equals, rest = word.partition("=")
        if equals:
            found.setdefault(key.strip(), rest.strip())
        elif word.strip() and first:
            found.setdefault(first, word.strip())
    return found


def devices_of(settings: dict[str, str]) -> list[str]:
    """What of the host a VM is given, in words: ``PCI 0000:01:00``, ``USB 046d:c52b``."""
    found = []
    for key, value in settings.items():
        words = options(value, "host")
        if re.fullmatch(r"hostpci\d+", key):
            found.append(f"PCI {words.get('host') or words.get('mapping', '?')}")
        elif re.fullmatch(r"usb\d+", key) and words.get("host", "spice") != "spice":
            found.append(f"USB {words['host']}")
    return found
