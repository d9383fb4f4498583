"""Whoever runs a host's VMs, asked to reach the agents inside of them: libvirt by ``virsh``, Proxmox VE by ``qm``."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod

from recovery.commands import run
from recovery.errors import CommandError
from recovery.guestconf import current, options
from recovery.layout import Manager, VirtualMachine

URI = "qemu:///system"
_CHANNEL = "org.qemu.guest_agent.0"
#: Seconds for a thaw or a list of guests, which do not wait for a guest's programs. ``qm`` is a large Perl program.
_PATIENCE = 10.0
#: A row of ``qm list``: number, name, state. A VM without a name is called "VM 100".
_ROW = re.compile(r"\s*(\d+)\s+(VM \d+|\S+)\s+(\S+)\s")
#: Whether a backup of Proxmox' own may freeze the guest; what the setting was called in earlier releases.
_FREEZES = ("freeze-fs", "freeze-fs-on-backup", "guest-fsfreeze")


class Hypervisor(ABC):
    """``title`` names it in a sentence; ``manager``: its guests in an inventory. A guest is named by its ``key``."""

    title: str
    manager: Manager

    @abstractmethod
    def key(self, vm: VirtualMachine) -> str:
        """What it calls this VM of an inventory; empty when the VM is not of the machine that we run on."""

    @abstractmethod
    def states(self) -> dict[str, str]:
        """By key: ``running``, ``shut off``, or another word. Who is missing is neither. Raises CommandError."""

    @abstractmethod
    def refusal(self, vm: VirtualMachine) -> str:
        """Why this VM's agent is not asked; empty when it is."""

    @abstractmethod
    def freeze_command(self, key: str) -> list[str]:
        """What has its agent freeze its filesystems."""

    @abstractmethod
    def thaw_command(self, key: str) -> list[str]:
        """What has its agent thaw them, also for a process that has nothing but it: exit code 0 when that is done."""

    @abstractmethod
    def count(self, said: str) -> int:
        """How many filesystems the answer of either command names. Raises CommandError."""

    def freeze(self, key: str, seconds: float) -> int:
        """Freeze a guest within ``seconds``: how many filesystems. Raises CommandError."""
        return self.count(run(self.freeze_command(key), timeout=seconds).stdout)

    def thaw(self, key: str) -> int:
        """Thaw it: how many. Raises CommandError."""
        return self.count(run(self.thaw_command(key), timeout=_PATIENCE).stdout)


class Libvirt(Hypervisor):
    """Domains of the system's libvirt, by their UUIDs."""

    title = "libvirt"
    manager: Manager = "libvirt"

    def key(self, vm: VirtualMachine) -> str:
        """A VM with a state was known to this machine's libvirt when the inventory was made."""
        return vm.uuid if vm.state != "unknown" else ""

    def states(self) -> dict[str, str]:
        """See Hypervisor."""
        found = dict.fromkeys(self._domains("shutoff"), "shut off")
        return found | dict.fromkeys(self._domains("running"), "running")

    def _domains(self, state: str) -> set[str]:
        done = run(["virsh", "-r", "-c", URI, "list", f"--state-{state}", "--uuid"], timeout=_PATIENCE)
        return {line.strip() for line in done.stdout.splitlines() if line.strip()}

    def refusal(self, vm: VirtualMachine) -> str:
        """See Hypervisor."""
        return "" if _CHANNEL in vm.definition else "it has no guest agent"

    def freeze_command(self, key: str) -> list[str]:
        """See Hypervisor."""
        return ["virsh", "-c", URI, "domfsfreeze", "--domain", key]

    def thaw_command(self, key: str) -> list[str]:
        """See Hypervisor."""
        return ["virsh", "-c", URI, "domfsthaw", "--domain", key]

    def count(self, said: str) -> int:
        """See Hypervisor."""
        number = re.search(r"(\d+) filesystem", said)
        return int(number[1]) if number else 0


class Proxmox(Hypervisor):
    """VMs of this node of Proxmox VE, by number and name: ``100-web``, as an inventory calls them."""

    title = "Proxmox"
    manager: Manager = "proxmox"

    def key(self, vm: VirtualMachine) -> str:
        """A VM with a state was known to this machine's Proxmox when the inventory was made."""
        return vm.name if vm.state != "unknown" else ""

    def states(self) -> dict[str, str]:
        """See Hypervisor."""
        found = {}
        for line in run(["qm", "list"], timeout=_PATIENCE).stdout.splitlines():
            if row := _ROW.match(line):
                key = row[1] if row[2].startswith("VM ") else f"{row[1]}-{row[2]}"
                found[key] = "shut off" if row[3] == "stopped" else row[3]
        return found

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
        if not said.strip().isdecimal():
            raise CommandError(f"'qm guest cmd' said '{said.strip()[:80]}' instead of a number")
        return int(said)


def _guest(key: str) -> list[str]:
    return ["qm", "guest", "cmd", key.partition("-")[0]]


HYPERVISORS: tuple[Hypervisor, ...] = (Libvirt(), Proxmox())
