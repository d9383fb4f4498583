"""From what a person writes for a repository's place to an object store: a directory, ``https://...``, ``s3://...``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import msgspec
from obstore.exceptions import BaseError
from obstore.store import from_url

from recovery.errors import UsageError
from recovery.repository.attention import DEFAULT_PATIENCE, RetryListener
from recovery.repository.bucket import BucketStore
from recovery.repository.index import SqliteIndex, index_path
from recovery.repository.protocols import ChunkIndex, ObjectStore
from recovery.repository.store import open_local

if TYPE_CHECKING:
    from recovery.repository.repository import Repository


class Credentials(msgspec.Struct, frozen=True, kw_only=True):
    """How to reach a server: user and password, or a one-time code; ``ca`` is the fingerprint of the server's
    CA (hex SHA-256, colons allowed) or the path of a PEM file, empty for the system's CAs. ``plain_packs``: read
    packs, which are encrypted, by plain HTTP."""

    user: str = ""
    password: str = ""
    code: str = ""
    ca: str = ""
    plain_packs: bool = False


@runtime_checkable
class _Indexed(Protocol):
    """A store that knows what is in its packs."""

    def chunk_index(self) -> ChunkIndex: ...


def is_remote(location: str) -> bool:
    """Whether the location is one of our servers."""
    return location.startswith(("https://", "http://"))


def open_store(
    location: str,
    credentials: Credentials | None = None,
    *,
    create: bool = False,
    patience: float = DEFAULT_PATIENCE,
    on_retry: RetryListener | None = None,
) -> ObjectStore:
    """The object store at ``location``.

    Raises NotFoundError, AccessError, UnreachableError, UsageError. ``create`` makes the directory; ``patience`` is
    how many seconds a server may stay silent, and ``on_retry`` is told of that.
    """
    if is_remote(location):
        # Here: what speaks HTTP takes a third of the time that starting the program takes.
        from recovery.repository.http import connect

        return connect(location, credentials or Credentials(), patience=patience, on_retry=on_retry)
    if location.startswith("s3://"):
        try:
            return BucketStore(from_url(location), location)
        except (BaseError, ValueError) as error:
            raise UsageError(
                f"'{location}' cannot be used: {str(error).splitlines()[0]}",
                hint="Write s3://BUCKET/PREFIX; credentials and region come from the AWS_* environment variables.",
            ) from error
    if "://" in location:
        raise UsageError(
            f"'{location}' is not a place that Rekindle knows.",
            hint="Give a directory, https://SERVER:PORT or s3://BUCKET/PREFIX.",
        )
    return open_local(Path(location), create=create)


def open_index(repository: Repository) -> ChunkIndex:
    """Who answers which chunks the repository holds: the server, or a local cache brought up to date."""
    if isinstance(repository.store, _Indexed):
        return repository.store.chunk_index()
    index = SqliteIndex(index_path(repository.id))
    index.refresh(repository.store)
    return index
