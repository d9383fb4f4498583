"""``rekindle plan``: what a restore would do and what speaks against it. Writes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import msgspec

from recovery.cli.access import open_copies, read_secret, repository_options
from recovery.cli.targets import (
    LUKS_PROMPT,
    are_files,
    care_options,
    grow_options,
    hibernation_option,
    luks_option,
    parse_targets,
    suggested,
    swap_option,
)
from recovery.engine.confirm import check_allowed
from recovery.engine.engine import Engine
from recovery.engine.planning import plan_recorded
from recovery.machine.model import load_machine
from recovery.plan.growth import wishes
from recovery.plan.model import Choices
from recovery.plan.render import render_plan


@click.command()
@click.argument("location")
@click.option("--host", required=True, help="The host to restore.")
@click.option("--point", "point_id", default="latest", show_default=True, metavar="ID|TIME",
              help="Id of the point, or its beginning; or a time ('14:03', 'yesterday 14:03', '2025-11-20T14:03Z'): "
                   "the newest point at or before it.")  # fmt: skip
@click.option("--target", "targets", multiple=True, metavar="DISK=TARGET", help="Where a disk goes; else suggested.")
@click.option("--machine", "machine_file", type=click.Path(path_type=Path, dir_okay=False, exists=True),
              help="Plan for a recorded machine ('rekindle machine --json') instead of this one.")  # fmt: skip
@click.option("--adapt/--no-adapt", default=None, help="Make the host boot on this machine (default: on disks).")
@grow_options
@swap_option
@hibernation_option
@care_options
@luks_option
@click.option("--loops", is_flag=True, help="Loop devices may be targets.")
@click.option("--json", "as_json", is_flag=True, help="The plan as JSON.")
@repository_options
def plan(
    location: str,
    host: str,
    point_id: str,
    targets: tuple[str, ...],
    machine_file: Path | None,
    adapt: bool | None,
    grow: bool,
    grow_to: tuple[str, ...],
    to_gpt: bool,
    use_swap: bool,
    drop_hibernation: bool,
    verify: bool,
    copies: tuple[str, ...],
    skip_damaged: bool,
    luks_secret_file: Path | None,
    loops: bool,
    as_json: bool,
    **access: Any,
) -> None:
    """Plan the restore of a host from the repository at LOCATION, and check it. Exit code 11: refused."""
    chosen = parse_targets(targets)
    grow, grow_to = wishes(grow_to, grow)
    repository = open_copies((location, *copies), **access)
    point = repository.point(host, point_id)
    secret = read_secret(luks_secret_file, LUKS_PROMPT) if luks_secret_file is not None else ""
    choices = Choices(
        host=host, point=point.id, targets=chosen, grow=grow, grow_to=grow_to, to_gpt=to_gpt, use_swap=use_swap,
        drop_hibernation=drop_hibernation, verify=verify, skip_damaged=skip_damaged, luks_secret=bool(secret),
    )  # fmt: skip
    if machine_file is not None:
        machine = load_machine(machine_file)
        chosen = chosen or suggested(point, machine)
        found = plan_recorded(point, machine, _with_targets(choices, chosen, adapt))
    else:
        engine = Engine(look_inside=not are_files(chosen), loops=loops)
        try:
            engine.adopt(repository)
            if secret:
                engine.luks_secret(secret)
            chosen = chosen or suggested(point, engine.machine())
            found = engine.plan(_with_targets(choices, chosen, adapt))
        finally:
            engine.close()
    if as_json:
        click.echo(msgspec.json.encode(found))
    else:
        for line in render_plan(found):
            click.echo(line)
    check_allowed(found)


def _with_targets(choices: Choices, targets: dict[str, str], adapt: bool | None) -> Choices:
    wanted = adapt if adapt is not None else not are_files(targets)
    return msgspec.structs.replace(choices, targets=targets, adapt=wanted)
