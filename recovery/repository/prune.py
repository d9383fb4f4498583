"""Remove points by retention tiers, then what no point needs any more. Safe to kill, and beside captures.

Points go first, packs last; each step is on the disk before the next begins, so what is left needs nothing that is
gone. A pack is *condemned* when nobody needs it, and goes in a later run, ``grace`` after that: by then every capture
that had found a chunk in it has committed its point, which makes it needed again. docs/operations.md, "Retention".
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import msgspec

from recovery.errors import BusyError, CancelledError
from recovery.events import Listener, Message, StepFinished, StepStarted, ignore
from recovery.format.names import ObjectName, pack_name
from recovery.format.point import PointHeader, Retention
from recovery.repository.condemned import PREFIX, condemned
from recovery.repository.identity import read_repository_file
from recovery.repository.references import References, list_names, read_header
from recovery.repository.repository import Repository
from recovery.repository.retention import Candidate, Decision, decide
from recovery.repository.store import DirectoryStore
from recovery.units import format_count, format_size

#: Seconds to wait for a moment in which nobody commits a point: a commit takes a second, over a bad line more.
_PATIENCE = 600.0


class Removed(msgspec.Struct, frozen=True, kw_only=True):
    """How many objects of a kind were (or would be) removed, and their bytes."""

    count: int = 0
    bytes: int = 0


class HostReport(msgspec.Struct, frozen=True, kw_only=True):
    """``keep``: id -> why; ``remove``: ids, the oldest first."""

    host: str
    keep: dict[str, tuple[str, ...]]
    remove: tuple[str, ...]


class PruneReport(msgspec.Struct, kw_only=True):
    """What was done, or with ``dry_run`` would be. ``condemned``: packs that were marked now; ``waiting``: marked in
    earlier runs, and not for long enough; ``young``: needed by nobody, but stored within the grace; ``pardoned``:
    marked packs that a point needs again; ``kept``: needed packs."""

    dry_run: bool
    hosts: list[HostReport] = []
    points: int = 0
    maps: Removed = Removed()
    journals: Removed = Removed()
    packs: Removed = Removed()
    condemned: Removed = Removed()
    waiting: Removed = Removed()
    young: Removed = Removed()
    kept: Removed = Removed()
    pardoned: int = 0
    seconds: float = 0.0


def prune(
    store: DirectoryStore,
    tiers: Mapping[str, Retention],
    *,
    grace: float,
    exact: Repository | None = None,
    dry_run: bool = False,
    listener: Listener = ignore,
    cancel: threading.Event | None = None,
    now: float | None = None,
) -> PruneReport:
    """Prune the hosts in ``tiers``; all points of others are kept. ``grace``: seconds, longer than any capture takes.
    ``exact``: the repository with its keys, to tell which packs are used; without, those named by the parents of a map
    stay with it.

    Raises IntegrityError when it cannot be told what a point needs, BusyError when another prune runs or captures end
    all the time, CancelledError, and what the store raises. Whatever ends it, every point left is whole.
    """
    with _only_one(store.root):
        moment = time.time() if now is None else now
        return _Prune(store, tiers, grace, exact, dry_run, listener, cancel or threading.Event(), moment).run()


@contextlib.contextmanager
def _only_one(root: Path) -> Iterator[None]:
    folder = root / PREFIX
    folder.mkdir(mode=0o750, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise BusyError("The repository is being pruned already.", hint="Wait for it to end.") from None
    finally:
        os.close(descriptor)


def decide_all(
    points: Mapping[str, list[tuple[str, PointHeader]]], tiers: Mapping[str, Retention]
) -> dict[str, Decision]:
    """What to keep of each host in ``tiers``; ``points``: host -> ids and headers. Raises UsageError. Pure."""
    decisions: dict[str, Decision] = {}
    for host, found in points.items():
        if host not in tiers:
            continue
        keyframes: dict[tuple[object, ...], str] = {}
        for id, header in sorted(found, key=lambda item: item[1].created):
            if not header.journals:
                keyframes.setdefault(header.maps, id)
        candidates = [
            Candidate(
                id=id, created=header.created, journal=bool(header.journals),
                needs=(keyframes[header.maps],) if header.journals and header.maps in keyframes else (),
            )
            for id, header in found
        ]  # fmt: skip
        decisions[host] = decide(candidates, tiers[host])
    return decisions


class _Prune:
    def __init__(
        self, store: DirectoryStore, tiers: Mapping[str, Retention], grace: float, exact: Repository | None,
        dry_run: bool, listener: Listener, cancel: threading.Event, now: float,
    ) -> None:  # fmt: skip
        self._store, self._tiers, self._grace, self._exact, self._dry = store, tiers, grace, exact, dry_run
        self._listener, self._cancel, self._now = listener, cancel, now
        self._key = bytes.fromhex(read_repository_file(store).public_key)
        self._seen: set[str] = set()
        self._needed = References(store.root)
        self.report = PruneReport(dry_run=dry_run, hosts=[])

    def run(self) -> PruneReport:
        begun = time.monotonic()
        with self._step("points"):
            self._points()
        with self._step("objects"):
            self._objects()
        self.report.seconds = time.monotonic() - begun
        return self.report

    @contextlib.contextmanager
    def _step(self, name: str) -> Iterator[None]:
        begun = time.monotonic()
        self._listener(StepStarted(step=f"prune-{name}", title=f"Pruning: {name}"))
        yield
        self._listener(StepFinished(step=f"prune-{name}", seconds=time.monotonic() - begun))

    def _stop_if_told(self) -> None:
        if self._cancel.is_set():
            raise CancelledError("Pruning was stopped.", hint="Run it again: it goes on, and every point is whole.")

    def _points(self) -> None:
        """Find out what the points that stay need, then remove the others."""
        found: dict[str, list[tuple[str, PointHeader]]] = defaultdict(list)
        names: dict[str, ObjectName] = {}
        for name in list_names(self._store):
            found[name.host].append((name.digest, read_header(self._store, name, self._key)))
            names[name.digest] = name
        self._seen = set(names)
        decisions = decide_all(found, self._tiers)
        gone: set[str] = set()
        for host, decision in sorted(decisions.items()):
            self.report.hosts.append(HostReport(host=host, keep=decision.keep, remove=decision.remove))
            gone |= set(decision.remove)
            text = f"{host}: {format_count(len(decision.keep), 'point')} kept, {len(decision.remove)} removed"
            self._listener(Message(text=text, step="prune-points"))
        # Whoever cannot tell what is needed must not begin.
        for points in found.values():
            newest = max(points, key=lambda item: item[1].created)[0]
            for id, header in points:
                self._stop_if_told()
                if id not in gone:
                    # The next point of the host builds on its newest: a server asks for all that its maps name.
                    self._needed.add(header, None if id == newest else self._exact)
        self.report.points = len(gone)
        self._remove(f"points/{n.host}/{n.created:016d}-{n.digest}" for n in names.values() if n.digest in gone)

    def _objects(self) -> None:
        """Condemn, then remove, what nobody needs."""
        before = self._now - self._grace
        listed = {kind: {info.name: info.size for info in self._store.list(f"{kind}/")}
                  for kind in ("maps", "journals", "packs")}  # fmt: skip
        marked = {pack_name(pack.hex()) for pack in condemned(self._store)}
        with self._store.alone(_PATIENCE) if not self._dry else contextlib.nullcontext():
            # What was committed since we looked; from here on nobody commits.
            for name in list_names(self._store):
                if name.digest not in self._seen:
                    self._needed.add(read_header(self._store, name, self._key))
            for kind, needed in (("journals", self._needed.journals), ("maps", self._needed.maps)):
                sizes = listed[kind]
                spare = [name for name in sizes.keys() - needed if self._time(name) < before]
                setattr(self.report, kind, _total(spare, sizes))
                self._remove(spare)
            self._stop_if_told()
            packs = listed["packs"]
            spare_packs = packs.keys() - self._needed.packs
            ready = [name for name in spare_packs & marked if self._time(_mark(name)) < before]
            self.report.packs = _total(ready, packs)
            self._remove(ready)
        self.report.kept = _total(packs.keys() & self._needed.packs, packs)
        self.report.waiting = _total((spare_packs & marked) - set(ready), packs)
        old = [name for name in spare_packs - marked if self._time(name) < before]
        self.report.condemned = _total(old, packs)
        self.report.young = _total(spare_packs - marked - set(old), packs)
        self.report.pardoned = len(marked & self._needed.packs)
        self._mark(old)
        # Of packs that are needed again, and of those that are gone, also by a run that was killed.
        gone = set(ready)
        self._remove(f"distrusted/{Path(name).name}" for name in ready)
        self._remove(_mark(name) for name in marked if name in self._needed.packs or name in gone or name not in packs)

    def _time(self, name: str) -> float:
        """When the object's file was written, seconds; now when it is gone."""
        try:
            return (self._store.root / name).stat().st_mtime
        except FileNotFoundError:
            return self._now

    def _mark(self, packs: Iterable[str]) -> None:
        folder = self._store.root / PREFIX
        if not self._dry:
            for name in packs:
                (folder / Path(name).name).touch(mode=0o640)
            _sync(folder)

    def _remove(self, names: Iterable[str]) -> None:
        """On the disk when it returns."""
        folders: set[Path] = set()
        for name in names if not self._dry else ():
            path = self._store.root / name
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
                folders.add(path.parent)
        for folder in folders:
            _sync(folder)


def _mark(pack: str) -> str:
    return f"{PREFIX}{Path(pack).name}"


def _total(names: Iterable[str], sizes: Mapping[str, int]) -> Removed:
    found = [sizes[name] for name in names]
    return Removed(count=len(found), bytes=sum(found))


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def describe(report: PruneReport) -> Iterator[str]:
    """The report in lines for people. Pure."""
    verb = "would be" if report.dry_run else "were"
    for host in report.hosts:
        tiers: dict[str, int] = defaultdict(int)
        for why in host.keep.values():
            tiers[why[0]] += 1
        words = ", ".join(f"{count} as {tier}" for tier, count in tiers.items())
        yield f"{host.host}: {format_count(len(host.keep), 'point')} kept ({words}), {len(host.remove)} {verb} removed"

    def amount(removed: Removed, noun: str) -> str:
        return f"{format_count(removed.count, noun)} ({format_size(removed.bytes)})"

    yield (
        f"removed: {amount(report.maps, 'map')}, {amount(report.journals, 'journal')}, {amount(report.packs, 'pack')}"
    )
    yield (
        f"packs that nobody needs: {report.condemned.count} condemned now, {report.waiting.count} waiting, "
        f"{report.young.count} too new; {format_size(report.condemned.bytes + report.waiting.bytes)} go when their "
        f"grace is over. {report.pardoned} are needed again."
    )
    yield f"needed: {amount(report.kept, 'pack')}"
