"""VM: which guest of the host comes back, and which of its disks."""

from __future__ import annotations

from collections.abc import Iterable

from textual import work
from textual.app import ComposeResult
from textual.widget import Widget

from recovery.errors import ErrorReport
from recovery.layout import Manager, VirtualMachine, VmDisk
from recovery.tui.describe import CONSISTENCY, hang, lies_on, moment
from recovery.tui.screens.base import ConsoleScreen
from recovery.tui.screens.place import PlaceScreen
from recovery.tui.widgets.choice import ChoiceList
from recovery.tui.widgets.controls import Action
from recovery.tui.widgets.panes import Lines, Pane
from recovery.units import format_count, format_size

_DEFINITION: dict[Manager, str] = {
    "libvirt": "libvirt XML, written beside its disks",
    "proxmox": "Proxmox' file of the VM, written beside its disks",
    "proxmox-container": "Proxmox' file of the container, written beside its disks",
}


class VmScreen(ConsoleScreen):
    """Above the VMs of the point, below the disks of the highlighted one, all of them chosen at first."""

    NAME = "VM"
    HELP = (
        "Above: the VMs of the host at this point. Enter chooses one and goes on.\n"
        "Below: its disks. Tab goes there; Enter leaves one out and takes it back.\n\n"
        "A disk in a file (qcow2, raw) comes back as that very file, one on a\n"
        "logical volume or partition as a raw image. The VM's definition is\n"
        "written beside them. Nothing on this machine's disks is overwritten.\n\n"
        "'-' marks disks that are not in the point: those in Ceph, over iSCSI, or on\n"
        "disks of the host that were not captured."
    )
    HINTS = "Arrows move  Enter choose, on/off  Tab on  Esc back  F1 help  F2 shell"

    def body(self) -> ComposeResult:
        """VMs, disks, details."""
        point = self.session.point
        when = moment(point.header.created) if point else ""
        yield Lines("Which VM shall come back?", classes="heading")
        yield ChoiceList(id="vms")
        yield Lines("", id="vm-disks-heading", classes="heading")
        yield ChoiceList(id="vm-disks")
        with Pane(id="details"):
            yield Lines("", id="detail-text")
        self._when = when

    def buttons(self) -> Iterable[Widget]:
        """Continue."""
        return (Action("Continue", id="continue"),)

    def on_mount(self) -> None:
        """The VM chosen before, or the first."""
        vms = self._vms()
        rows = [(vm.name, vm_row(vm)) for vm in vms]
        self.query_one("#vms", ChoiceList).set_rows(rows, self.session.vm)
        self.query_one("#vms").focus()
        if not vms:
            self._refuse("There is no VM in this point.", "Choose another point, or another host.")

    def _vms(self) -> tuple[VirtualMachine, ...]:
        return self.session.point.body.vms if self.session.point else ()

    def _vm(self) -> VirtualMachine | None:
        name = self.query_one("#vms", ChoiceList).selected
        return next((vm for vm in self._vms() if vm.name == name), None)

    def _show(self) -> None:
        vm = self._vm()
        if vm is None:
            return
        self.session.choose_vm(vm.name)
        self.query_one("#vm-disks-heading", Lines).update(f"Disks of {vm.name}   ([x] restored, - not in the point)")
        rows = [(disk.target, f"{self._box(disk)} {disk_line(disk)}") for disk in vm.disks]
        self.query_one("#vm-disks", ChoiceList).set_rows(rows)
        self._show_details()

    def _box(self, disk: VmDisk) -> str:
        if not disk.on:
            return " - "
        return "[x]" if disk.target in self.session.vm_disks else "[ ]"

    def _show_details(self) -> None:
        vm, point = self._vm(), self.session.point
        if vm is None or point is None:
            return
        lines = [
            f"Taken        {self._when}",
            f"Consistency  {CONSISTENCY[point.body.consistency]}",
            f"VM           {vm.state}, {vm.vcpus} CPU, {format_size(vm.memory)} of memory"
            + (", starts with the host" if vm.autostart else ""),
            f"Definition   {_DEFINITION[vm.manager] if vm.definition else 'not in the point'}",
        ]
        for disk in vm.disks:
            where = lies_on(point, disk.on) or "on none of the disks that were captured"
            lines.append(f"{disk.target:<12} {disk.source or 'no source'}, {where}")
        self.query_one("#detail-text", Lines).update(hang("\n".join(lines), self.size.width - 3, 13))

    def on_choice_list_highlighted(self, event: ChoiceList.Highlighted) -> None:
        """The disks follow the VM."""
        if event.choice.id == "vms":
            self._show()

    def on_choice_list_chosen(self, event: ChoiceList.Chosen) -> None:
        """Enter above goes on; Enter or Space below changes whether a disk is restored."""
        if event.choice.id == "vms":
            if not self.busy:
                self.press_continue()
            return
        vm = self._vm()
        disk = next((disk for disk in vm.disks if disk.target == event.choice.selected), None) if vm else None
        if disk is None:
            return
        if not disk.on:
            self._refuse(
                f"{disk.target} cannot be chosen: it lies on none of the disks that were captured.",
                "It is in Ceph, over iSCSI, or on a disk of the host that was left out.",
            )
            return
        self.session.vm_disks ^= {disk.target}
        self._show()

    def _refuse(self, what: str, todo: str) -> None:
        self.show_error(ErrorReport("UsageError", what, todo))

    @work(exclusive=True, group="ask")
    async def press_continue(self) -> None:
        """Look for places that the files can go to; on."""
        vm = self._vm()
        if vm is None:
            self._refuse("There is no VM in this point.", "Choose another point, or another host.")
            return
        self.session.vm_disks -= {disk.target for disk in vm.disks if not disk.on}
        if not self.session.vm_disks:
            self._refuse(f"No disk of {vm.name} is chosen.", "Choose at least one: Tab, then Enter on it.")
            return
        places = await self.ask("Looking at the filesystems of this machine", self.session.engine.places)
        if places is None:
            return
        self.session.places = places
        self.console_app.go(PlaceScreen())


def vm_row(vm: VirtualMachine) -> str:
    """``web1  running  2 disks, 60.0 GiB``."""
    known = [disk.size for disk in vm.disks if disk.size is not None]
    size = f", {format_size(sum(known))}" if known else ""
    return f"{vm.name:<24.24} {vm.state:<9} {format_count(len(vm.disks), 'disk')}{size}"


def disk_line(disk: VmDisk) -> str:
    """``vda  20.0 GiB  qcow2  /var/lib/libvirt/images/web1.qcow2``."""
    size = format_size(disk.size) if disk.size is not None else "?"
    return f"{disk.target:<6} {size:>8} {disk.format:<6} {disk.source}"
