"""What a booted system says of itself on its serial console, and whether that is as good as the source was."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable

import msgspec

from tests.e2e.lab.qemu import LabError, Machine
from tests.e2e.matrix import network
from tests.e2e.matrix.model import Source
from tests.e2e.matrix.rootfs import PASSWORD


class Seen(msgspec.Struct, frozen=True):
    """One look at a running system. ``mounts``: point -> device; ``addresses``: interface -> [state, address ...].

    ``seconds``: from power-on to the login prompt, and what the units took until they had settled.
    """

    state: str = ""
    failed: tuple[str, ...] = ()
    mounts: dict[str, str] = {}
    swaps: tuple[str, ...] = ()
    addresses: dict[str, list[str]] = {}
    links: dict[str, str] = {}
    gateway: bool = False
    kernel: str = ""
    machine_id: str = ""
    firmware: str = ""
    root_size: int = 0
    nvram: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    seconds: float = 0.0


class Check(msgspec.Struct, frozen=True):
    """Something that had to be true of a restored system. ``detail`` is what was seen instead."""

    what: str
    held: bool
    detail: str = ""


def parse(text: str) -> Seen:
    """The lines between ``lab-begin`` and ``lab-end``. Pure."""
    body = re.split(r"lab-begin\r?\n", text)[-1].split("lab-end")[0]
    rows = [line.strip().partition(" ") for line in body.splitlines()]

    def all_of(key: str) -> list[str]:
        return [rest for first, _, rest in rows if first == key]

    def one(key: str) -> str:
        return next(iter(all_of(key)), "")

    addresses = (line.split() for line in all_of("address"))
    return Seen(
        state=one("state"),
        failed=tuple(sorted(all_of("failed"))),
        mounts={words[0]: words[1] for line in all_of("mount") if len(words := line.split()) > 1},
        swaps=tuple(line.split()[0] for line in all_of("swap")),
        addresses={words[0]: words[1:] for words in addresses if words},
        links={words[0]: words[1] for line in all_of("link") if len(words := line.split()) > 1},
        gateway="answers" in all_of("gateway"),
        kernel=one("kernel"),
        machine_id=one("machine"),
        firmware=one("firmware"),
        root_size=int(one("size") or 0),
        nvram=tuple(all_of("nvram")),
        errors=tuple(all_of("error")),
    )


def look(machine: Machine, host: str, since: int, limit: float) -> tuple[Seen, int]:
    """Wait for the login prompt after character ``since`` of the serial line, log in, and ask. ``limit`` in seconds.

    Returns what was seen and the place in the serial text. Raises LabError.
    """
    start = time.monotonic()
    place = machine.wait_for_serial(rf"{host} login: ", limit, since=since)
    seconds = time.monotonic() - start
    machine.serial_send("root\n")
    place = machine.wait_for_serial("Password: ", limit / 3, since=place)
    machine.serial_send(f"{PASSWORD}\n")
    place = machine.wait_for_serial(rf"root@{host}:.*# ", limit / 3, since=place)
    machine.serial_send("lab-check\n")
    end = machine.wait_for_serial("lab-end", limit, since=place)
    seen = parse(machine.serial_text()[place:end])
    return msgspec.structs.replace(seen, seconds=round(seconds, 1)), end


def judge(source: Source, before: Seen, after: Seen) -> list[Check]:
    """Whether a restored system is as good as the source was on its own machine. Pure."""
    found = [Check("login on the serial console", bool(after.state), after.state)]
    missing = [point for point in source.points if point not in after.mounts]
    found.append(Check("every filesystem of fstab is mounted", not missing, ", ".join(missing)))
    found.append(Check("swap is on", len(after.swaps) >= source.swaps, f"{len(after.swaps)} of {source.swaps}"))
    for interface, address in network.setup(source.network).addresses.items():
        anywhere = (rest for rest in after.addresses.values() if address in rest)
        here = next(anywhere, []) if interface == network.ANY else after.addresses.get(interface, [])
        held = address in here[1:] and here[:1] != ["DOWN"]
        found.append(Check(f"{interface} is up with {address}", held, _words(after.addresses)))
    found.append(Check("the gateway answers", after.gateway, "no ping came back"))
    failed = [unit for unit in after.failed if unit not in before.failed]
    found.append(Check("no unit failed that had not failed before", not failed, ", ".join(failed)))
    same = after.machine_id == before.machine_id or not before.machine_id
    found.append(Check("the machine-id is the host's", same, after.machine_id))
    return found


def again(first: Seen, second: Seen) -> list[Check]:
    """Whether the second boot was as good as the first. Pure."""
    lost = [
        *sorted(set(first.mounts) - set(second.mounts)),
        *sorted(set(second.failed) - set(first.failed)),
        *(name for name in first.addresses if _addresses(first, name) - _addresses(second, name)),
    ]
    if len(second.swaps) < len(first.swaps):
        lost.append("swap")
    return [Check("the second boot is as good as the first", not lost, ", ".join(lost))]


def _addresses(seen: Seen, interface: str) -> set[str]:
    # Link-local ones of IPv6 are not looked at.
    return set(seen.addresses.get(interface, [])[1:])


def _words(addresses: dict[str, list[str]]) -> str:
    return "; ".join(f"{name} {' '.join(rest)}" for name, rest in addresses.items()) or "no addresses"


def broken(checks: Iterable[Check]) -> list[str]:
    """What did not hold, in words. Pure."""
    return [f"{check.what}: {check.detail}" if check.detail else check.what for check in checks if not check.held]


def second_boot(machine: Machine, host: str, place: int, limit: float) -> Seen:
    """Restart the running system from its own shell and look again. Raises LabError.

    The machine ends where it would restart, and is switched on again: QEMU's translator keeps what it translated from
    the memory that the first boot used, and every write to such memory is looked up (half a minute of the next boot).
    """
    machine.serial_send("systemctl reboot\n")
    machine.wait_for_serial(r"(reboot: Restarting system|Rebooting\.)", limit, since=place)
    machine.wait_for_power_off(limit)
    return look(machine.start(), host, 0, limit)[0]


__all__ = ["Check", "LabError", "Seen", "again", "broken", "judge", "look", "parse", "second_boot"]
