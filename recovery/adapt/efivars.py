"""Pure: boot entries of the firmware as efibootmgr prints them; which are stale, which is ours."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True)
class BootEntry:
    """A boot entry. ``partition`` is the PARTUUID (a GPT partition's GUID in lower case, an MBR's ``SIGNATURE-NN``),
    ``loader`` its path with backslashes; both empty for entries that are no file on a disk (network, firmware's
    own)."""

    number: str
    label: str
    active: bool
    partition: str = ""
    loader: str = ""


@dataclass(frozen=True)
class BootEntries:
    """All of them, and the order in which the firmware tries them."""

    entries: tuple[BootEntry, ...]
    order: tuple[str, ...]

    def stale(self, present: Collection[str], loader: str) -> list[BootEntry]:
        """Entries for partitions that do not exist in this machine, and that start what ``loader`` starts (the same
        vendor's folder). Another system's are not ours to delete: its disk may only be unplugged."""
        folder = loader.lower().rpartition("\\")[0]
        gone = [e for e in self.entries if e.partition and e.partition not in present]
        return [e for e in gone if e.loader.lower().rpartition("\\")[0] == folder]

    def find(self, partition: str, loader: str) -> BootEntry | None:
        """The entry that starts this loader on this partition."""
        wanted = loader.lower()
        return next((e for e in self.entries if e.partition == partition.lower() and e.loader.lower() == wanted), None)


def parse(text: str) -> BootEntries:
    """``efibootmgr -v``, of version 17 (``File(\\EFI\\...)``) and 18 (``/\\EFI\\...``)."""
    entries = []
    order: tuple[str, ...] = ()
    for line in text.splitlines():
        if line.startswith("BootOrder:"):
            order = tuple(word.strip().upper() for word in line.partition(":")[2].split(",") if word.strip())
        elif match := re.match(r"Boot([0-9A-Fa-f]{4})(\*?) +(.*)", line):
            label, _, device = match[3].partition("\t")
            disk = re.search(r"HD\(\d+,GPT,([0-9A-Fa-f-]{36})", device)
            old = re.search(r"HD\((\d+),MBR,0x([0-9A-Fa-f]+)", device)
            file = re.search(r"File\(([^)]*)\)|/(\\[^\t]*?)(?:\.\.|$)", device)
            loader = (file[1] or file[2] or "").strip() if file else ""
            entries.append(
                BootEntry(
                    number=match[1].upper(),
                    label=label.strip(),
                    active=bool(match[2]),
                    partition=disk[1].lower() if disk else f"{int(old[2], 16):08x}-{int(old[1]):02x}" if old else "",
                    loader=_clean(loader),
                )
            )
    return BootEntries(tuple(entries), order)


def order_with_first(order: tuple[str, ...], number: str) -> tuple[str, ...]:
    """The boot order with this entry first."""
    return (number, *(n for n in order if n != number))


def _clean(loader: str) -> str:
    """The path up to its ``.efi``: optional data that efibootmgr appends is no part of it."""
    match = re.match(r"(.*?\.efi)", loader.replace("/", "\\"), re.IGNORECASE)
    return match[1] if match else loader


def choose_loader(files: Collection[str], os_id: str = "") -> str | None:
    """The vendor's loader among the ``.efi`` files of an ESP (``EFI/debian/shimx64.efi``): signed shim before GRUB,
    the host's own vendor first, the fallback folder never. None when there is none."""
    ranks = {"shimx64.efi": 0, "shim.efi": 1, "grubx64.efi": 2, "systemd-bootx64.efi": 3}
    found = []
    for file in files:
        parts = file.split("/")
        name = parts[-1].lower()
        if len(parts) == 3 and parts[0].lower() == "efi" and parts[1].lower() != "boot" and name in ranks:
            found.append((parts[1].lower() != os_id.lower(), ranks[name], file))
    return min(found)[2] if found else None
