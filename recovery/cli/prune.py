"""``rekindle repo prune``: remove old points by retention tiers, and what no point needs any more."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from recovery.agent.config import load_retention
from recovery.cli.access import read_secret, warn
from recovery.cli.capture import stop_on_signals
from recovery.cli.code import parse_duration
from recovery.cli.progress import progress_listener
from recovery.errors import NotFoundError, UsageError
from recovery.format.point import Retention
from recovery.repository.deadshare import DeadShare, dead_share
from recovery.repository.identity import read_repository_file
from recovery.repository.points import list_hosts
from recovery.repository.prune import describe, prune
from recovery.repository.references import list_names, read_header
from recovery.repository.repository import Repository
from recovery.repository.store import DirectoryStore, open_local
from recovery.units import format_size

_MINIMUM_GRACE = 3600.0


@click.command("prune")
@click.argument("location")
@click.option("--host", "hosts", multiple=True, metavar="NAME", help="Only points of this host. Repeatable.")
@click.option("--keep-minutes", "minutes", type=click.IntRange(0), default=0, metavar="N",
              help="One point of each of the N newest minutes that have any.")  # fmt: skip
@click.option("--keep-hours", "hours", type=click.IntRange(0), default=0, metavar="N", help="The same of hours.")
@click.option("--keep-days", "days", type=click.IntRange(0), default=0, metavar="N", help="The same of days.")
@click.option("--keep-weeks", "weeks", type=click.IntRange(0), default=0, metavar="N", help="The same of weeks.")
@click.option("--config", type=click.Path(path_type=Path, dir_okay=False),
              help="Take the tiers from the table [retention] of this file, such as an agent.toml.")  # fmt: skip
@click.option("--as-captured", is_flag=True,
              help="Of each host what its agent wishes. Whoever took a host over could wish for little.")  # fmt: skip
@click.option("--grace", default="3d", show_default=True, metavar="TIME",
              help="Packs that nobody needs go so long after that was found: longer than a capture.")  # fmt: skip
@click.option(
    "--exact",
    is_flag=True,
    help="With the passphrase: find more packs that nobody needs, and tell what is dead in the others.",
)
@click.option("--secret-file", type=click.Path(path_type=Path, dir_okay=False),
              help="With --exact: file with the passphrase or recovery key ('-': stdin).")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Only tell what would be removed.")
@click.option("--json", "as_json", is_flag=True, help="Print events and the report as JSON lines.")
def prune_command(
    location: str, hosts: tuple[str, ...], minutes: int, hours: int, days: int, weeks: int, config: Path | None,
    as_captured: bool, grace: str, exact: bool, secret_file: Path | None, dry_run: bool, as_json: bool,
) -> None:  # fmt: skip
    """Remove points of the repository in the directory LOCATION that no tier keeps, then what no point needs.

    Runs where the repository is stored, also while captures and restores run, and needs no passphrase. Packs that
    nobody needs are marked first and deleted by a later run: let it run daily.

    \b
    Exit codes: 5 a damaged object hides what is needed, and nothing but points was removed; 6 another prune runs.
    """
    if "://" in location:
        raise UsageError(
            "Pruning works where the repository is stored.", hint="Run it on the server, on the directory."
        )
    store = open_local(Path(location))
    given = Retention(minutes=minutes, hours=hours, days=days, weeks=weeks)
    if (given != Retention()) + (config is not None) + as_captured != 1:
        raise UsageError(
            "Which points are to be kept?", hint="Give --keep-minutes ... --keep-weeks, or --config, or --as-captured."
        )
    seconds = parse_duration(grace)
    if seconds < _MINIMUM_GRACE:
        raise UsageError(f"A grace of {grace} is too short.", hint="It must be longer than any capture takes: days.")
    known = list_hosts(store)
    for host in hosts:
        if host not in known:
            raise NotFoundError(f"There is no point of host '{host}'.", hint=f"Hosts: {', '.join(known) or 'none'}.")
    chosen = hosts or tuple(known)
    if as_captured:
        tiers = _wishes(store, chosen)
    else:
        tiers = dict.fromkeys(chosen, load_retention(config) if config else given)
    repository: Repository | None = None
    if exact:
        secret = read_secret(secret_file, "Passphrase or recovery key of the repository")
        repository = Repository.open(store, secret)
    with stop_on_signals() as cancel, progress_listener(as_json=as_json) as listener:
        report = prune(
            store, tiers, grace=seconds, exact=repository, dry_run=dry_run, listener=listener, cancel=cancel
        )
    dead = dead_share(repository) if repository else None
    if as_json:
        told = {"type": "prune-report", **msgspec.to_builtins(report)}
        told["dead"] = {**msgspec.to_builtins(dead), "share": dead.share} if dead else None
        click.echo(msgspec.json.encode(told))
        return
    for line in describe(report):
        click.echo(line)
    click.echo(_dead_words(dead))


def _dead_words(dead: DeadShare | None) -> str:
    if dead is None:
        return "How much of these packs is dead is told with --exact; packs go only as a whole."
    return (
        f"dead: {format_size(dead.dead)} of {format_size(dead.stored)} ({dead.share:.1%}), in {dead.partly} of "
        f"{dead.packs} packs that are needed; packs go only as a whole."
    )


def _wishes(store: DirectoryStore, hosts: tuple[str, ...]) -> dict[str, Retention]:
    """What the newest point of each host says. A host whose point says nothing keeps all."""
    key = bytes.fromhex(read_repository_file(store).public_key)
    newest = {name.host: name for name in list_names(store)}
    tiers: dict[str, Retention] = {}
    for host in hosts:
        wish = read_header(store, newest[host], key).retention
        if wish is None or wish == Retention():
            warn(f"the agent of '{host}' wishes nothing: all its points are kept")
        else:
            tiers[host] = wish
    return tiers
