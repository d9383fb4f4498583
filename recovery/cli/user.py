"""``rekindle user``: who may use the server."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from recovery.cli.console import printable
from recovery.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from rekindle_server.state import State

state_option = click.option(
    "--state",
    type=click.Path(path_type=Path),
    required=True,
    envvar="REKINDLE_STATE",
    help="The server's state directory, or the repository it serves. Also by REKINDLE_STATE.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def open_state(path: Path) -> State:
    """The server's state; as root this process becomes the state's owner, or the server could not write it any more.

    Raises NotFoundError, AccessError.
    """
    from rekindle_server.state import State, find_state

    directory = find_state(path)
    if not directory.is_dir():
        raise NotFoundError(f"There is no directory {directory}.", hint="Give the server's with --state.")
    owner = directory.stat()
    if os.geteuid() == 0 and owner.st_uid != 0:
        os.setgroups([])
        os.setgid(owner.st_gid)
        os.setuid(owner.st_uid)
    return State(directory, create=False)


def show(as_json: bool, data: Any, lines: list[str]) -> None:
    """A result, for a program or for a person."""
    click.echo(msgspec.json.encode(data).decode() if as_json else "\n".join(lines))


def when(seconds: float) -> str:
    """A time as people read it, UTC."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))


def read_password(file: str | None) -> str:
    """From a file, from standard input (``-``), or asked twice on the terminal; never from the command line."""
    if file is None:
        if not sys.stdin.isatty():
            raise UsageError("There is no terminal to ask for the password.", hint="Use --password-file FILE, or -.")
        return str(click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text()
    except OSError as error:
        raise NotFoundError(f"The password file {file} cannot be read: {error.strerror}.") from error
    lines = text.splitlines()
    if not lines or not lines[0]:
        raise UsageError("The password file is empty.", hint="The first line is the password.")
    return lines[0]


password_option = click.option(
    "--password-file", metavar="FILE", help="Read the password from the first line of FILE, or of stdin with '-'."
)


@click.group()
def user() -> None:
    """Manage the users of a server. It need not run, and need not be restarted."""


@user.command("add")
@click.argument("name")
@click.option("--role", required=True, type=click.Choice(["capture", "restore", "admin"]))
@click.option(
    "--host", "hosts", multiple=True, metavar="HOST", help="Only this host, or a pattern. Default: all hosts."
)
@password_option
@state_option
@json_option
def add(name: str, role: str, hosts: tuple[str, ...], password_file: str | None, state: Path, as_json: bool) -> None:
    """Add a user: 'capture' stores points and reads none, 'restore' reads and stores nothing, 'admin' may do all."""
    from rekindle_server.policy import as_role
    from rekindle_server.users import Users

    password = read_password(password_file)
    added = Users(open_state(state)).add(name, as_role(role), hosts, password)
    show(as_json, added, [f"User {name} added: role {role}, hosts {', '.join(added.hosts)}."])


@user.command("list")
@state_option
@json_option
def list_users(state: Path, as_json: bool) -> None:
    """List the users."""
    from rekindle_server.users import Users

    users = Users(open_state(state)).list()
    lines = [f"{u.name:<20} {u.role:<8} {', '.join(u.hosts):<30} since {when(u.created)}" for u in users]
    show(as_json, users, lines or ["There are no users."])


@user.command("remove")
@click.argument("name")
@state_option
@json_option
def remove(name: str, state: Path, as_json: bool) -> None:
    """Remove a user; its access ends at once."""
    from rekindle_server.users import Users

    Users(open_state(state)).remove(name)
    show(as_json, {"removed": name}, [f"User {name} removed."])


@user.command("passwd")
@click.argument("name")
@password_option
@state_option
@json_option
def passwd(name: str, password_file: str | None, state: Path, as_json: bool) -> None:
    """Change a user's password; tokens it has end at once."""
    from rekindle_server.users import Users

    password = read_password(password_file)
    Users(open_state(state)).set_password(name, password)
    show(as_json, {"changed": name}, [f"The password of {name} is changed."])


@user.command("audit")
@click.option("--lines", default=50, show_default=True, help="How many entries, the newest last.")
@state_option
@json_option
def audit(lines: int, state: Path, as_json: bool) -> None:
    """Show who logged in, was refused, committed, deleted or changed access."""
    rows = open_state(state).rows("SELECT * FROM audit ORDER BY at DESC LIMIT ?", lines)[::-1]
    texts = [
        f"{when(r['at'])}  {printable(r['actor']) or '-':<16} {r['address']:<16} {r['action']}  {r['detail']}"
        for r in rows
    ]
    show(as_json, [dict(r) for r in rows], texts or ["Nothing was recorded yet."])
