"""Is every point of a repository whole? Names each damaged object, and the hosts, points and disks that it hurts.

Without ``read_data`` it reads points, maps and the footers of packs; with it every byte of every pack is hashed and
every chunk decrypted, decompressed and hashed again.
"""

from __future__ import annotations

import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TypeVar

import msgspec

from recovery.errors import CancelledError, IntegrityError, NotFoundError
from recovery.events import Listener, Message, Progress, StepFinished, StepStarted, ignore
from recovery.format import chunk
from recovery.format.chunkmap import ChunkMap
from recovery.format.mapcodec import MAX_DEPTH, map_header
from recovery.format.names import digest, map_name, pack_name, parse_name
from recovery.format.pack import PackEntry, rebuild_footer
from recovery.format.point import Point, decode_header, decode_point
from recovery.repository.check_journals import JournalCheck
from recovery.repository.identity import decode_key_file, read_repository_file, verify_repository_file
from recovery.repository.index import read_pack_footer
from recovery.repository.repository import Repository, read_verified
from recovery.units import RateMeter

T = TypeVar("T")


class Damage(msgspec.Struct, frozen=True, kw_only=True):
    """A damaged or missing object. ``hurts`` names what needs it: ``host point disk``, one string each."""

    object: str
    what: str
    hurts: tuple[str, ...] = ()


class CheckReport(msgspec.Struct, kw_only=True):
    """What was looked at and what was found. ``spare`` objects belong to no point (left by an interrupted
    capture)."""

    points: int = 0
    maps: int = 0
    journals: int = 0
    packs: int = 0
    chunks: int = 0
    bytes_read: int = 0
    seconds: float = 0.0
    read_data: bool = False
    damages: list[Damage] = []
    spare: list[str] = []

    @property
    def ok(self) -> bool:
        """Nothing is damaged."""
        return not self.damages

    def damaged_packs(self) -> list[str]:
        """The hex digests of the packs that are damaged; those that are missing are among them."""
        names = (parse_name(damage.object) for damage in self.damages)
        return [name.digest for name in names if name is not None and name.kind == "pack"]


def check(
    repository: Repository,
    *,
    read_data: bool = False,
    listener: Listener = ignore,
    cancel: threading.Event | None = None,
) -> CheckReport:
    """Check the whole repository. Damage is in the report; raises only when the store does not answer."""
    return _Check(repository, read_data, listener, cancel or threading.Event()).run()


class _Check:
    def __init__(self, repository: Repository, read_data: bool, listener: Listener, cancel: threading.Event) -> None:
        self.repository = repository
        self.store = repository.store
        self.listener = listener
        self.cancel = cancel
        self.report = CheckReport(read_data=read_data, damages=[], spare=[])
        self.faults: dict[str, str] = {}
        #: Who needs an object: object name -> "host point disk".
        self.users: dict[str, set[str]] = defaultdict(set)
        #: What maps expect of a pack: pack -> {(id, offset, length)}.
        self.expected: dict[bytes, set[tuple[bytes, int, int]]] = defaultdict(set)
        #: map object -> its parent's hex name.
        self.parents: dict[str, str] = {}
        self._local = threading.local()

    def run(self) -> CheckReport:
        start = time.monotonic()
        self._step("keys", self._keys)
        points = self._step("points", self._points)
        self._step("maps", lambda: self._maps(points))
        self._step("journals", lambda: self._journals(points))
        self._step("packs", self._packs)
        self.report.damages = [
            Damage(object=name, what=what, hurts=tuple(sorted(self.users.get(name, ()))))
            for name, what in sorted(self.faults.items())
        ]
        if any(name.startswith("points/") for name in self.faults):
            # Whose they are stands in a point that cannot be read.
            self.report.spare = []
        self.report.seconds = time.monotonic() - start
        return self.report

    def _step(self, name: str, action: Callable[[], T]) -> T:
        self.listener(StepStarted(step=name, title=f"Checking {name}"))
        begin = time.monotonic()
        result = action()
        self.listener(StepFinished(step=name, seconds=time.monotonic() - begin))
        return result

    def _damaged(self, object: str, what: str) -> None:
        if object not in self.faults:
            self.faults[object] = what
            self.listener(Message(level="error", text=f"{object}: {what}"))

    def _keys(self) -> None:
        try:
            verify_repository_file(read_repository_file(self.store), self.repository.keys)
        except (IntegrityError, NotFoundError) as error:
            self._damaged("repo.json", error.message)
        for info in self.store.list("keys/"):
            try:
                decode_key_file(self.store.get(info.name))
            except IntegrityError as error:
                self._damaged(info.name, error.message)

    def _points(self) -> list[Point]:
        points = []
        parents: dict[str, dict[str, str]] = defaultdict(dict)
        for info in self.store.list("points/"):
            parsed = parse_name(info.name)
            if parsed is None:
                self._damaged(info.name, "it is not the name of a recovery point")
                continue
            user = f"{parsed.host} {parsed.digest[:12]}"
            self.users[info.name].add(user)
            try:
                data = self.store.get(info.name)
                if digest(data) != parsed.digest:
                    raise IntegrityError("its bytes are not those that were stored")
                point = decode_point(self.repository.keys, data)
                if point.header.host != parsed.host or round(point.header.created * 1e6) != parsed.created:
                    raise IntegrityError("it was renamed: host or time in its name are not its own")
            except IntegrityError as error:
                self._damaged(info.name, error.message)
                continue
            parent = decode_header(data).parent
            if parent and parent in parents[parsed.host]:
                other = parents[parsed.host][parent][:12]
                self.listener(Message(level="warning", text=f"{user} and {other} follow the same point"))
            parents[parsed.host][parent] = parsed.digest
            points.append(point)
        self.report.points = len(points)
        return points

    def _maps(self, points: list[Point]) -> None:
        seen: dict[str, ChunkMap | None] = {}
        for point in points:
            for ref in point.header.maps:
                user = f"{point.header.host} {point.id[:12]} {ref.disk}"
                chain = self._chain(ref.map, user)
                if ref.map not in seen:
                    seen[ref.map] = self._read_map(ref.map, chain)
                map = seen[ref.map]
                if map is None:
                    continue
                disk = point.disk(ref.disk)
                wanted = disk.base_root if point.header.journal(ref.disk) else disk.root
                if map.root().hex() != wanted:
                    self._damaged(map_name(ref.map), "its Merkle root is not the one that the point was signed with")
                for _, entry in map.blobs():
                    self.expected[entry.pack].add((entry.id, entry.offset, entry.length))
                for pack in map.used_packs():
                    self.users[pack_name(pack.hex())].add(user)
        self.report.maps = len(seen)
        for info in self.store.list("maps/"):
            if info.name not in self.users:
                self.report.spare.append(info.name)
                self._verify_bytes(info.name)

    def _journals(self, points: list[Point]) -> None:
        found = JournalCheck(self.repository, read_data=self.report.read_data, cancel=self.cancel).run(points)
        for name, users in found.users.items():
            self.users[name] |= users
        for name, what in found.faults.items():
            self._damaged(name, what)
        self.report.journals = found.count
        self.report.bytes_read += found.bytes_read
        self.report.spare += found.spare

    def _chain(self, name: str, user: str) -> list[str]:
        """The object names of a map and its parents, each marked as needed by ``user`` and its bytes verified once."""
        chain: list[str] = []
        while name and len(chain) <= MAX_DEPTH:
            object = map_name(name)
            self.users[object].add(user)
            chain.append(object)
            if object not in self.parents:
                self.parents[object] = self._verify_bytes(object)
            name = self.parents[object]
        return chain

    def _verify_bytes(self, object: str) -> str:
        """Check a map's digest; returns its parent's hex name, empty when there is none or it cannot be read."""
        try:
            return map_header(read_verified(self.store, object)).parent
        except (IntegrityError, NotFoundError) as error:
            self._damaged(object, error.message)
            return ""

    def _read_map(self, name: str, chain: list[str]) -> ChunkMap | None:
        if any(object in self.faults for object in chain):
            return None
        try:
            return self.repository.map(name)
        except (IntegrityError, NotFoundError) as error:
            self._damaged(map_name(name), error.message)
            return None

    def _packs(self) -> None:
        present = {info.name: info.size for info in self.store.list("packs/")}
        for pack in self.expected:
            if pack_name(pack.hex()) not in present:
                self._damaged(pack_name(pack.hex()), "it is missing")
        total, done, meter, lock = sum(present.values()), 0, RateMeter(), threading.Lock()
        names = iter(sorted(present))

        def one(name: str) -> None:
            nonlocal done
            if self.cancel.is_set():
                raise CancelledError("The check was stopped.")
            damages = list(self._pack(name, present[name]))
            with lock:
                for what in damages:
                    self._damaged(name, what)
                done += present[name]
                rate = meter.update(done)
                self.listener(Progress(step="packs", done=done, total=total, rate=rate, eta=meter.eta(total - done)))

        workers = os.cpu_count() or 2
        with ThreadPoolExecutor(workers) as pool:
            running: set[Future[None]] = set()
            for name in names:
                running.add(pool.submit(one, name))
                if len(running) > workers:
                    finished, running = wait(running, return_when=FIRST_COMPLETED)
                    for future in finished:
                        future.result()
            for future in running:
                future.result()
        self.report.packs = len(present)

    def _pack(self, name: str, size: int) -> Iterator[str]:
        parsed = parse_name(name)
        if parsed is None:
            yield "it is not the name of a pack"
            return
        expected = self.expected.get(bytes.fromhex(parsed.digest))
        if expected is None:
            self.report.spare.append(name)
        data = memoryview(b"")
        try:
            if self.report.read_data:
                data = memoryview(self.store.get(name))
                self.report.bytes_read += len(data)
                if digest(data) != parsed.digest:
                    yield from self._describe(data, expected or set())
                    return
            entries = read_pack_footer(self.store, name, size)
        except (IntegrityError, NotFoundError) as error:
            yield error.message
            return
        found = {(e.id, e.offset, e.length) for e in entries}
        if expected and not expected <= found:
            yield f"{len(expected - found)} chunks that maps expect in it are not there"
        if self.report.read_data:
            bad = [e for e in entries if not self._chunk_is_good(data, e)]
            self.report.chunks += len(entries)
            if bad:
                yield f"{len(bad)} of {len(entries)} chunks do not decode: " + ", ".join(
                    e.id.hex()[:16] for e in bad[:4]
                )

    def _describe(self, data: memoryview, expected: set[tuple[bytes, int, int]]) -> Iterator[str]:
        """The pack's bytes are wrong: say how many of the chunks that are needed are still good."""
        entries = {e.offset: e for e in rebuild_footer(data)}
        lost = [id for id, offset, length in expected
                if (e := entries.get(offset)) is None or (e.id, e.length) != (id, length)
                or not self._chunk_is_good(data, e)]  # fmt: skip
        names = ", ".join(sorted(id.hex()[:16] for id in lost)[:4])
        what = (
            f"{len(lost)} of {len(expected)} chunks in use are lost: {names}" if lost else "all chunks in use are good"
        )
        yield f"its bytes are not those that were stored; {what}"

    def _chunk_is_good(self, data: memoryview, entry: PackEntry) -> bool:
        if entry.plain_length > chunk.MAX_CHUNK_SIZE:
            return False
        if not hasattr(self._local, "decoder"):
            self._local.decoder = chunk.FrameDecoder(self.repository.keys)
            self._local.buffer = bytearray(chunk.MAX_CHUNK_SIZE)
        out = memoryview(self._local.buffer)[: entry.plain_length]
        try:
            frame = data[entry.offset : entry.offset + entry.length]
            length = self._local.decoder.decode_into(frame, entry.id, out)
        except IntegrityError:
            return False
        return length == entry.plain_length and chunk.chunk_id(self.repository.keys, out) == entry.id
