"""The repository: an object store and its keys. What capture, restore and the engine see."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Protocol, runtime_checkable

import msgspec

from recovery.errors import BusyError, IntegrityError, NotFoundError, UsageError
from recovery.format import mapcodec
from recovery.format.chunk import DEFAULT_CHUNK_SIZE
from recovery.format.chunkmap import ChunkMap
from recovery.format.journal import Journal
from recovery.format.keys import (
    RepositoryKeys,
    new_master_key,
    wrap_with_passphrase,
    wrap_with_recovery_key,
)
from recovery.format.names import (
    REPOSITORY,
    check_host,
    digest,
    journal_name,
    key_name,
    map_name,
    pack_name,
    parse_name,
    point_name,
)
from recovery.format.pack import Pack
from recovery.format.point import (
    Point,
    PointBody,
    PointHeader,
    PointSummary,
    decode_header,
    decode_point,
    encode_point,
    verify_point,
)
from recovery.repository.identity import (
    RepositoryFile,
    encode_key_file,
    read_repository_file,
    unwrap_master_key,
    verify_repository_file,
)
from recovery.repository.points import choose_point, list_hosts, list_points, newest_at
from recovery.repository.protocols import ObjectReader, ObjectStore


@runtime_checkable
class _Exclusive(Protocol):
    def exclusive(self, host: str) -> AbstractContextManager[None]: ...


class Repository:
    """A repository that was opened with its keys."""

    def __init__(self, store: ObjectStore, file: RepositoryFile, keys: RepositoryKeys) -> None:
        self.store = store
        self.file = file
        self.keys = keys

    @property
    def id(self) -> str:
        """32 hex digits."""
        return self.file.id

    @classmethod
    def create(
        cls, store: ObjectStore, passphrase: str, *, chunk_size: int = DEFAULT_CHUNK_SIZE
    ) -> tuple[Repository, str]:
        """Make a new repository; returns it and its printable recovery key. Raises UsageError when there is one."""
        cls.refuse_existing(store)
        if not passphrase:
            raise UsageError("The passphrase is empty.", hint="It protects every captured disk: choose a long one.")
        master, id = new_master_key(), secrets.token_hex(16)
        keys = RepositoryKeys(master, id)
        file = RepositoryFile(id=id, created=time.time(), chunk_size=chunk_size, public_key=keys.public_key.hex())
        signature = keys.signing_key.sign(file.signed_bytes()).hex()
        file = msgspec.structs.replace(file, signature=signature)
        recovery_file, printable = wrap_with_recovery_key(master)
        for key_file in (wrap_with_passphrase(master, passphrase), recovery_file):
            store.put_if_absent(key_name(key_file.id), encode_key_file(key_file))
        # Last: a repository exists when repo.json does.
        store.put_if_absent(REPOSITORY, msgspec.json.encode(file))
        return cls(store, file, keys), printable

    @staticmethod
    def refuse_existing(store: ObjectStore) -> None:
        """Raises UsageError when there is a repository in ``store``."""
        if store.size(REPOSITORY) is not None:
            raise UsageError(
                "There is a repository already.", hint="Choose another place, or use the one that is there."
            )

    @classmethod
    def open(cls, store: ObjectStore, secret: str) -> Repository:
        """Open with the passphrase or the printable recovery key.

        Raises NotFoundError (no repository there), AccessError (wrong secret), IntegrityError (forged repo.json).
        """
        file = read_repository_file(store)
        keys = RepositoryKeys(unwrap_master_key(store, secret), file.id)
        verify_repository_file(file, keys)
        return cls(store, file, keys)

    def hosts(self) -> list[str]:
        """The names of all hosts with a point, sorted."""
        return list_hosts(self.store)

    def points(self, host: str) -> list[PointSummary]:
        """All points of a host, newest last. Raises NotFoundError for a host without points."""
        found = list_points(self.store, host)
        if not found:
            known = ", ".join(self.hosts()) or "none"
            raise NotFoundError(f"There is no point of host '{host}'.", hint=f"Hosts in this repository: {known}.")
        return found

    def latest(self, host: str) -> PointSummary | None:
        """The newest point of a host, or None."""
        found = list_points(self.store, host)
        return found[-1] if found else None

    def point(self, host: str, point_id: str) -> Point:
        """Read, verify and decrypt a point. ``point_id`` may be a unique prefix (4 characters up), ``latest``, or a
        time (``recovery.when``), which means the newest point at or before it.

        Raises NotFoundError, UsageError (ambiguous), IntegrityError.
        """
        every = self.points(host)
        found = choose_point(every, point_id)
        name = point_name(host, found.created, found.id)
        try:
            point = decode_point(self.keys, read_verified(self.store, name))
        except IntegrityError as error:
            older = next((p.id[:12] for p in reversed(every) if p.created < found.created), "")
            if point_id == "latest" and older:
                raise IntegrityError(
                    f"The newest point of '{host}' cannot be read. {error.message}",
                    hint=f"The point before it is {older}: name it with --point. 'rekindle repo check' tells more.",
                ) from error
            raise
        if point.header.host != host:
            raise IntegrityError(f"The point '{found.id[:12]}' of '{host}' belongs to '{point.header.host}'.")
        return point

    def chunk_map(self, point: Point, disk_name: str) -> ChunkMap:
        """The chunk map that is all there is of a disk of a point, deltas resolved, checked against the signed Merkle
        root.

        Raises NotFoundError (no such disk, or a map is missing), IntegrityError; and UsageError for a disk with
        journals: who reads those (``content.disk_content``) gets its map by ``base_map``.
        """
        if point.header.journal(disk_name) is not None:
            raise UsageError(
                f"'{disk_name}' of this point is a keyframe with journals, which this cannot read.",
                hint="Choose a point of chunks: the one at the beginning of the hour is one.",
            )
        return self.base_map(point, disk_name)

    def base_map(self, point: Point, disk_name: str) -> ChunkMap:
        """The chunk map of a disk of a point, or of the keyframe that its journals lie over, checked against the
        signed Merkle root. Raises NotFoundError, IntegrityError."""
        refs = {ref.disk: ref.map for ref in point.header.maps}
        if disk_name not in refs:
            raise NotFoundError(f"The point has no disk '{disk_name}'.", hint=f"It has: {', '.join(refs)}.")
        map = self.map(refs[disk_name])
        disk = point.disk(disk_name)
        if map.root().hex() != (disk.base_root if point.header.journal(disk_name) else disk.root):
            raise IntegrityError(f"The chunk map of '{disk_name}' is not the one that the point was signed with.")
        return map

    def map(self, name: str) -> ChunkMap:
        """The chunk map object ``name`` (hex) with its chain of parents resolved."""
        chain: list[bytes] = []
        while name:
            data = read_verified(self.store, map_name(name))
            chain.append(data)
            name = mapcodec.map_header(data).parent
            if len(chain) > mapcodec.MAX_DEPTH:
                raise IntegrityError("The chain of chunk maps is longer than it can be.")
        map: ChunkMap | None = None
        while chain:
            map = mapcodec.decode_map(chain.pop(), self.keys, map)
        if map is None:
            raise NotFoundError("A point names no chunk map for a disk.")
        return map

    def put_pack(self, pack: Pack) -> None:
        """Store a pack durably."""
        self.store.put_if_absent(pack_name(pack.name), memoryview(pack.data))

    def put_map(self, data: bytes) -> str:
        """Store a chunk map durably; returns its hex name."""
        name = digest(data)
        self.store.put_if_absent(map_name(name), data)
        return name

    def put_journal(self, host: str, journal: Journal) -> None:
        """Store a journal of one of the host's disks durably."""
        self.store.put_if_absent(journal_name(host, journal.digest), journal.data)

    def at(self, host: str, moment: float) -> PointSummary:
        """The newest point of a host at or before ``moment``, seconds since the epoch. Raises NotFoundError."""
        return newest_at(self.points(host), moment)

    def commit(self, header: PointHeader, body: PointBody, packs: Iterable[bytes] = ()) -> Point:
        """Sign and store the point, last of all. Its time is moved behind the parent's when a clock went back.
        ``packs`` (32 bytes each): those that its maps need beyond the parent's.

        Raises BusyError when another capture of this host came between, or something it needs was pruned meanwhile.
        """
        with self._exclusive(header.host):
            newest = self.latest(header.host)
            if (newest.id if newest else "") != header.parent:
                raise BusyError(
                    f"Another capture of '{header.host}' was finished meanwhile.",
                    hint="Nothing is lost: run the capture again; it will find its data already stored.",
                )
            if newest is not None and header.created <= newest.created:
                header = msgspec.structs.replace(header, created=newest.created + 0.001)
            header = msgspec.structs.replace(header, created=round(header.created, 6))
            self._check_needs(header, packs)
            id, data = encode_point(self.keys, header, body)
            self.store.put_if_absent(point_name(header.host, header.created, id), data)
        return Point(id=id, header=header, body=body)

    def commit_made(self, name: str, data: bytes) -> None:
        """Store a point that was encoded before, under ``name``, if it continues the newest one. Twice is harmless.

        Raises BusyError when another capture of this host came between, IntegrityError when it is no such point.
        """
        header = decode_header(data)
        verify_point(data, self.keys.public_key)
        if name != point_name(header.host, header.created, digest(data)):
            raise IntegrityError(f"'{name}' is not the name of that point.")
        with self._exclusive(header.host):
            newest = self.latest(header.host)
            if newest is not None and newest.id == digest(data):
                return
            if (newest.id if newest else "") != header.parent:
                raise BusyError(f"Another capture of '{header.host}' came between; this point does not continue it.")
            self._check_needs(header, ())
            self.store.put_if_absent(name, data)

    def _check_needs(self, header: PointHeader, packs: Iterable[bytes]) -> None:
        """Under the lock that keeps pruning away. A server does this itself; a bucket is not pruned."""
        if not isinstance(self.store, _Exclusive):
            return
        names = [map_name(ref.map) for ref in header.maps]
        names += [journal_name(header.host, ref.journal) for ref in header.journals]
        for name in (*names, *(pack_name(pack.hex()) for pack in packs)):
            if self.store.size(name) is None:
                raise BusyError(
                    f"'{name}' was pruned while this point was made: it took longer than 'repo prune --grace' allows.",
                    hint="Run the capture again: what is still there is found. Prune with a longer --grace.",
                )

    @contextlib.contextmanager
    def _exclusive(self, host: str) -> Iterator[None]:
        check_host(host)
        # A server does this check itself; a bucket has no locks, and two captures at once are caught by 'repo check'.
        if isinstance(self.store, _Exclusive):
            with self.store.exclusive(host):
                yield
        else:
            yield


def read_verified(store: ObjectReader, name: str) -> bytes:
    """A whole object, its bytes checked against the digest in its name. Raises IntegrityError, NotFoundError."""
    data = store.get(name)
    parsed = parse_name(name)
    if parsed is None or digest(data) != parsed.digest:
        raise IntegrityError(
            f"'{name}' is damaged: its bytes are not those that were stored.",
            hint="'rekindle repo check' tells which points are hurt; a copy of the repository may have it whole.",
        )
    return data
