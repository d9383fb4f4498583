"""Makes points of the running host: keyframes of chunks, and journals over the newest keyframe."""

from __future__ import annotations

import contextlib
import threading

import msgspec

from recovery import __version__
from recovery.agent.config import Settings
from recovery.agent.journaling import JournalCopier
from recovery.agent.spool import Spool
from recovery.capture.live.beside import Beside
from recovery.capture.live.capture import capture_live
from recovery.capture.live.cut import take_cut
from recovery.capture.live.guestclass import with_consistency
from recovery.capture.live.limits import DoubtError, FreezeLimits, NotStillError
from recovery.capture.live.session import LiveSession
from recovery.capture.live.survey import MOST_A_MINUTE
from recovery.capture.request import CaptureRequest
from recovery.capture.tracking.model import NONE, Extents, TrackedDisk
from recovery.capture.tracking.remember import RememberingTracker
from recovery.capture.tracking.witness import tracked_disk
from recovery.capture.vmplaces import with_occupancies
from recovery.errors import BusyError
from recovery.events import Listener, Message
from recovery.format.journal import MAX_CHAIN, ChainEntry, JournalHeader, encode_journal
from recovery.format.names import journal_name, point_name
from recovery.format.point import (
    JOURNAL_VERSION,
    VERSION,
    JournalRef,
    LiveFigures,
    Point,
    PointBody,
    PointDisk,
    PointHeader,
    PointSummary,
    encode_point,
)
from recovery.repository.index import SqliteIndex
from recovery.repository.protocols import ChunkIndex
from recovery.repository.repository import Repository

_MIB = 1024 * 1024
#: A few MiB of chunks at a time: the host's work comes first.
_WORKERS, _UPLOADERS = 1, 1
#: Chunks that change all the time wait in memory; a host that writes to more of them gets more for one keyframe.
_HELD, _MOST_HELD = 64 * _MIB, FreezeLimits().held


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """A point and what it took: ``changed`` logical bytes, ``stored`` bytes of its objects (keyframes: what its disks
    added to the repository)."""

    id: str
    header: PointHeader
    kind: str
    changed: int
    stored: int
    live: LiveFigures | None


class _Chain(msgspec.Struct):
    """A disk's journals since the keyframe; ``root`` is that of its newest content."""

    base: str
    base_root: str
    root: bytes
    entries: list[ChainEntry]


class Maker:
    """One thread uses it. ``spool`` gets the journal points; keyframes go to the repository at once."""

    def __init__(
        self, repository: Repository, index: ChunkIndex, settings: Settings, spool: Spool, listener: Listener
    ) -> None:
        self._repository, self._index, self._settings = repository, index, settings
        self._spool, self._listener = spool, listener
        self._limits = FreezeLimits(freeze=settings.freeze, memory=settings.journal_bytes, held=_HELD)
        guests = None if settings.quiesce == "never" else settings.guests
        self._session = LiveSession(self._limits, guests=guests)
        self._since: RememberingTracker | None = None
        self._disks: list[TrackedDisk] = []
        self._chains: dict[str, _Chain] = {}
        self._newest: tuple[str, PointHeader, PointBody] | None = None
        #: A keyframe failed after it had asked the tracker: what it heard is only known since the keyframe before.
        self._all_since_keyframe = False

    def close(self) -> None:
        """End tracking."""
        self._session.close()

    @property
    def ready(self) -> bool:
        """Whether a journal can go on where the newest point ended."""
        if self._newest is None or self._since is None or not self._chains:
            return False
        room = all(len(chain.entries) < MAX_CHAIN for chain in self._chains.values())
        return room and not self.doubt()

    def doubt(self) -> str:
        """Why what changed is not known completely, empty when it is."""
        if self._since is None:
            return "tracking has not begun"
        return next((doubt.text for disk in self._disks if (doubt := self._since.doubt(disk.name))), "")

    def invalidate(self) -> None:
        """The newest point will never be in the repository, or not as we made it: begin anew by a full compare."""
        self._newest = None
        self._chains = {}
        # The session may have closed its tracker, and opened another one.
        self._since = None
        self._session.forget()

    def keyframe(self, cancel: threading.Event) -> Made:
        """Capture all that changed since the keyframe before, or compare all of the disks. Raises what capture_live
        raises; nothing may wait in the spool meanwhile."""
        settings = self._settings
        request = CaptureRequest(
            host=settings.host, disks=settings.disks, workers=_WORKERS, uploaders=_UPLOADERS,
            note="", consistency=None, retention=settings.retention,
        )  # fmt: skip
        if isinstance(self._index, SqliteIndex):
            # We run for months: packs were pruned since it was read.
            self._index.refresh(self._repository.store)
        if self._newest is not None:
            self._session.continued(self._newest[0])
        try:
            point = self._capture(request, cancel, _HELD)
        except NotStillError as error:
            if error.hopeless:
                raise
            again = f"{error.message} Once more, with more memory."
            self._listener(Message(text=again, level="warning", step="keyframe"))
            point = self._capture(request, cancel, _MOST_HELD)
        self._begin(point)
        disks = point.body.disks
        return Made(
            id=point.id, header=point.header, kind="keyframe", changed=sum(disk.changed for disk in disks),
            stored=sum(disk.stored for disk in disks), live=point.body.live,
        )  # fmt: skip

    def _capture(self, request: CaptureRequest, cancel: threading.Event, held: int) -> Point:
        self._session.limits = msgspec.structs.replace(self._limits, held=held)
        try:
            return capture_live(self._repository, self._index, request, self._session, self._listener, cancel)
        except BaseException:
            # A full compare that was begun has forgotten what changed before it.
            if self._newest is None or not self._session.bases_since(self._summary()):
                self.invalidate()
            self._all_since_keyframe = True
            raise

    def _summary(self) -> PointSummary | None:
        if self._newest is None:
            return None
        id, header, _ = self._newest
        return PointSummary(id=id, host=header.host, created=header.created)

    def _begin(self, point: Point) -> None:
        """Journals go on from this keyframe."""
        self._disks = [
            tracked_disk(disk.name, path) for disk, path in zip(point.body.disks, self._settings.disks, strict=True)
        ]
        self._since = RememberingTracker(self._session.tracker)
        maps = {reference.disk: reference.map for reference in point.header.maps}
        self._chains = {
            disk.name: _Chain(maps[disk.name], disk.root, bytes.fromhex(disk.root), []) for disk in point.body.disks
        }
        self._newest = (point.id, point.header, point.body)
        self._all_since_keyframe = False

    def journal(self, cancel: threading.Event) -> Made:
        """What changed since the newest point, into the spool. Raises what take_cut raises, TooMuchError, and
        SpaceError when the spool is full: then what changed stays for the next point."""
        if self._newest is None or self._since is None:
            raise BusyError("There is no keyframe yet that a journal could go on from.")
        first = {disk.name: self._pending(disk.name) for disk in self._disks}
        with contextlib.closing(JournalCopier(self._disks, self._settings.journal_bytes)) as copier:
            try:
                figures = take_cut(
                    self._since, self._disks, first, copier, self._limits, self._listener, cancel, self._beside()
                )
            except DoubtError:
                self.invalidate()
                raise
            return self._store(copier, figures)

    def _beside(self) -> list[Beside]:
        """Who hears of the freeze of a journal point."""
        survey, quiescer = self._session.survey, self._session.quiescer
        found: list[Beside] = [survey] if survey is not None else []
        if quiescer is not None and self._settings.quiesce == "every":
            found.append(quiescer)
        return found

    def _pending(self, disk: str) -> Extents:
        since = self._session.tracker if self._all_since_keyframe or self._since is None else self._since
        return since.changed().get(disk, NONE)

    def _store(self, copier: JournalCopier, figures: LiveFigures) -> Made:
        if self._newest is None or self._since is None:
            raise BusyError("There is no keyframe yet that a journal could go on from.")
        parent, before, body = self._newest
        objects: list[tuple[str, bytes]] = []
        chains: dict[str, _Chain] = {}
        disks: list[PointDisk] = []
        for disk in body.disks:
            chain = self._chains[disk.name]
            changes = list(copier.changes(disk.name))
            stored = 0
            if changes:
                header = JournalHeader(
                    repository=self._repository.id, host=self._settings.host, disk=disk.name, size=disk.size,
                    base=chain.base, parent_point=parent,
                )  # fmt: skip
                journal = encode_journal(self._repository.keys, header, chain.entries, chain.root, changes)
                objects.append((journal_name(self._settings.host, journal.digest), journal.data))
                entry = ChainEntry(bytes.fromhex(journal.digest), journal.head)
                chain = _Chain(chain.base, chain.base_root, journal.root, [*chain.entries, entry])
                stored = len(journal.data)
            chains[disk.name] = chain
            disks.append(
                msgspec.structs.replace(
                    disk, root=chain.root.hex(), base_root=chain.base_root if chain.entries else "",
                    journals=len(chain.entries), changed=copier.changed(disk.name), stored=stored,
                )
            )  # fmt: skip
        journals = tuple(
            JournalRef(disk=name, journal=chain.entries[-1].digest.hex(), head=chain.entries[-1].head)
            for name, chain in chains.items()
            if chain.entries
        )
        point_header = PointHeader(
            version=JOURNAL_VERSION if journals else VERSION, repository=self._repository.id,
            host=self._settings.host, created=round(max(figures.moment, before.created + 0.001), 6), parent=parent,
            maps=before.maps, journals=journals, retention=self._settings.retention,
        )  # fmt: skip
        survey = self._session.survey
        # Files grow: what the keyframe says of them is not true of this minute.
        quiescer = self._session.quiescer if self._settings.quiesce == "every" else None
        quiesced = with_consistency(body.vms, quiescer.found if quiescer else None)
        vms = with_occupancies(quiesced, survey.found if survey else {}, MOST_A_MINUTE)
        point_body = msgspec.structs.replace(
            body, vms=tuple(vms), disks=tuple(disks), consistency="filesystem" if figures.filesystems else "crash",
            live=figures, captured_by=f"rekindle {__version__}", duration=sum(one.seconds for one in figures.passes),
        )  # fmt: skip
        id, data = encode_point(self._repository.keys, point_header, point_body)
        objects.append((point_name(self._settings.host, point_header.created, id), data))
        self._spool.add(objects)
        # From here on the point exists; before, what changed stays pending.
        self._since.mark()
        self._all_since_keyframe = False
        self._chains, self._newest = chains, (id, point_header, point_body)
        return Made(
            id=id, header=point_header, kind="journal", changed=sum(disk.changed for disk in disks),
            stored=sum(len(data) for _, data in objects), live=figures,
        )  # fmt: skip
