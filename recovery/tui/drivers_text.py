"""What the console says of network cards and storage controllers that do not work here. Pure: values in, text out."""

from __future__ import annotations

from recovery.machine.model import Driverless, Machine

#: Cells of a line on the narrowest screen.
_LINE = 78
#: Where each kind is told about in full.
_TOLD_ON = {"network": "Network", "storage": "Target disks"}


def of_purpose(machine: Machine, purpose: str) -> list[Driverless]:
    """The ``network`` cards or ``storage`` controllers among them."""
    return [device for device in machine.driverless if device.purpose == purpose]


def not_working_line(machine: Machine) -> str:
    """For the first screen: ``Not working: <name>; see Target disks``; empty when all have what they need."""
    devices = machine.driverless
    if not devices:
        return ""
    screens = " and ".join(dict.fromkeys(_TOLD_ON[device.purpose] for device in devices))
    more = f" and {len(devices) - 1} more" if len(devices) > 1 else ""
    room = _LINE - len(f"Not working: {more}; see {screens}.")
    name = devices[0].name
    return f"Not working: {name if len(name) <= room else name[: room - 1] + '…'}{more}; see {screens}."


def cards_text(machine: Machine) -> str:
    """Each network card that does not work: what it misses, and what helps."""
    return "\n".join(
        f"Not working: {device.name} at {device.slot}. {device.reason} {what_helps(device)}"
        for device in of_purpose(machine, "network")
    )


def controllers_text(machine: Machine) -> str:
    """The storage controllers whose disks can't be seen: the first in full, as there is little room."""
    devices = of_purpose(machine, "storage")
    if not devices:
        return ""
    lines = [f"Not seen: disks behind {devices[0].name}. {devices[0].reason}"]
    if devices[1:]:
        lines.append(f"Nor those behind {', '.join(device.name for device in devices[1:])}.")
    return "\n".join(lines)


def what_helps(device: Driverless) -> str:
    """What the operator can do about it."""
    if device.firmware:
        return "A medium built with '--firmware all', or with the firmware's package in its profile, may have it."
    if device.modules:
        return "If a driver loaded by hand (F2) helps, name it under 'drivers' in the profile of the next medium."
    return "Use another card that Debian's kernel has a driver for."
