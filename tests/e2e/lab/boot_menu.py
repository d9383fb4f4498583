"""The boot menu of the recovery medium, as it stands on the screen of a BIOS."""

from __future__ import annotations

import re

from tests.e2e.lab.qemu import Machine


def choose(machine: Machine, entry: str, timeout: float) -> None:
    """Start an entry of the boot menu, known by some of its words."""
    menu = machine.wait_for_screen("Rekindle from memory", timeout)
    entries = [line for line in menu.splitlines() if re.search(r"Rekindle|restore|Memory|disk", line)]
    first, wanted = (
        next(n for n, line in enumerate(entries) if words in line) for words in ("Rekindle recovery console", entry)
    )
    machine.press(*["down"] * (wanted - first), "ret", pause=0.5)
