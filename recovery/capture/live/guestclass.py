"""How consistent each guest is in a point of a running host, and why no better. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from recovery.layout import GuestConsistency, Manager, VirtualMachine

#: A guest, by whose it is and its name.
GuestName = tuple[Manager, str]


class Quiesced(msgspec.Struct, frozen=True):
    """How a guest was around the freeze of its host: its ``consistency``, ``why`` it is no better, and its ``state``
    then; empty: its hypervisor did not say."""

    consistency: GuestConsistency
    why: str = ""
    state: str = ""


def with_consistency(
    vms: Iterable[VirtualMachine], found: Mapping[GuestName, Quiesced] | None
) -> list[VirtualMachine]:
    """The VMs of a running host with their consistency: one that runs is at least as after a power cut. ``found``
    None: nobody asked for it; who was off when it was last asked for may be running by now, so it is not known."""
    classes = found or {}
    changed = []
    for vm in vms:
        if vm.manager == "proxmox-container":
            how = Quiesced("crash", "a container has no guest agent")
        elif found is None:
            how = Quiesced("" if vm.state in ("shut off", "saved") else "crash", "guests were not asked")
        else:
            how = classes.get((vm.manager, vm.name), Quiesced("crash", "it is not known here"))
        changed.append(
            msgspec.structs.replace(vm, consistency=how.consistency, unquiesced=how.why, state=how.state or vm.state)
        )
    return changed
