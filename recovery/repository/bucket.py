"""Objects in a bucket (S3 and compatible, or memory in tests): an ObjectStore over obstore."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError

from recovery.errors import AccessError, BusyError, IntegrityError, NotFoundError, UnreachableError
from recovery.format.names import parse_name
from recovery.repository.protocols import ObjectInfo


class BucketStore:
    """An ObjectStore over any obstore store (S3 and compatible, or memory in tests)."""

    #: Far stores give little to each connection. See ``failover.first_readers``.
    readers = 8

    def __init__(self, store: Any, location: str) -> None:
        self.location = location
        self._store = store

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """All objects below the folder ``prefix``, sorted by name."""
        with self._errors(prefix):
            batches = obstore.list(self._store, prefix.rstrip("/") or None)
            found = [ObjectInfo(o["path"], o["size"]) for batch in batches for o in batch]
        yield from sorted(found, key=lambda info: info.name)

    def size(self, name: str) -> int | None:
        """The object's size, or None when there is no such object."""
        try:
            with self._errors(name):
                return int(obstore.head(self._store, name)["size"])
        except NotFoundError:
            return None

    def get(self, name: str) -> bytes:
        """The whole object."""
        with self._errors(name):
            return bytes(obstore.get(self._store, name).bytes())

    def read_into(self, name: str, offset: int, buffer: memoryview) -> None:
        """Fill ``buffer`` from ``offset``."""
        with self._errors(name):
            data = obstore.get_range(self._store, name, start=offset, length=len(buffer))
        if len(data) != len(buffer):
            raise short_object(name)
        buffer[:] = memoryview(data).cast("B")

    def put_if_absent(self, name: str, data: bytes | bytearray | memoryview) -> bool:
        """Store; see ObjectStore."""
        try:
            with self._errors(name):
                obstore.put(self._store, name, bytes(data), mode="create")
            return True
        except AlreadyExistsError:
            return self._settle_existing(name, data)

    def _settle_existing(self, name: str, data: bytes | bytearray | memoryview) -> bool:
        if self.get(name) == data:
            return False
        refuse_other_bytes(name)
        # A name is the digest of its bytes, and the caller's bytes have it: what is stored was damaged. Heal it.
        with self._errors(name):
            obstore.put(self._store, name, bytes(data), mode="overwrite")
        return True

    def delete(self, name: str) -> None:
        """Remove an object."""
        if self.size(name) is None:
            raise NotFoundError(f"There is no object '{name}' in {self.location}.")
        with self._errors(name):
            obstore.delete(self._store, name)

    @contextlib.contextmanager
    def _errors(self, name: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise NotFoundError(f"There is no object '{name}' in {self.location}.") from error
        except AlreadyExistsError:
            raise
        except PermissionError as error:
            raise AccessError(f"'{name}' in {self.location} may not be read or written.") from error
        except BaseError as error:
            raise UnreachableError(
                f"The storage at {self.location} does not answer for '{name}': {str(error).splitlines()[0]}",
                hint="Check the address, the network and the credentials of the storage.",
            ) from error


def refuse_other_bytes(name: str) -> None:
    """Names that are no digests of their bytes are never overwritten. Raises BusyError."""
    parsed = parse_name(name)
    if parsed is None or parsed.kind in ("repository", "key"):
        raise BusyError(f"'{name}' exists already with other content.", hint="Objects are never overwritten.")


def short_object(name: str) -> IntegrityError:
    """The error for an object that ends too early."""
    return IntegrityError(
        f"'{name}' is shorter than it should be: it was cut after it was written.",
        hint="'rekindle repo check' tells which points it hurts; a copy of the repository may have it whole.",
    )
