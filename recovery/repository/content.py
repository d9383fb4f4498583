"""What a disk of a point consists of: a chunk map, and with journals what lies over it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import msgspec

from recovery.errors import IntegrityError, NotFoundError, RekindleError
from recovery.format.chunk import FrameDecoder
from recovery.format.chunkmap import ChunkMap, MapEntry
from recovery.format.journalhead import JournalHead, decode_head
from recovery.format.names import journal_name, pack_name
from recovery.format.overlay import NOWHERE, Overlay
from recovery.format.point import Point
from recovery.repository.failover import FailoverStore, copies_of
from recovery.repository.protocols import ObjectReader
from recovery.repository.repository import Repository

#: Heads are read so many at once: 60 of them over 30 ms would take 2 s one by one.
_READERS = 8


class DiskContent(msgspec.Struct, frozen=True):
    """A disk of a point: ``overlay`` is None when ``map`` is all there is of it."""

    map: ChunkMap
    overlay: Overlay | None = None

    def stored(self, index: int) -> bool:
        """Whether anything has to be read for chunk ``index``; else it is zeros."""
        if isinstance(self.map.get(index), MapEntry):
            return True
        return self.overlay is not None and bool(self.overlay.compose(index).parts)


def disk_content(repository: Repository, point: Point, disk_name: str) -> DiskContent:
    """The map and the journals of a disk, checked against the root that the point was signed with.

    Raises NotFoundError (no such disk, a map or a journal is missing), IntegrityError.
    """
    reference = point.header.journal(disk_name)
    if reference is None:
        return DiskContent(repository.chunk_map(point, disk_name))
    map = repository.base_map(point, disk_name)
    host = point.header.host
    newest = read_head(repository, journal_name(host, reference.journal), reference.head)
    chain = [(journal_name(host, entry.digest.hex()), entry.head) for entry in newest.chain]
    with ThreadPoolExecutor(_READERS) as pool:
        older = list(pool.map(lambda item: read_head(repository, *item), chain))
    names = [*(name for name, _ in chain), journal_name(host, reference.journal)]
    overlay = Overlay(map, [*older, newest], names)
    base = next(ref.map for ref in point.header.maps if ref.disk == disk_name)
    for head in overlay.heads:
        if (head.header.host, head.header.disk, head.header.base) != (host, disk_name, base):
            raise IntegrityError(f"A journal of '{disk_name}' belongs to another disk, host or keyframe.")
    if overlay.root().hex() != point.disk(disk_name).root:
        raise IntegrityError(f"The journals of '{disk_name}' are not those that the point was signed with.")
    return DiskContent(map, overlay)


class ChunkReader:
    """Single chunks of a disk of any point, decoded, checked, journals laid over. Not for two threads at once.

    For looking at a few places: a restore reads in another order (``recovery.restore``).
    """

    def __init__(self, repository: Repository, content: DiskContent, disk: str) -> None:
        self._repository, self._content, self._disk = repository, content, disk
        self._decoder = FrameDecoder(repository.keys)

    def chunk(self, index: int) -> bytes | None:
        """The content of chunk ``index``; None when nothing of it is stored: it is zeros. A copy of the repository
        that has it damaged is passed over. Raises IntegrityError when none has it right, UnreachableError."""
        map, overlay = self._content.map, self._content.overlay
        composed = overlay.compose(index) if overlay is not None else None
        entry = map.get(index)
        if not isinstance(entry, MapEntry) and not (composed and composed.parts):
            return None
        plain = bytearray(map.length(index))
        where = f"{self._disk} at byte {index * map.chunk_size}"
        if isinstance(entry, MapEntry) and not (composed and composed.whole):
            name = pack_name(entry.pack.hex())
            plain = self._frame(name, entry.id, entry.offset, entry.length, len(plain), where)
        for part in composed.parts if composed else ():
            if part.journal == NOWHERE or overlay is None:
                plain[part.at : part.at + part.length] = bytes(part.length)
                continue
            id, offset, length, plain_length = overlay.heads[part.journal].frames[part.frame]
            data = self._frame(overlay.names[part.journal], id, offset, length, plain_length, where)
            plain[part.at : part.at + part.length] = data[part.start : part.start + part.length]
        return bytes(plain)

    def _frame(self, name: str, id: bytes, offset: int, length: int, plain_length: int, where: str) -> bytearray:
        frame, plain = bytearray(length), bytearray(plain_length)

        def read(copy: ObjectReader) -> bytearray:
            getattr(copy, "surest", copy).read_into(name, offset, memoryview(frame))
            if self._decoder.decode_into(memoryview(frame), id, memoryview(plain)) != plain_length:
                raise IntegrityError(f"'{name}' has other content than its place says.")
            return plain

        store = self._repository.store
        try:
            # With several copies, one that does not answer is asked last from then on.
            return store.first(name, read) if isinstance(store, FailoverStore) else read(store)
        except (IntegrityError, NotFoundError) as problem:
            raise IntegrityError(
                f"No copy of the repository has the content of {where}.",
                hint="Choose another point, or give another copy of the repository with --also.",
            ) from problem


def read_head(repository: Repository, name: str, length: int) -> JournalHead:
    """The head of a journal, from the first copy of the repository that has it undamaged.

    Raises what the first copy said when none has: NotFoundError, IntegrityError, UnreachableError.
    """
    problem: RekindleError | None = None
    for copy in copies_of(repository.store):
        buffer = bytearray(length)
        try:
            copy.read_into(name, 0, memoryview(buffer))
            head = decode_head(buffer, repository.keys)
            if head.length != length:
                raise IntegrityError(f"'{name}' has another head than its point says.")
            return head
        except RekindleError as error:
            problem = problem or error
    if problem is None:
        raise NotFoundError(f"There is no journal '{name}'.")
    if isinstance(problem, IntegrityError):
        raise IntegrityError(
            f"'{name}': {problem.message}",
            hint="Choose a point before that minute; 'rekindle repo check' tells which points are hurt.",
        ) from problem
    raise problem
