"""Whoever runs a host's VMs, asked to reach the agents inside of them: libvirt by ``virsh``, Proxmox VE by ``qm``."""

from __future__ import annotations

import contextlib
import json
import re
from abc import ABC, abstractmethod

from recovery.commands import run
from recovery.errors import CommandError
from recovery.guestconf import current, options
from recovery.layout import Manager, VirtualMachine

_URI = "qemu:///system"
_CHANNEL = "org.qemu.guest_agent.0"
#: Seconds for a list of guests. ``qm`` is a large Perl program.
_PATIENCE = 10.0
#: What is said of a freeze that was not begun: no agent that runs, or somebody else holds the guest frozen.
_REFUSED = re.compile(
    r"not connected|not running|not configured|not installed|not be started|frozen state|has been disabled",
    re.IGNORECASE,
)
_ASLEEP = "it is suspended to disk"
#: A row of ``qm list``: number, name, state. A VM without a name is called "VM 100".
_ROW = re.compile(r"\s*(\d+)\s+(VM \d+|\S+)\s+(\S+)\s")
#: Whether a backup of Proxmox' own may freeze the guest; what the setting was called in earlier releases.
_FREEZES = ("freeze-fs", "freeze-fs-on-backup", "guest-fsfreeze")


class GuestRefusedError(CommandError):
    """A guest is not frozen by us, and will not be."""


class Hypervisor(ABC):
    """``title`` names it in a sentence; ``manager``: its guests in an inventory. A guest is named by its ``key``."""

    title: str
    manager: Manager
    #: Commands that run at once.
    at_once: int
    #: For a thaw: the agent's hooks run before it answers, on Windows the writers of VSS. Proxmox waits three minutes.
    thaw_seconds = 60.0

    @abstractmethod
    def key(self, vm: VirtualMachine) -> str:
        """What it calls this VM of an inventory; empty when the VM is not of the machine that we run on."""

    @abstractmethod
    def states(self) -> dict[str, str]:
        """By key: ``running``, ``shut off``, or another word. Who is missing is not known. Raises CommandError."""

    @abstractmethod
    def asleep(self, vm: VirtualMachine, state: str) -> str:
        """Why the disks of a VM in this ``state``, which does not run, are those of one that does; else empty."""

    @abstractmethod
    def refusal(self, vm: VirtualMachine) -> str:
        """Why this VM's agent is not asked; empty when it is."""

    @abstractmethod
    def freeze_command(self, key: str) -> list[str]:
        """What has its agent freeze its filesystems."""

    @abstractmethod
    def thaw_command(self, key: str) -> list[str]:
        """What has its agent thaw them, also for a process that has nothing but it (``guestkeeper.attempt``)."""

    @abstractmethod
    def count(self, said: str) -> int:
        """How many filesystems the answer of either command names. Raises CommandError."""

    def freeze(self, key: str, seconds: float) -> int:
        """Freeze a guest within ``seconds``: how many filesystems. Raises GuestRefusedError, or another CommandError:
        then the guest may be frozen, now or later."""
        try:
            return self.count(run(self.freeze_command(key), timeout=seconds).stdout)
        except CommandError as error:
            if isinstance(error, GuestRefusedError) or not _REFUSED.search(error.message):
                raise
            raise GuestRefusedError(error.message, hint=error.hint) from error

    def thaw(self, key: str, seconds: float) -> int:
        """Thaw it within ``seconds``: how many. Raises CommandError."""
        return self.count(run(self.thaw_command(key), timeout=seconds).stdout)


class Libvirt(Hypervisor):
    """Domains of the system's libvirt, by their UUIDs."""

    title = "libvirt"
    manager: Manager = "libvirt"
    at_once = 16

    def key(self, vm: VirtualMachine) -> str:
        """A VM with a state was known to this machine's libvirt when the inventory was made."""
        return vm.uuid if vm.state != "unknown" else ""

    def states(self) -> dict[str, str]:
        """See Hypervisor. The last word counts: ``saved`` ones (managed save) are shut off, too."""
        found = dict.fromkeys(self._domains("--all"), "other")
        for state in ("paused", "shut off", "running"):
            found |= dict.fromkeys(self._domains(f"--state-{state.replace(' ', '')}"), state)
        return found | dict.fromkeys(self._domains("--all", "--with-managed-save"), "saved")

    def _domains(self, *which: str) -> set[str]:
        done = run(["virsh", "-r", "-c", _URI, "list", *which, "--uuid"], timeout=_PATIENCE)
        return {line.strip() for line in done.stdout.splitlines() if line.strip()}

    def asleep(self, vm: VirtualMachine, state: str) -> str:
        """See Hypervisor."""
        return _ASLEEP if state == "saved" else ""

    def refusal(self, vm: VirtualMachine) -> str:
        """See Hypervisor."""
        return "" if _CHANNEL in vm.definition else "it has no guest agent"

    def freeze_command(self, key: str) -> list[str]:
        """See Hypervisor."""
        return ["virsh", "-c", _URI, "domfsfreeze", "--domain", key]

    def thaw_command(self, key: str) -> list[str]:
        """See Hypervisor."""
        return ["virsh", "-c", _URI, "domfsthaw", "--domain", key]

    def count(self, said: str) -> int:
        """See Hypervisor."""
        number = re.search(r"(\d+) filesystem", said)
        if number is None:
            raise CommandError(f"'virsh' said '{said.strip()[:80]}' instead of a number of filesystems")
        return int(number[1])


class Proxmox(Hypervisor):
    """VMs of this node of Proxmox VE, by number and name: ``100-web``, as an inventory calls them."""

    title = "Proxmox"
    manager: Manager = "proxmox"
    at_once = 4

    def key(self, vm: VirtualMachine) -> str:
        """A VM with a state was known to this machine's Proxmox when the inventory was made."""
        return vm.name if vm.state != "unknown" else ""

    def states(self) -> dict[str, str]:
        """See Hypervisor. The list does not tell a paused VM from one that runs."""
        found = {}
        for line in run(["qm", "list"], timeout=_PATIENCE).stdout.splitlines():
            if row := _ROW.match(line):
                key = row[1] if row[2].startswith("VM ") else f"{row[1]}-{row[2]}"
                found[key] = "shut off" if row[3] == "stopped" else row[3]
        return found

    def asleep(self, vm: VirtualMachine, state: str) -> str:
        """See Hypervisor. ``qm suspend --todisk`` leaves its mark in the VM's configuration, which is as old as the
        inventory."""
        if state != "shut off":
            return ""
        facts = current(vm.definition)
        if "vmstate" in facts or facts.get("lock") == "suspended":
            return _ASLEEP
        return "" if vm.state == "shut off" else "it was stopped, or suspended to disk, since the last keyframe"

    def refusal(self, vm: VirtualMachine) -> str:
        """See Hypervisor. The option is ``agent: 1`` or ``agent: enabled=1,freeze-fs=0``."""
        words = options(current(vm.definition).get("agent", ""), "enabled")
        if words.get("enabled") not in ("1", "yes", "true", "on"):
            return "its guest agent is not enabled in Proxmox"
        if any(words.get(name) in ("0", "no", "false", "off") for name in _FREEZES):
            return "freezing it is switched off in Proxmox (freeze-fs)"
        return ""

    def freeze_command(self, key: str) -> list[str]:
        """See Hypervisor."""
        return [*_guest(key), "fsfreeze-freeze"]

    def thaw_command(self, key: str) -> list[str]:
        """See Hypervisor."""
        return [*_guest(key), "fsfreeze-thaw"]

    def count(self, said: str) -> int:
        """See Hypervisor."""
        if said.strip().isdecimal():
            return int(said)
        with contextlib.suppress(ValueError, KeyError, TypeError):
            # qm prints an agent's error and ends well. An agent that fails to freeze thaws what it froze.
            raise GuestRefusedError(f"its guest agent said: {json.loads(said)['error']['desc']}")
        raise CommandError(f"'qm guest cmd' said '{' '.join(said.split())[:80]}' instead of a number")


def _guest(key: str) -> list[str]:
    return ["qm", "guest", "cmd", key.partition("-")[0]]


HYPERVISORS: tuple[Hypervisor, ...] = (Libvirt(), Proxmox())
