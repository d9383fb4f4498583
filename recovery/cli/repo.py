"""``rekindle repo``: create, describe and check a repository."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import msgspec

from recovery.cli.access import login_options, open_repository, read_credentials, read_secret, repository_options
from recovery.cli.console import PlainConsole
from recovery.cli.progress import progress_listener
from recovery.cli.prune import prune_command
from recovery.errors import IntegrityError, UsageError
from recovery.format.chunk import DEFAULT_CHUNK_SIZE, MAX_CHUNK_SIZE, MIN_CHUNK_SIZE
from recovery.repository.check import CheckReport, check
from recovery.repository.distrust import distrust
from recovery.repository.identity import read_repository_file
from recovery.repository.location import is_remote, open_store
from recovery.repository.points import list_hosts, list_points
from recovery.repository.repository import Repository
from recovery.units import format_count, format_duration, format_size, parse_size

#: As for a user's password; whoever has a copy of the repository can try passphrases without anybody's notice.
MIN_PASSPHRASE = 10


@click.group()
def repo() -> None:
    """Create, describe, check and prune a repository."""


repo.add_command(prune_command)


@repo.command()
@click.argument("location")
@click.option("--passphrase-file", type=click.Path(path_type=Path, dir_okay=False),
              help="File with the new passphrase ('-': stdin). Asked for twice otherwise.")  # fmt: skip
@click.option("--recovery-key-file", type=click.Path(path_type=Path, dir_okay=False),
              help="Write the printable recovery key to this new file instead of showing it.")  # fmt: skip
@click.option("--chunk-size", default=str(DEFAULT_CHUNK_SIZE), help="256KiB to 4MiB, a power of two; 1MiB by default.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def init(
    location: str, passphrase_file: Path | None, recovery_key_file: Path | None, chunk_size: str, as_json: bool
) -> None:
    """Create a repository in the directory LOCATION."""
    size = parse_size(chunk_size)
    if not MIN_CHUNK_SIZE <= size <= MAX_CHUNK_SIZE or size & (size - 1):
        raise UsageError(f"A chunk size of {chunk_size} is not possible.", hint="256KiB, 512KiB, 1MiB, 2MiB or 4MiB.")
    if is_remote(location):
        raise UsageError(
            "A repository is created where it is stored.",
            hint="Run 'rekindle repo init DIRECTORY' on the server, then 'rekindle serve DIRECTORY'.",
        )
    if recovery_key_file is not None and recovery_key_file.exists():
        raise UsageError(f"'{recovery_key_file}' exists already.", hint="Nothing is overwritten: give another name.")
    store = open_store(location, create=True)
    Repository.refuse_existing(store)  # before a person has thought of a passphrase
    passphrase = read_secret(passphrase_file, "New passphrase of the repository", confirm=True)
    if len(passphrase) < MIN_PASSPHRASE:
        raise UsageError(
            f"The passphrase is too short: {len(passphrase)} characters.",
            hint=f"It protects every captured disk: at least {MIN_PASSPHRASE}, better five words drawn by chance.",
        )
    repository, printable = Repository.create(store, passphrase, chunk_size=size)
    if recovery_key_file is not None:
        recovery_key_file.touch(mode=0o600)
        recovery_key_file.write_text(printable + "\n", encoding="ascii")
    if as_json:
        shown = {} if recovery_key_file else {"recovery_key": printable}
        click.echo(msgspec.json.encode({"type": "repository", "id": repository.id, "location": location, **shown}))
        return
    click.echo(f"Created repository {repository.id} in {location}.")
    if recovery_key_file is not None:
        click.echo(f"The recovery key is in {recovery_key_file}: print it, then keep it away from this machine.")
    else:
        click.echo(f"\n  Recovery key:  {printable}\n")
        click.echo(
            "Print it and keep it in a safe. It opens the repository when the passphrase is lost, and is shown once."
        )


@repo.command()
@click.argument("location")
@login_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def info(location: str, as_json: bool, **access: Any) -> None:
    """Describe the repository at LOCATION: parameters, hosts, points, what it holds. Needs no passphrase."""
    store = open_store(location, read_credentials(location, **access))
    file = read_repository_file(store)
    hosts = {host: len(list_points(store, host)) for host in list_hosts(store)}
    packs = list(store.list("packs/"))
    stored = sum(pack.size for pack in packs)
    if as_json:
        facts = {"type": "repository", "id": file.id, "version": file.version, "created": file.created,
                 "chunk_size": file.chunk_size, "hosts": hosts, "packs": len(packs), "stored": stored}  # fmt: skip
        click.echo(msgspec.json.encode(facts))
        return
    click.echo(f"Repository {file.id} (format {file.version}), chunks of {format_size(file.chunk_size)}")
    click.echo(f"Cipher {file.cipher}, ids {file.hash}, compression {file.compression}")
    click.echo(f"{format_count(len(packs), 'pack')}, {format_size(stored)} stored")
    for host, count in hosts.items():
        click.echo(f"  {host}: {format_count(count, 'recovery point')}")


@repo.command("check")
@click.argument("location")
@repository_options
@click.option("--read-data", is_flag=True, help="Read and decode every byte of every pack and journal.")
@click.option("--distrust", "mark", is_flag=True,
              help="Mark damaged packs, so that the next captures send their content again.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print events and the report as JSON lines.")
def check_command(location: str, read_data: bool, mark: bool, as_json: bool, **access: Any) -> None:
    """Check every point of the repository at LOCATION. Exit code 5 when anything is damaged."""
    if mark and is_remote(location):
        raise UsageError("--distrust works where the repository is stored.", hint="Run it on the server.")
    repository = open_repository(location, **access)
    with progress_listener(as_json=as_json) as listener:
        report = check(repository, read_data=read_data, listener=listener)
    if mark:
        distrust(repository.store, report.damaged_packs())
    if as_json:
        click.echo(msgspec.json.encode({"type": "check-report", "ok": report.ok, **msgspec.to_builtins(report)}))
    else:
        _show(report)
    if not report.ok:
        raise IntegrityError(
            f"{format_count(len(report.damages), 'object')} of the repository damaged.",
            hint="Points that are not named are whole. Copy the named objects from another copy of the repository"
            + _next_captures(report, mark),
        )


def _next_captures(report: CheckReport, marked: bool) -> str:
    if not report.damaged_packs():
        return "."
    if marked:
        return ". The damaged packs are marked: capture the hosts again, and what was in them is stored anew."
    return (
        ", or run this check with --distrust on the server and capture the hosts again: what was in the damaged packs "
        "is stored anew then. Without it new points would go on to refer to them."
    )


def _show(report: CheckReport) -> None:
    console = PlainConsole()
    depth = "every byte was read and decoded" if report.read_data else "contents of packs were not read (--read-data)"
    counts = f"{report.points} points, {report.maps} chunk maps, {report.journals} journals, {report.packs} packs"
    console.print(f"{counts} in {format_duration(report.seconds)}: {depth}")
    if report.spare:
        console.print(f"{len(report.spare)} objects belong to no point (of an interrupted capture, or to be pruned).")
    for damage in report.damages:
        console.print("damaged ", style="red", end=" ")
        console.print(f"{damage.object}: {damage.what}", soft_wrap=True)
        for user in damage.hurts:
            console.print(f"         hurts {user}", highlight=False, soft_wrap=True)
    if report.ok:
        console.print("All is well.", style="green")
