"""The narrow interfaces of the room.

An ``ObjectStore`` keeps named immutable bytes; a directory, an S3 bucket, a USB disk and our HTTP server are the same
to everything above it. Caches, retries, failover and rate limits are ObjectReaders that wrap an ObjectReader.
``Reader`` and ``Writer`` are the repository with its keys: what restore and capture see.

Object names (docs/format.md, "Objects"): ``repo.json``, ``keys/<id>.json``, ``packs/<aa>/<name>``, ``maps/<name>``,
``points/<host>/<created>-<id>``; ``<name>`` is the hex BLAKE3-256 of the object's bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import msgspec

from recovery.format.point import Point, PointBody, PointHeader, PointSummary


class ObjectInfo(msgspec.Struct, frozen=True):
    """An object's name and its size in bytes."""

    name: str
    size: int


class Part(NamedTuple):
    """``length`` bytes from ``offset`` of the object ``name``."""

    name: str
    offset: int
    length: int


class ObjectReader(Protocol):
    """Read access to objects. Methods may be called from many threads at once."""

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """All objects whose name starts with ``prefix`` (a folder ending in ``/``), sorted by name."""

    def size(self, name: str) -> int | None:
        """The object's size, or None when there is no such object."""

    def get(self, name: str) -> bytes:
        """The whole object. Raises NotFoundError, UnreachableError, AccessError."""

    def read_into(self, name: str, offset: int, buffer: memoryview) -> None:
        """Fill ``buffer`` from ``offset``. Raises IntegrityError when the object ends before, else as get()."""


@runtime_checkable
class PartsReader(Protocol):
    """An ObjectReader that gets many small parts in one request. See ``parts.read_parts``."""

    def read_parts(self, parts: Sequence[Part], buffer: memoryview) -> None:
        """Fill ``buffer``, which is as long as all ``parts``, with them one after another. Raises as read_into()."""


class ObjectStore(ObjectReader, Protocol):
    """Read and write access."""

    def put_if_absent(self, name: str, data: bytes | memoryview) -> bool:
        """Store durably (fsync before it returns). False when the name existed with these bytes already.

        Raises SpaceError when there is no room, BusyError when the name exists with other bytes, AccessError.
        """

    def delete(self, name: str) -> None:
        """Remove an object (repair and pruning only). Raises NotFoundError, AccessError."""


class ChunkLocation(msgspec.Struct, frozen=True):
    """Where a chunk's frame lies: pack (32 bytes), offset and length of the whole frame in it."""

    pack: bytes
    offset: int
    length: int


class ChunkIndex(Protocol):
    """Answers which chunks the repository holds. Rebuildable: the packs' footers are the truth."""

    def lookup(self, ids: Sequence[bytes]) -> list[ChunkLocation | None]:
        """The location of each chunk id (32 bytes each), or None, in the order asked."""

    def add(self, ids: Sequence[bytes], locations: Sequence[ChunkLocation]) -> None:
        """Remember chunks that were just stored."""


class Reader(Protocol):
    """What restore needs. Implemented by ``recovery.repository.repository.Repository``."""

    def hosts(self) -> list[str]: ...

    def points(self, host: str) -> list[PointSummary]:
        """Newest last. Raises NotFoundError for a host without points."""

    def point(self, host: str, point_id: str) -> Point:
        """Read, verify and decrypt; ``point_id`` may be a unique prefix of at least 4 characters or ``latest``."""


class Writer(Protocol):
    """What capture needs besides an ObjectStore and a ChunkIndex."""

    def commit(self, header: PointHeader, body: PointBody) -> Point:
        """Sign and store the point, last of all. Raises BusyError when another capture of this host came between."""
