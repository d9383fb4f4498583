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
    """What of the host a guest is given, in words, by key: ``hostpci0: PCI 0000:01:00``, ``scsi1: /dev/sdb``."""
    found = []
    for key, value in settings.items():
        words = options(value, "host")
        first = words.get("host") or words.get("mapping", "")
        if re.fullmatch(r"hostpci\d+", key):
            found.append(f"{key}: PCI {first or '?'}")
        elif re.fullmatch(r"usb\d+", key) and first not in ("", "spice"):
            found.append(f"{key}: USB {first}")
        elif re.fullmatch(r"(?:scsi|virtio|sata|ide|mp|dev)\d+|rootfs", key) and first.startswith("/dev/"):
            found.append(f"{key}: {first}")
    return found
