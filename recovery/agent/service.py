"""The agent's main loop: look at what is due, make it, tell how it went. The host never waits for it."""

from __future__ import annotations

import datetime
import logging
import os
import threading
import time
from pathlib import Path

from recovery.agent.alert import Alert
from recovery.agent.config import Settings
from recovery.agent.journaling import TooMuchError
from recovery.agent.paced import PacedStore, Pacer
from recovery.agent.points import Made, Maker
from recovery.agent.schedule import Standing, paused, what_is_due
from recovery.agent.sending import Sender
from recovery.agent.spool import Spool
from recovery.agent.status import BEAT, AgentStatus, PointRecord, StatusKeeper
from recovery.capture.busy import parse_mountinfo
from recovery.capture.live.filesystems import find_filesystems, mount_holding
from recovery.capture.tracking.witness import tracked_disk
from recovery.errors import CancelledError, RekindleError, SpaceError, UnreachableError, UsageError
from recovery.events import Event, Message
from recovery.format.point import PointHeader
from recovery.repository.location import open_index
from recovery.repository.repository import Repository
from recovery.units import format_size

log = logging.getLogger("rekindle.agent")


class Agent:
    """Runs until ``stop`` is set, or (``once``) until one point is in the repository."""

    def __init__(self, repository: Repository, settings: Settings, stop: threading.Event) -> None:
        """Raises UsageError when something of ours lies on a tracked disk, and what the disks and the spool raise."""
        check_places(settings)
        self._settings, self._stop = settings, stop
        pacer = Pacer(settings.upload, stop)
        self._repository = Repository(PacedStore(repository.store, pacer), repository.file, repository.keys)
        self._spool = Spool(settings.spool, settings.spool_bytes)
        self._maker = Maker(self._repository, open_index(repository), settings, self._spool, self._hear)
        status = AgentStatus(
            host=settings.host, pid=os.getpid(), started=time.time(), alert_lag=settings.alert_lag,
            spool_limit=settings.spool_bytes,
        )  # fmt: skip
        self._keeper = StatusKeeper(status, settings.status, settings.metrics)
        self._keeper.recall(time.time())
        self._alert = Alert(settings.alert_command, settings.alert_lag, settings.host)
        self._sender = Sender(self._repository, self._spool, stop, self._committed, self._rejected)
        self._lock = threading.Lock()
        #: Journal points that were made and are on their way.
        self._made: dict[str, Made] = {}
        self._thrown_away = ""
        self._too_much = False
        self._keyframe_at: float | None = None
        self._attempted: float | None = None
        self._failed = 0
        self._began = time.time()

    def run(self, *, once: bool = False) -> None:
        """The loop. With ``once`` raises what kept the point from being made."""
        beat = threading.Thread(target=self._beat, name="agent-beat", daemon=True)
        self._sender.start()
        beat.start()
        try:
            while not self._stop.is_set():
                wait = self._turn(once=once)
                if once and self._keyframe_at is not None:
                    return
                if once and not self._sender.online:
                    raise UnreachableError(f"No point was made: {self._sender.trouble}")
                self._stop.wait(wait)
        finally:
            self._stop.set()
            self._sender.join(timeout=15)
            beat.join()
            self._maker.close()
            self._alert.wait()
            self._tell(state="stopped")

    def _turn(self, *, once: bool) -> float:
        """Make what is due; the seconds to wait before the next look."""
        self._take_rejection()
        now, ready = time.monotonic(), self._maker.ready
        standing = Standing(
            keyframe=None if self._too_much else self._keyframe_at, attempted=self._attempted, failed=self._failed,
            ready=ready and not self._too_much, online=self._sender.online, waiting=self._spool.used,
            room=self._spool.has_room(1),
        )  # fmt: skip
        due, wait = what_is_due(self._settings, standing, now, datetime.datetime.now())
        self._say_state(standing, due)
        if due == "nothing":
            return wait
        self._attempted = now
        try:
            if due == "keyframe":
                self._keyframe()
            else:
                self._journal()
            self._failed = 0
        except CancelledError:
            return 0.0
        except RekindleError as error:
            self._failure(error)
            if once:
                raise
        return 0.0

    def _say_state(self, standing: Standing, due: str) -> None:
        state = "running"
        if paused(self._settings.pause, datetime.datetime.now()):
            state = "paused"
        elif not standing.room:
            state = "spool full: no point is made until there is room"
        elif due == "nothing" and not standing.ready and not standing.online:
            state = "waiting for the server"
        why = ""
        if self._keyframe_at is None or not self._maker.ready:
            why = self._maker.doubt() or self._thrown_away or "the chain of journals has no room left"
        self._keeper.tell(state=state, next_is_full_compare=why)

    def _keyframe(self) -> None:
        begun = time.monotonic()
        made = self._maker.keyframe(self._stop)
        self._keyframe_at, self._too_much, self._thrown_away = begun, False, ""
        full = bool(made.live and made.live.full_compare)
        self._keeper.count(keyframes=1, full_compares=int(full))
        self._record(made, made.stored)

    def _journal(self) -> None:
        try:
            made = self._maker.journal(self._stop)
        except TooMuchError as error:
            log.info("%s A keyframe takes them.", error.message)
            self._too_much = True
            self._attempted = None
            return
        with self._lock:
            self._made[made.id] = made
        self._keeper.count(journals=1)

    def _record(self, made: Made, sent: int) -> None:
        live = made.live
        self._keeper.committed(PointRecord(
            id=made.id, kind=made.kind, moment=made.header.created, committed=time.time(), changed=made.changed,
            sent=sent, freeze=live.freeze_milliseconds if live else 0.0,
        ))  # fmt: skip
        self._keeper.tell(problem="", tracker=live.tracker if live else "")
        log.info(
            "%s %s: %s changed, %s sent, frozen for %.0f ms.", made.kind, made.id[:12], format_size(made.changed),
            format_size(sent), live.freeze_milliseconds if live else 0.0,
        )  # fmt: skip

    def _committed(self, id: str, header: PointHeader, sent: int) -> None:
        """The sender: a point that waited is in the repository."""
        with self._lock:
            made = self._made.pop(id, None)
        if made is None:  # of the agent before us
            made = Made(id=id, header=header, kind="journal", changed=0, stored=sent, live=None)
        self._record(made, sent)

    def _rejected(self, why: str) -> None:
        with self._lock:
            self._thrown_away = why
            self._made.clear()

    def _take_rejection(self) -> None:
        with self._lock:
            thrown_away = self._thrown_away
        if thrown_away and self._keyframe_at is not None:
            self._maker.invalidate()
            self._keyframe_at = None
            self._attempted = None

    def _failure(self, error: RekindleError) -> None:
        self._failed += 1
        if isinstance(error, UnreachableError):
            self._sender.away(error)
        level = logging.INFO if isinstance(error, SpaceError) and self._failed > 1 else logging.WARNING
        log.log(level, "No point was made: %s %s", error.message, error.hint)
        self._keeper.count(failures=1)
        self._keeper.tell(problem=error.message)

    def _beat(self) -> None:
        while not self._stop.is_set():
            self._tell()
            self._stop.wait(min(BEAT, self._settings.journal))

    def _tell(self, **values: object) -> None:
        now = time.time()
        lag = self._keeper.status.lag(now)
        alerting = self._alert.look(now - self._began if lag is None else lag)
        self._keeper.tell(
            server_online=self._sender.online, spool_used=self._spool.used, spool_objects=self._spool.count,
            alerting=alerting, **values,
        )  # fmt: skip
        try:
            self._keeper.write(now)
        except OSError as error:
            log.warning("The status cannot be written: %s", error)

    def _hear(self, event: Event) -> None:
        if isinstance(event, Message) and event.level != "debug":
            log.log({"info": logging.DEBUG, "warning": logging.WARNING}.get(event.level, logging.ERROR), event.text)


def check_places(settings: Settings) -> None:
    """Nothing that we write may lie on a disk that we freeze. Raises UsageError, and what looking at disks raises."""
    disks = [tracked_disk(f"disk{number}", path) for number, path in enumerate(settings.disks, 1)]
    devices = {each.device for each in find_filesystems(disks)}
    mounts = parse_mountinfo(Path("/proc/self/mountinfo").read_text())
    places = [("spool.directory", settings.spool), ("status.directory", settings.status)]
    if settings.metrics is not None:
        places.append(("status.metrics_file", settings.metrics))
    for key, path in places:
        holder = mount_holding(str(path.resolve()), mounts)
        if holder is not None and holder.device in devices:
            raise UsageError(
                f"{key}: '{path}' lies on '{holder.point}', which is on a disk that is captured.",
                hint="Each point would change the disk, and wait for its own freeze. Use /run, or another disk.",
            )
