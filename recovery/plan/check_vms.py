"""What the host's VMs ask of this machine, before the first write: processor, memory, devices handed through. Pure.

Nothing here stops a restore: the host comes back whole, and its VMs' definitions as they were. What a VM will miss is
said now, with the remedy, instead of by libvirt at its start.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from recovery.domain import other_devices, parse, pci_addresses
from recovery.format.point import Point, PointDisk
from recovery.guestconf import current, devices_of, options
from recovery.layout import VirtualMachine
from recovery.machine.model import Disk, Machine
from recovery.plan.model import Problem
from recovery.plan.processors import flag_of_feature, flags_of_model, missing
from recovery.units import format_size


@dataclass(frozen=True)
class Needs:
    """What a VM's definition asks of its host. ``flags``: of the processor, in Linux' words; ``devices``: what of the
    host is handed to it, in words; ``processors``: the numbers of those that it is bound to."""

    kvm: bool = False
    model: str = ""
    flags: frozenset[str] = frozenset()
    devices: tuple[str, ...] = ()
    processors: frozenset[int] = frozenset()


def needs_of(vm: VirtualMachine) -> Needs:
    """From its definition; nothing when that says nothing."""
    return _of_domain(vm.definition) if vm.manager == "libvirt" else _of_proxmox(vm)


def _of_proxmox(vm: VirtualMachine) -> Needs:
    facts = current(vm.definition)
    if vm.manager == "proxmox-container":
        return Needs(devices=tuple(devices_of(facts)))
    words = options(facts.get("cpu", ""), "cputype")
    model = words.get("cputype", "")
    changes = words.get("flags", "").split(";")
    flags = set(flags_of_model(model)) | {
        f for word in changes if word[:1] == "+" and (f := flag_of_feature(word[1:]))
    }
    return Needs(
        kvm=facts.get("kvm") != "0",
        model=model,
        flags=frozenset(flags - {flag_of_feature(word[1:]) for word in changes if word[:1] == "-"}),
        devices=tuple(devices_of(facts)),
        processors=frozenset(parse_cpuset(facts.get("affinity", ""))),
    )


def _of_domain(definition: str) -> Needs:
    try:
        root = parse(definition)
    except ValueError:
        return Needs()
    cpu = root.find("cpu")
    model, flags = "", set[str]()
    if cpu is not None and cpu.get("check") != "none":
        model = _model(cpu)
        given_up = ("disable", "forbid", "optional", "force")
        dropped = {f.get("name", "") for f in cpu.iterfind("feature") if f.get("policy") in given_up}
        flags = set(flags_of_model(model)) - {flag_of_feature(name) for name in dropped}
        wanted = (f.get("name", "") for f in cpu.iterfind("feature") if f.get("policy", "require") == "require")
        flags |= {flag for name in wanted if (flag := flag_of_feature(name))}
    pins = [e.get("cpuset", "") for e in root.iterfind("cputune/*") if e.get("cpuset")]
    pins += [e.get("cpuset", "") for e in root.iterfind("vcpu") if e.get("cpuset")]
    return Needs(
        kvm=root.get("type") == "kvm",
        model=model,
        flags=frozenset(flags),
        devices=(*(f"PCI {address}" for address in pci_addresses(root)), *other_devices(root)),
        processors=frozenset(number for pin in pins for number in parse_cpuset(pin)),
    )


def _model(cpu: ET.Element) -> str:
    """The model whose features libvirt demands; the modes of the host's own processor fit everywhere."""
    found = cpu.find("model")
    if found is None or cpu.get("mode", "custom") != "custom":
        return ""
    return (found.text or "").strip()


def parse_cpuset(text: str) -> set[int]:
    """``0-3,^2,8`` -> {0, 1, 3, 8}; what is no such list is left out. Pure."""
    found: set[int] = set()
    for word in text.replace(" ", "").split(","):
        first, _, last = word.lstrip("^").partition("-")
        # Nobody has more; a definition that says so must not cost memory.
        if any(not re.fullmatch(r"[0-9]{1,5}", number) for number in (first, last or first)):
            continue
        numbers = set(range(int(first), int(last or first) + 1))
        found = found - numbers if word.startswith("^") else found | numbers
    return found


#: What to do, with libvirt and with Proxmox.
_REMEDIES = {
    "vm-passthrough": (
        "Give it this machine's device, or none ('virsh edit'). One that would take the controller of the host's own "
        "disk, or its network card, is not started with the host until then ('virsh autostart').",
        "Proxmox starts such a guest with the host: at the first start give the host's kernel the parameter "
        "systemd.mask=pve-guests.service, and take the device out of the guest ('qm set NUMBER --delete KEY').",
    ),
    "vm-processor": (
        "Afterwards, for each: 'virsh edit NAME', <cpu mode='host-model'/>.",
        "Afterwards, for each: 'qm set NUMBER --cpu host'.",
    ),
    "vm-memory": (
        "Put more memory in, or decide which of them start ('virsh autostart --disable', 'virsh setmem').",
        "Put more memory in, or decide which of them start ('qm set' or 'pct set NUMBER --onboot 0', '--memory').",
    ),
    "vm-pinned": (
        "Afterwards, for each: 'virsh edit NAME', and take the cpuset words out or change them.",
        "Afterwards, for each: 'qm set NUMBER --delete affinity'.",
    ),
}


def _remedy(code: str, vms: Sequence[VirtualMachine]) -> str:
    by_libvirt, by_proxmox = _REMEDIES[code]
    managers = {vm.manager == "libvirt" for vm in vms}
    return " ".join(text for manager, text in ((True, by_libvirt), (False, by_proxmox)) if manager in managers)


def check_vms(point: Point, pairs: Sequence[tuple[PointDisk, Disk]], machine: Machine) -> Iterator[Problem]:
    """All of it; a machine whose processor is not known (recorded by an older release) is not judged by it. Image
    files start elsewhere."""
    if not any(target.bus != "file" for _, target in pairs):
        return
    vms = [(vm, needs_of(vm)) for vm in point.body.vms if vm.definition]
    yield from _check_processor(vms, machine)
    yield from _check_amounts(point.body.vms, vms, machine)
    handed = [f"{vm.name} ({', '.join(needs.devices)})" for vm, needs in vms if needs.devices]
    if handed:
        yield Problem(
            severity="warning",
            code="vm-passthrough",
            what=f"Devices of the old machine are handed through to {_count(handed)}: {'; '.join(handed)}.",
            why="Here they are others, at other places, or not there: such a VM does not start, or takes a device "
            "away that this machine needs for itself.",
            todo=_remedy("vm-passthrough", [vm for vm, needs in vms if needs.devices]),
        )


def _check_processor(vms: Sequence[tuple[VirtualMachine, Needs]], machine: Machine) -> Iterator[Problem]:
    if not machine.processor:
        return
    by_kvm = [vm.name for vm, needs in vms if needs.kvm]
    if by_kvm and not {"vmx", "svm"} & set(machine.processor):
        yield Problem(
            severity="warning",
            code="vm-virtualization",
            what="This machine offers no virtualization (Intel VT-x, AMD-V) for "
            f"{_count(by_kvm)}: {', '.join(by_kvm)}.",
            why="KVM needs it: they do not start. In most machines it is only switched off.",
            todo="Switch it on in the firmware setup (VT-x, SVM).",
        )
    lacking = [(vm, needs, missing(needs.flags, machine.processor)) for vm, needs in vms]
    wrong = [f"{vm.name} ({needs.model or 'features'}: {_some(lack)})" for vm, needs, lack in lacking if lack]
    if wrong:
        yield Problem(
            severity="warning",
            code="vm-processor",
            what=f"This machine's processor lacks what {_count(wrong)} must have: {'; '.join(wrong)}.",
            why="Their definitions name a processor model, or features, and are started with nothing less.",
            todo=_remedy("vm-processor", [vm for vm, _, lack in lacking if lack]),
        )


def _check_amounts(
    all_vms: Sequence[VirtualMachine], vms: Sequence[tuple[VirtualMachine, Needs]], machine: Machine
) -> Iterator[Problem]:
    started = [vm for vm in all_vms if vm.autostart]
    memory = sum(vm.memory for vm in started)
    large = [vm.name for vm in all_vms if vm.memory > machine.memory and not vm.autostart]
    if machine.memory and (memory > machine.memory or large):
        one = "s" if len(started) == 1 else ""
        those = f"{_count([vm.name for vm in started])} that start{one} with the host want{one} {format_size(memory)}"
        yield Problem(
            severity="warning",
            code="vm-memory",
            what=f"This machine has {format_size(machine.memory)} of memory; "
            + (f"the {those}." if memory > machine.memory else f"{', '.join(large)} alone wants more."),
            why="Those that find no memory left do not start, or the host kills one for want of it.",
            todo=_remedy("vm-memory", all_vms),
        )
    beyond = [
        f"{vm.name} (up to number {max(needs.processors)})"
        for vm, needs in vms
        if machine.cpus and needs.processors and max(needs.processors) >= machine.cpus
    ]
    if beyond:
        yield Problem(
            severity="warning",
            code="vm-pinned",
            what=f"This machine has the processors 0 to {machine.cpus - 1}; bound to others "
            f"{'is' if len(beyond) == 1 else 'are'} {', '.join(beyond)}.",
            why="A VM does not start on processors that are not there.",
            todo=_remedy("vm-pinned", all_vms),
        )


def _some(flags: Sequence[str]) -> str:
    return ", ".join(flags[:6]) + (" ..." if len(flags) > 6 else "")


def _count(names: Sequence[str]) -> str:
    return "one VM" if len(names) == 1 else f"{len(names)} VMs"
