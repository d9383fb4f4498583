"""``rekindle adapt``: make a restored host boot on this machine. Also alone, without a repository at hand."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click
import msgspec

from recovery.adapt.land import converted, landed, moved
from recovery.adapt.luks import Passphrases
from recovery.adapt.model import Moved
from recovery.adapt.run import AdaptReport, AdaptRequest
from recovery.adapt.run import adapt as run_adapt
from recovery.adapt.steps import STEPS, find
from recovery.cli.access import open_repository, read_secret, repository_options
from recovery.cli.progress import progress_listener
from recovery.cli.targets import LUKS_PROMPT, grow_options, hibernation_option, luks_option, swap_option
from recovery.errors import AccessError, NotFoundError, UnsafeTargetError, UsageError
from recovery.format.point import Point
from recovery.layout import GrowPlace, Landing
from recovery.machine.model import Disk, Machine
from recovery.machine.probe import probe_machine
from recovery.plan.growth import candidates, landings, places_of, wishes
from recovery.plan.growth_checks import check_growth
from recovery.plan.model import Choices
from recovery.plan.repair import point_of


@click.command()
@click.argument("disks", nargs=-1, metavar="DISK...")
@click.option(
    "--repository",
    "location",
    default="",
    metavar="LOCATION",
    help="Where the recovery point is; without it, what lies on the disks has to do.",
)
@click.option("--host", default="", help="The host whose point it is.")
@click.option("--point", "point_id", default="latest", show_default=True, help="The point's id, or the start of it.")
@grow_options
@luks_option
@swap_option
@hibernation_option
@click.option("--step", "steps", multiple=True, metavar="NAME", help="Only this step, and what it needs. Repeatable.")
@click.option("--list-steps", is_flag=True, help="List the steps, and what each may change.")
@click.option(
    "--forget-entries", is_flag=True, help="Delete the firmware's boot entries of this host for disks that are gone."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines: events, then the report.")
@repository_options
def adapt(
    disks: tuple[str, ...],
    location: str,
    host: str,
    point_id: str,
    grow: bool,
    grow_to: tuple[str, ...],
    to_gpt: bool,
    luks_secret_file: Path | None,
    use_swap: bool,
    drop_hibernation: bool,
    steps: tuple[str, ...],
    list_steps: bool,
    forget_entries: bool,
    as_json: bool,
    **access: Any,
) -> None:
    """Make the host that lies on DISK... boot on this machine.

    DISK is a whole disk (/dev/nvme0n1). With a recovery point, write NAME=DISK for each of the point's disks
    (disk1=/dev/nvme0n1), or the disks in the order of the point. Nothing that was adapted before is undone by
    running it again.

    \b
    Exit codes: 0 the host will boot; 2 wrong disk or firmware mode;
    3 no kernel, root or bootloader found; 4 the passphrase opens nothing; 7 no room; 10 a program failed;
    5 the disks are not as captured, or the proof failed.
    """
    if list_steps:
        show_steps(as_json=as_json)
        return
    if not disks:
        raise UsageError("No disk was named.", hint="Name the disks that the host lies on: rekindle adapt /dev/sda")
    for name in steps:
        find(name)  # a word that is no step is told before a disk is looked at
    if os.geteuid() != 0:
        raise AccessError("Only root can adapt a host.", hint="Run it with sudo.")
    grow, grow_to = wishes(grow_to, grow)
    if (grow_to or to_gpt) and not location:
        raise UsageError("--grow-to and --to-gpt need the recovery point.", hint="Give --repository and --host.")
    machine = probe_machine(loops=True)
    secret = read_secret(luks_secret_file, LUKS_PROMPT) if luks_secret_file is not None else ""
    places: tuple[GrowPlace, ...] = ()
    changed: tuple[str, ...] = ()
    moves: tuple[Moved, ...] = ()
    if location:
        if not host:
            raise UsageError("Which host's point is it?", hint="Give --host NAME.")
        point = open_repository(location, **access).point(host, point_id)
        targets = assign(disks, point, machine)
        choices = Choices(
            host=host, point=point.id, targets={name: disk.id for name, disk in targets.items()}, grow=grow,
            grow_to=grow_to, to_gpt=to_gpt, luks_secret=bool(secret),
        )  # fmt: skip
        anew, places = as_restored(point, targets, choices)
        changed, moves, point = converted(point, anew), moved(anew), landed(point, anew)
    else:
        found = [find_disk(words.partition("=")[2] or words, machine) for words in disks]
        point = point_of(found, machine)
        targets = {d.name: disk for d, disk in zip(point.body.disks, found, strict=True)}
    request = AdaptRequest(
        point=point, targets=targets, machine=machine, grow=grow, grow_to=places, to_gpt=changed,
        use_swap=use_swap, forget_entries=forget_entries, drop_hibernation=drop_hibernation, moved=moves,
    )  # fmt: skip
    with progress_listener(as_json=as_json) as listener:
        report = run_adapt(request, listener, Passphrases((secret,) if secret else ()), steps)
    show(report, as_json=as_json, whole=not steps)


def as_restored(
    point: Point, targets: dict[str, Disk], choices: Choices
) -> tuple[dict[str, Landing], tuple[GrowPlace, ...]]:
    """How a restore with these choices laid the disks out, and what is to grow. Pure. Raises UsageError for a name of
    nothing that can grow."""
    pairs = [(point.disk(name), disk) for name, disk in targets.items()]
    found = candidates(point, pairs, choices)
    for problem in check_growth(pairs, choices, found):
        if problem.severity == "error":
            raise UsageError(f"{problem.what} {problem.why}", hint=problem.todo)
    return landings(point, pairs, choices), places_of(found)


def show_steps(*, as_json: bool) -> None:
    """Name, title, and what it may change, of each step in the order in which they run."""
    if as_json:
        rows = [{"name": step.name, "title": step.title, "changes": step.changes} for step in STEPS]
        click.echo(msgspec.json.encode(rows).decode())
        return
    for step in STEPS:
        click.echo(f"{step.name:<21}{step.title}" + (f". Changes: {step.changes}." if step.changes else "."))


def show(report: AdaptReport, *, as_json: bool, whole: bool = True) -> None:
    """The report: JSON, or sentences. Not ``whole``: only some steps ran, and nothing is promised."""
    if as_json:
        click.echo(msgspec.json.encode({"type": "adapt-report", **msgspec.to_builtins(report)}).decode())
        return
    click.echo(headline(report, whole=whole))
    for sentence in report.warnings:
        click.echo(f"Note: {sentence}")


def headline(report: AdaptReport, *, whole: bool) -> str:
    """What the report comes to. Nothing is promised of which nothing was proven. Pure."""
    proven = sum(sentence.startswith("Proven:") for sentence in report.changes)
    done = f"{len(report.changes) - proven} changes, {proven} proofs"
    if not whole:
        return f"Done: {done}. Only the named steps were run."
    if not proven:
        return f"No system was made to boot here: {done}."
    return f"The host will boot here: {done}."


def assign(words: tuple[str, ...], point: Point, machine: Machine) -> dict[str, Disk]:
    """``disk1=/dev/sda`` or plain disks in the point's order -> the point's disk names with disks. Pure.

    Raises UsageError, NotFoundError, UnsafeTargetError.
    """
    names = [disk.name for disk in point.body.disks]
    targets: dict[str, Disk] = {}
    for index, word in enumerate(words):
        name, equals, path = word.partition("=")
        if not equals:
            if index >= len(names):
                raise UsageError(f"The point has {len(names)} disks, {len(words)} were named.")
            name, path = names[index], word
        if name not in names:
            raise UsageError(f"The point has no disk '{name}'.", hint=f"Its disks are {', '.join(names)}.")
        targets[name] = find_disk(path, machine)
    return targets


def find_disk(word: str, machine: Machine) -> Disk:
    """The disk of this path (links followed) or id. Raises NotFoundError, UnsafeTargetError."""
    disk = machine.disk(word) or machine.disk(str(Path(word).resolve()))
    if disk is None:
        known = ", ".join(d.path for d in machine.disks if not d.boot_medium) or "none"
        raise NotFoundError(f"This machine has no disk '{word}'.", hint=f"Its disks: {known}.")
    if disk.boot_medium:
        raise UnsafeTargetError(f"{disk.path} is the medium that this system was started from.")
    return disk
