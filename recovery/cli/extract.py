"""``rekindle extract``: the disks of one VM out of a point, without restoring its host."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
import msgspec

from recovery.cli.access import open_copies, repository_options
from recovery.cli.follow import follow
from recovery.cli.progress import progress_listener
from recovery.engine.again import with_access
from recovery.engine.api import Report, VmReport
from recovery.engine.confirm import check_allowed
from recovery.engine.engine import Engine
from recovery.errors import IntegrityError, UnsafeTargetError, UsageError, from_report
from recovery.plan.vm import VM_NAME, VmChoices, VmPlan
from recovery.plan.vm_render import render_vm_plan
from recovery.units import format_count, format_rate, format_size


@click.command()
@click.argument("location")
@click.option("--host", required=True, help="The host that ran the VM.")
@click.option("--point", "point_id", default="latest", show_default=True, metavar="ID|TIME",
              help="Id of the point, or its beginning; or a time: the newest point at or before it.")  # fmt: skip
@click.option("--vm", "name", required=True, metavar="NAME", help="The VM ('rekindle points --point' lists them).")
@click.option(
    "--disk", "disks", multiple=True, metavar="TARGET", help="Only this disk of it, such as vda. Repeatable."
)
@click.option("--into", default="", metavar="FOLDER",
              help="The folder that gets disks and definition; with --onto a folder in that filesystem.")  # fmt: skip
@click.option("--onto", "device", default="", metavar="DEVICE",
              help="A filesystem, such as /dev/sdb1, that is mounted for this run only.")  # fmt: skip
@click.option("--overwrite", is_flag=True, help="Replace files of these names that are there already.")
@click.option("--confirm", "confirmed", default="", metavar="NAME",
              help="With --overwrite: the VM's name, instead of typing it.")  # fmt: skip
@click.option("--plan", "plan_only", is_flag=True, help="Only plan and check; write nothing.")
@click.option(
    "--also", "copies", multiple=True, metavar="LOCATION", help="Another copy of the repository. Repeatable."
)
@click.option("--skip-damaged", is_flag=True,
              help="Leave zeros where no copy has the content, and list those places; exit code 5.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="JSON lines: the plan, the events, the report, the result.")
@repository_options
def extract(
    location: str,
    host: str,
    point_id: str,
    name: str,
    disks: tuple[str, ...],
    into: str,
    device: str,
    overwrite: bool,
    confirmed: str,
    plan_only: bool,
    copies: tuple[str, ...],
    skip_damaged: bool,
    as_json: bool,
    **access: Any,
) -> None:
    """Write the disks of one VM of a captured host into new files, from the repository at LOCATION.

    A disk in a file (qcow2, raw) comes back as that file, one on a logical volume or partition as a raw image; the
    libvirt definition lies beside. Only what the VM's disks hold is fetched. Files get their names when all are whole.
    """
    if not into and not device:
        raise UsageError("Where shall the files go?", hint="Give --into FOLDER, or --onto DEVICE.")
    choices = VmChoices(
        host=host, point=point_id, vm=name, disks=disks, device=device,
        folder=into if device else str(Path(into).absolute()), overwrite=overwrite, skip_damaged=skip_damaged,
    )  # fmt: skip
    repository = open_copies((location, *copies), **access)
    engine = Engine(look_inside=False, loops=True)
    try:
        engine.adopt(repository)
        plan = engine.plan_vm(choices)
        _show_plan(plan, as_json=as_json)
        check_allowed(plan)
        if plan_only:
            return
        engine.start(plan.id, {VM_NAME: _confirmation(plan, confirmed)})
        with progress_listener(as_json=as_json) as listener:
            finished = follow(engine, listener)
        report = engine.state().report
        if report is not None:
            if report.go_on:
                report = msgspec.structs.replace(report, go_on=with_access(report.go_on, access))
            _show_report(report, as_json=as_json)
        if finished.error is not None:
            raise from_report(finished.error)
        if report is not None and report.damaged:
            raise IntegrityError(
                f"The disks of {name} are complete except for what no copy of the repository has: zeros lie there.",
                hint="The report lists the places. Check the filesystems on them, or take an older point.",
            )
    finally:
        engine.close()


def _show_plan(plan: VmPlan, *, as_json: bool) -> None:
    if as_json:
        click.echo(msgspec.json.encode({"type": "plan", "plan": plan}))
        return
    for line in render_vm_plan(plan):
        click.echo(line)


def _confirmation(plan: VmPlan, given: str) -> str:
    """What is typed where files are overwritten. Raises UnsafeTargetError when there is no terminal to ask on."""
    if not plan.overwritten or given:
        return given
    if not sys.stdin.isatty():
        raise UnsafeTargetError(
            f"Overwriting {', '.join(plan.overwritten)} was not confirmed, and there is no terminal to ask on.",
            hint=f"Give --confirm {plan.confirmation}: the VM's name.",
        )
    click.echo(f"\n{', '.join(plan.overwritten)} will be overwritten.", err=True)
    typed: str = click.prompt("Type the VM's name to go on", err=True)
    return typed


def _show_report(report: Report, *, as_json: bool) -> None:
    vm = report.vm or VmReport(name="", place="")
    if as_json:
        click.echo(msgspec.json.encode({"type": "report", "report": report}))
        if vm.files:
            fields = ("target", "path", "size", "written", "backing")
            disks = [{field: getattr(file, field) for field in fields} for file in vm.files]
            line = {"type": "extracted", "vm": vm.name, "definition": vm.definition, "disks": disks}
            click.echo(msgspec.json.encode(line))
        return
    for file in vm.files:
        rate = format_rate(file.size / max(file.seconds, 0.001))
        click.echo(
            f"{file.target}: {file.path}, {format_size(file.size)}, of which {format_size(file.written)} are "
            f"content ({rate}). It was {file.source}."
        )
        for offset, length in file.damaged:
            click.echo(f"  lost: byte {offset}: {format_count(length, 'byte')}")
    if vm.device and vm.files:
        click.echo(f"They lie on {vm.device}, which is unmounted again: it may be taken out.")
    for warning in report.warnings:
        click.echo(f"warning: {warning}")
    if vm.definition:
        taken = "'virsh define' takes it when they are right"
        if not vm.definition.endswith(".xml"):
            taken = (
                "Proxmox takes it as /etc/pve/qemu-server/NUMBER.conf (a container's as /etc/pve/lxc/NUMBER.conf) "
                "when they are right; its snapshots, from the first [ on, are not in these disks"
            )
        click.echo(f"{vm.definition}: its definition, with the old paths; {taken}.")
    if report.go_on:
        click.echo(f"to go on: {report.go_on}")
