"""Options that every command with a repository shares: where it is, how to log in, how to unlock it.

Secrets come from files or are asked for on the terminal; never from arguments.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from recovery.errors import IntegrityError, RekindleError, UnreachableError, UsageError
from recovery.events import Event, Message
from recovery.repository.attention import RetryTeller
from recovery.repository.failover import NEXT_COPY, with_copies
from recovery.repository.location import Credentials, is_remote, open_store
from recovery.repository.protocols import ObjectStore
from recovery.repository.repository import Repository

F = TypeVar("F", bound=Callable[..., Any])

_SECRET = click.option(
    "--secret-file", type=click.Path(path_type=Path, dir_okay=False),
    help="File with the repository's passphrase or recovery key ('-': stdin). Asked for otherwise.",
)  # fmt: skip
_LOGIN = (
    click.option("--user", default="", help="User of the server."),
    click.option("--password-file", type=click.Path(path_type=Path, dir_okay=False),
                 help="File with the user's password ('-': stdin). Asked for otherwise."),
    click.option("--code-file", type=click.Path(path_type=Path, dir_okay=False),
                 help="File with a one-time code, instead of user and password."),
    click.option("--ca", default="", metavar="FINGERPRINT|FILE",
                 help="Fingerprint or PEM file of the server's CA; the system's CAs otherwise."),
    click.option("--plain-packs", is_flag=True,
                 help="Read packs (they are encrypted) by plain HTTP, if the server offers it: less work for both."),
)  # fmt: skip


def repository_options(function: F) -> F:
    """Add the shared options; the command gets them as keyword arguments and hands them to ``open_repository``."""
    return _SECRET(login_options(function))


def login_options(function: F) -> F:
    """Add those that a command needs which only looks from outside: it hands them to ``read_credentials``."""
    for option in reversed(_LOGIN):
        function = option(function)
    return function


def open_repository(
    location: str,
    *,
    secret_file: Path | None = None,
    user: str = "",
    password_file: Path | None = None,
    code_file: Path | None = None,
    ca: str = "",
    plain_packs: bool = False,
) -> Repository:
    """Log in where that is needed, and unlock. Raises AccessError, NotFoundError, UnreachableError, UsageError."""
    credentials = read_credentials(location, user=user, password_file=password_file, code_file=code_file, ca=ca,
                                   plain_packs=plain_packs)  # fmt: skip
    store = open_store(location, credentials, on_retry=retry_teller())
    return Repository.open(store, read_secret(secret_file, "Passphrase or recovery key of the repository"))


def open_copies(
    locations: Sequence[str],
    *,
    secret_file: Path | None = None,
    user: str = "",
    password_file: Path | None = None,
    code_file: Path | None = None,
    ca: str = "",
    plain_packs: bool = False,
) -> Repository:
    """The first of several copies of a repository, with the others asked for what it lacks; each secret is read once.

    A copy that does not answer, and a first one that is damaged, is left out with a warning on stderr. Raises what
    opening the first raised when none is left, UsageError when one is another repository, NotFoundError.
    """
    if len(locations) == 1:
        return open_repository(
            locations[0], secret_file=secret_file, user=user, password_file=password_file, code_file=code_file, ca=ca,
            plain_packs=plain_packs,
        )  # fmt: skip
    server = next((location for location in locations if is_remote(location)), locations[0])
    credentials = read_credentials(server, user=user, password_file=password_file, code_file=code_file, ca=ca,
                                   plain_packs=plain_packs)  # fmt: skip
    secret = read_secret(secret_file, "Passphrase or recovery key of the repository")
    repository: Repository | None = None
    others: list[ObjectStore] = []
    problems: list[RekindleError] = []
    for location in locations:
        try:
            store = open_store(
                location, credentials if is_remote(location) else None, patience=NEXT_COPY, on_retry=retry_teller()
            )
            if repository is None:
                repository = Repository.open(store, secret)
            else:
                with_copies(repository, [store])
                others.append(store)
        except (UnreachableError, IntegrityError) as error:
            problems.append(error)
            warn(f"{location} is left out: {error.message}")
    if repository is None:
        raise problems[0]
    return with_copies(repository, others, warn)


def retry_teller() -> RetryTeller:
    """Tells on stderr that a server does not answer, until a run with its own events listens."""

    def hear(event: Event) -> None:
        if isinstance(event, Message) and event.level != "debug":
            warn(event.text)

    return RetryTeller(hear, "open")


def warn(text: str) -> None:
    """A warning for people, on stderr."""
    click.echo(f"warning: {text}", err=True)


def read_credentials(
    location: str, *, user: str = "", password_file: Path | None = None, code_file: Path | None = None, ca: str = "",
    plain_packs: bool = False,
) -> Credentials:  # fmt: skip
    """What is needed to log in at ``location``; nothing is asked for a directory."""
    if not is_remote(location):
        if plain_packs:
            raise UsageError(f"--plain-packs is for servers; {location} is none.", hint="Leave it out.")
        return Credentials()
    if code_file is not None:
        return Credentials(code=read_secret(code_file, "One-time code"), ca=ca, plain_packs=plain_packs)
    if not user:
        raise UsageError("The server wants to know who you are.", hint="Give --user NAME, or --code-file FILE.")
    password = read_secret(password_file, f"Password of '{user}'")
    return Credentials(user=user, password=password, ca=ca, plain_packs=plain_packs)


def read_secret(file: Path | None, prompt: str, *, confirm: bool = False) -> str:
    """A secret from a file (its first line), from stdin (``-``), or typed without echo. Raises UsageError."""
    if file is not None:
        try:
            text = sys.stdin.readline() if str(file) == "-" else file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not text"
            raise UsageError(
                f"The secret in '{file}' cannot be read: {why}.", hint="Its first line is the secret; check the path."
            ) from error
        lines = text.splitlines()
        if not lines or not lines[0]:
            raise UsageError(f"'{file}' is empty.", hint="Its first line is the secret.")
        return lines[0]
    if not sys.stdin.isatty():
        raise UsageError(f"{prompt}: there is no terminal to ask on.", hint="Give it in a file; see --help.")
    secret: str = click.prompt(prompt, hide_input=True, confirmation_prompt=confirm, err=True)
    return secret
