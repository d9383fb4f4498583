"""Reach and open a repository: a directory or one of our servers, then its keys."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import msgspec

from recovery.engine.api import Access, Medium, RepositoryInfo
from recovery.engine.identify import trust_of
from recovery.errors import UsageError
from recovery.repository import clock
from recovery.repository.failover import copies_of, location_of, with_copies
from recovery.repository.http import HttpStore, login_code, login_password
from recovery.repository.location import open_store
from recovery.repository.protocols import ObjectStore
from recovery.repository.repository import Repository

log = logging.getLogger("rekindle.engine")

#: Seconds that one request is tried again while the server does not answer.
_PATIENCE = 10.0
MEDIUM = Path("/etc/rekindle/medium.json")


def read_medium(path: Path = MEDIUM) -> Medium:
    """What the medium carries; empty on a workstation. Raises UsageError when the file is damaged."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Medium)
    except FileNotFoundError:
        return Medium()
    except (OSError, msgspec.MsgspecError) as error:
        raise UsageError(
            f"'{path}' can't be read: {error}.", hint="Build the medium anew, or remove the file."
        ) from error


def check_access(access: Access) -> None:
    """Raises UsageError naming what is missing."""
    if bool(access.url) == bool(access.path):
        raise UsageError("Where is the repository?", hint="Give either the server's address or a directory.")
    if access.url and not access.code and not (access.user and access.password):
        raise UsageError("The server wants to know who you are.", hint="Give user and password, or a one-time code.")
    if not access.secret:
        raise UsageError("The repository is locked.", hint="Give its passphrase or its recovery key.")


def _set_clock(lag: float) -> None:
    """On the medium a clock that is wrong is set by the server that was just trusted: filesystems, certificates and
    logs of the restored host bear its times. Elsewhere the clock is not ours to set."""
    if not lag or not MEDIUM.exists():
        return
    try:
        time.clock_settime(time.CLOCK_REALTIME, time.time() + lag)
    except OSError as error:
        log.warning("The clock could not be set: %s.", error.strerror)
    else:
        log.info("The clock was %s, and was set by it.", clock.difference(lag))


def open_repository(access: Access, medium: Medium) -> tuple[Repository, RepositoryInfo]:
    """Authenticate, open and unlock. Raises AccessError, UnreachableError, NotFoundError, UsageError."""
    check_access(access)
    store = _open_store(access, medium)
    repository = Repository.open(store, access.secret)
    hosts = tuple(repository.hosts())
    return repository, RepositoryInfo(id=repository.id, location=access.url or access.path, hosts=hosts)


def open_copy(repository: Repository, access: Access, medium: Medium) -> Repository:
    """``repository`` with one more copy that is asked for what those before it lack; its keys are known already.

    Raises UsageError when it is another repository or one that is asked already, and what ``open_repository`` raises.
    """
    # Any word will do: what the copy is, is proven by the signature of its repo.json.
    check_access(msgspec.structs.replace(access, secret=access.secret or "unlocked already"))
    place = access.url or str(Path(access.path).absolute())
    if place in (str(Path(where).absolute()) if "://" not in where else where for where in locations(repository)):
        raise UsageError(f"{place} is asked already.", hint="Give the location of another copy of the repository.")
    return with_copies(repository, [_open_store(access, medium)])


def locations(repository: Repository) -> tuple[str, ...]:
    """Where its copies are, the one that is asked first at the beginning."""
    return tuple(location_of(copy) for copy in copies_of(repository.store))


def _open_store(access: Access, medium: Medium) -> ObjectStore:
    if access.url:
        trust = trust_of(medium, access.fingerprint)
        if access.code:
            session = login_code(access.url, trust, access.code)
        else:
            session = login_password(access.url, trust, access.user, access.password)
        _set_clock(session.clock_lag)
        # Short, because somebody sits before the window and waits; a restore brings its own patience (``attended``).
        return HttpStore(access.url, trust=trust, tokens=session, patience=_PATIENCE)
    return open_store(access.path)
