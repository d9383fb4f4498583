"""``rekindle extract``: the disks of one VM out of a point, without restoring its host."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import click
import msgspec

from recovery.cli.access import open_copies, repository_options
from recovery.cli.progress import progress_listener
from recovery.errors import UsageError
from recovery.explore.extract import Extracted, check_room
from recovery.explore.extract import extract as extract_one
from recovery.explore.host import HostView
from recovery.explore.vm import FoundDisk, find_disks, vm_of
from recovery.layout import VirtualMachine
from recovery.units import format_rate, format_size


@click.command()
@click.argument("location")
@click.option("--host", required=True, help="The host that ran the VM.")
@click.option("--point", "point_id", default="latest", show_default=True, help="Id of the point, or its beginning.")
@click.option("--vm", "name", required=True, metavar="NAME", help="The VM ('rekindle points --point' lists them).")
@click.option("--disk", default="", metavar="TARGET", help="Only this disk of it, such as vda.")
@click.option("--into", required=True, type=click.Path(path_type=Path, file_okay=False, exists=True),
              help="The folder that gets its disks and its definition.")  # fmt: skip
@click.option(
    "--also", "copies", multiple=True, metavar="LOCATION", help="Another copy of the repository. Repeatable."
)
@click.option("--json", "as_json", is_flag=True, help="JSON lines: the events, then the result.")
@repository_options
def extract(
    location: str,
    host: str,
    point_id: str,
    name: str,
    disk: str,
    into: Path,
    copies: tuple[str, ...],
    as_json: bool,
    **access: Any,
) -> None:
    """Write the disks of one VM of a captured host into new files, from the repository at LOCATION.

    A disk in a file (qcow2, raw) comes back as that file, one on a logical volume or partition as a raw image; the
    libvirt definition lies beside. Only what the VM's disks hold is fetched. Nothing that exists is overwritten.
    """
    repository = open_copies((location, *copies), **access)
    point = repository.point(host, point_id)
    vm = vm_of(point, name)
    if "/" in vm.name or vm.name.startswith("."):
        raise UsageError(f"The VM's name '{vm.name}' is no file name.")
    view = HostView(repository, point)
    found = find_disks(view, vm, disk)
    check_room(view, [(one.where, into / one.name) for one in found])
    definition = into / f"{vm.name}.xml"
    if definition.exists():
        raise UsageError(f"{definition} is there already, and nothing is overwritten.", hint="Name another folder.")
    made: list[Extracted] = []
    with progress_listener(as_json=as_json) as listener:
        for one in found:
            made.append(extract_one(view, one.where, into / one.name, listener, threading.Event()))
    if vm.definition:
        definition.write_text(vm.definition)
    _tell(vm, found, made, definition, as_json=as_json)


def _tell(
    vm: VirtualMachine, found: list[FoundDisk], made: list[Extracted], definition: Path, *, as_json: bool
) -> None:
    if as_json:
        disks = [
            {"target": one.disk.target, "path": file.path, "size": file.size, "written": file.written,
             "backing": one.backing} for one, file in zip(found, made, strict=True)
        ]  # fmt: skip
        line = {
            "type": "extracted",
            "vm": vm.name,
            "definition": str(definition) if vm.definition else "",
            "disks": disks,
        }
        click.echo(msgspec.json.encode(line))
        return
    for one, file in zip(found, made, strict=True):
        rate = format_rate(file.size / max(file.seconds, 0.001))
        click.echo(
            f"{one.disk.target}: {file.path}, {format_size(file.size)}, of which {format_size(file.written)} are "
            f"content ({rate}). It was {one.disk.source}."
        )
        if one.backing:
            click.echo(f"  warning: it is an overlay of {one.backing}, which is not in it: put that beside it.")
    if vm.definition:
        click.echo(f"{definition}: its definition, with the old paths; 'virsh define' takes it when they are right.")
