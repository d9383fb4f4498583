"""``rekindle machine``: what this machine has, in words or as JSON that a plan can be tried against."""

from __future__ import annotations

import click
import msgspec
from rich.table import Table

from recovery.cli.console import PlainConsole
from recovery.machine.model import Disk, Machine
from recovery.machine.probe import probe_machine
from recovery.plan.losses import losses
from recovery.units import format_size


@click.command()
@click.option("--json", "as_json", is_flag=True, help="JSON, as 'rekindle plan --machine' reads it.")
@click.option("--loops", is_flag=True, help="Count loop devices as disks.")
def machine(as_json: bool, loops: bool) -> None:
    """Describe this machine: disks, firmware, network. Reads only."""
    found = probe_machine(loops=loops)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(found), indent=2))
        return
    console = PlainConsole()
    boot = " with Secure Boot" if found.secure_boot else ""
    name = " ".join(word for word in (found.vendor, found.model) if word) or "A machine without a name"
    console.print(
        f"{name}: {found.architecture}, {found.cpus} processors, {format_size(found.memory)}, "
        f"firmware {found.firmware}{boot}"
    )
    console.print(disk_table(found))
    for nic in found.nics:
        bond = f"  in {nic.bond}" if nic.bond else ""
        addresses = " ".join(nic.addresses)
        console.print(
            f"{nic.name}  {nic.mac}  {nic.driver or 'no driver'}  {nic.link}{bond}  {addresses}  {nic.model}"
        )
    for device in found.driverless:
        console.print(f"Not working: {device.purpose} {device.name} at {device.slot}. {device.reason}", style="yellow")


def disk_table(found: Machine) -> Table:
    """The disks with what a person decides by."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("Disk", "Size", "Bus", "Model and serial", "Contents", "Why not"):
        table.add_column(title, overflow="fold")
    for disk in found.disks:
        table.add_row(
            disk.path,
            format_size(disk.size) + (" 4Kn" if disk.sector_size == 4096 else ""),
            disk.bus,
            f"{disk.model} {disk.serial}".strip() + f"\n{disk.id}",
            " ".join(losses(disk, found)) or "blank",
            why_not(disk),
        )
    return table


def why_not(disk: Disk) -> str:
    """Why it can't be a target; empty when it can."""
    return " ".join(disk.busy) or ("It is read-only." if disk.read_only else "")
