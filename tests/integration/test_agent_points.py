"""The agent's points in one process: keyframes and journals of a disk that is written to, a server that is away, a
spool that is full, a tracker in doubt. Each point comes back as a prefix of what was written."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from recovery.agent import points
from recovery.agent.config import Settings, parse_settings
from recovery.agent.journaling import TooMuchError
from recovery.agent.points import Made, Maker
from recovery.agent.sending import Sender
from recovery.agent.service import check_places
from recovery.agent.spool import Spool
from recovery.capture.live.capture import capture_live
from recovery.capture.live.limits import DoubtError, NotStillError
from recovery.capture.tracking.choose import open_tracker
from recovery.capture.tracking.witness import tracked_disk
from recovery.errors import SpaceError, UnreachableError, UsageError
from recovery.events import Event, Message
from recovery.format.names import parse_name
from recovery.format.point import Point, PointHeader
from recovery.repository.check import check
from recovery.repository.index import SqliteIndex
from recovery.repository.repository import Repository
from recovery.repository.store import DirectoryStore
from tests.support.prefix import WrittenDisk, check_prefix, restored, run
from tests.support.repositories import new_repository

pytestmark = pytest.mark.root

SIZE = 32 * 2**20
NEVER = threading.Event()


class AwayStore(DirectoryStore):
    """A directory that can be away, as a server can."""

    away = False

    def put_if_absent(self, name: str, data: bytes | bytearray | memoryview) -> bool:
        if self.away:
            raise UnreachableError("The server does not answer.")
        return super().put_if_absent(name, data)


class Rig:
    """A written disk, a repository and the parts of an agent, moved by hand."""

    def __init__(self, folder: Path) -> None:
        self.disk = WrittenDisk(folder, SIZE)
        self.folder = folder
        model = new_repository(folder / "r")
        self.store = AwayStore(folder / "r")
        self.repository = Repository(self.store, model.file, model.keys)
        self.told: list[str] = []
        self.committed: list[str] = []
        self.rejected: list[str] = []
        self.makers: list[Maker] = []

    def settings(self, *, spool: str = "64 MiB", journal: str = "16 MiB") -> Settings:
        text = (
            f'host = "hv1"\ndisks = ["{self.disk.device}"]\n[repository]\nlocation = "/r"\nsecret_file = "/s"\n'
            f'[limits]\nfreeze = "9s"\njournal = "{journal}"\n'
            f'[spool]\ndirectory = "{self.folder}/spool"\nsize = "{spool}"\n'
        )
        return parse_settings(text, "agent.toml")

    def maker(self, settings: Settings | None = None) -> Maker:
        """A new agent, as after a restart: with the spool that the one before left."""
        settings = settings or self.settings()
        self.spool = Spool(settings.spool, settings.spool_bytes)
        self.sender = Sender(self.repository, self.spool, NEVER, self._committed, self.rejected.append)
        index = SqliteIndex(":memory:")
        index.refresh(self.store)
        maker = Maker(self.repository, index, settings, self.spool, self._hear)
        self.makers.append(maker)
        return maker

    def _hear(self, event: Event) -> None:
        if isinstance(event, Message) and event.level != "debug":
            self.told.append(event.text)

    def _committed(self, id: str, header: PointHeader, sent: int) -> None:
        self.committed.append(id)

    def send(self) -> None:
        """All that waits. Raises what sending raises."""
        while self.spool.count:
            self.sender._step()

    def journal(self, maker: Maker) -> Made | None:
        """A journal point; None when the tracker was in doubt, which the next keyframe settles. (This is what the
        service does; events are really lost on some machines.)"""
        try:
            return maker.journal(NEVER)
        except DoubtError:
            return None

    def close(self) -> None:
        for maker in self.makers:
            maker.close()
        self.disk.close()


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    if os.geteuid() != 0:
        pytest.skip("loop devices and freezing need root")
    made = Rig(tmp_path)
    try:
        told: list[str] = []
        tracker = open_tracker([tracked_disk("disk1", Path(made.disk.device))], told.append)
        if tracker is None:
            pytest.skip(f"changed blocks cannot be tracked here: {told}")
        tracker.close()
        yield made
    finally:
        made.close()


def verify(rig: Rig) -> list[int]:
    """Every point in the repository is restored and looked at; how many records each has."""
    acknowledged = rig.disk.acknowledged()
    counts = []
    for summary in rig.repository.points("hv1"):
        point = rig.repository.point("hv1", summary.id)
        with restored(rig.repository, point, rig.folder) as mount:
            counts.append(check_prefix(mount, point.header.created, acknowledged))
    assert counts == sorted(counts)
    report = check(rig.repository, read_data=True)
    assert report.ok, report.damages
    return counts


def test_keyframes_and_journals_of_a_disk_that_is_written_to(rig: Rig) -> None:
    rig.disk.start_writer()
    rig.disk.wait_for_records(3)
    maker = rig.maker()
    kinds = []
    for number in range(8):
        if number == 4:
            maker.close()  # killed
            maker = rig.maker()
        if not maker.ready:
            made: Made | None = maker.keyframe(NEVER)
            assert made is not None and made.live is not None and made.live.full_compare
        elif number == 6:
            made = maker.keyframe(NEVER)  # an hour later: what changed since the keyframe, not since the journal
            assert made.live is not None and not made.live.full_compare
        else:
            made = rig.journal(maker)
            rig.send()
        kinds.append(made.kind if made else "doubt")
        rig.disk.wait_for_records(2)
    rig.disk.stop_writer()
    counts = verify(rig)
    assert kinds[0] == "keyframe" and kinds.count("journal") + kinds.count("doubt") >= 4
    assert len(counts) == len(kinds) - kinds.count("doubt") and counts[-1] > counts[0]
    assert not rig.rejected and len(rig.committed) == kinds.count("journal")


@pytest.mark.parametrize("hopeless", [False, True])
def test_a_host_that_writes_everywhere_gets_more_memory_for_its_keyframe_where_that_helps(
    hopeless: bool, rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[int] = []

    def restless(*words: Any) -> Point:
        session = words[3]
        held.append(session.limits.held)
        if len(held) == 1:
            raise NotStillError("Too much is written.", hint="", hopeless=hopeless)
        made: Point = capture_live(*words)
        return made

    monkeypatch.setattr(points, "capture_live", restless)
    maker = rig.maker()
    if hopeless:
        with pytest.raises(NotStillError):
            maker.keyframe(NEVER)
        assert len(held) == 1
        return
    assert maker.keyframe(NEVER).kind == "keyframe"
    assert held[1] == 8 * held[0], "for this once"
    assert any("more memory" in text for text in rig.told)
    maker.keyframe(NEVER)
    assert held == [held[0], held[1], held[0]]
    assert len(verify(rig)) == 2


def test_while_the_server_is_away_points_wait_and_come_in_with_their_times(rig: Rig) -> None:
    rig.disk.start_writer()
    rig.disk.wait_for_records(1)
    maker = rig.maker()
    maker.keyframe(NEVER)
    rig.store.away = True
    made = []
    for _ in range(3):
        rig.disk.wait_for_records(2)
        made.append(rig.journal(maker))
    waiting = [one for one in made if one is not None]
    with pytest.raises(UnreachableError):
        rig.sender._step()
    with pytest.raises(UnreachableError):
        maker.keyframe(NEVER)
    rig.disk.wait_for_records(1)
    if maker.ready:  # the keyframe that failed has lost nothing
        last = rig.journal(maker)
        waiting += [last] if last else []
    assert len(rig.repository.points("hv1")) == 1
    # The agent is killed; the next one finds what waits and sends it first.
    maker.close()
    rig.store.away = False
    rig.maker()
    newest = rig.spool.newest_point()
    assert not waiting or (newest is not None and newest[0] == waiting[-1].id)
    rig.send()
    assert [point.id for point in rig.repository.points("hv1")][1:] == [one.id for one in waiting]
    rig.disk.stop_writer()
    verify(rig)


def test_a_full_spool_makes_no_point_and_loses_nothing(rig: Rig) -> None:
    maker = rig.maker(rig.settings(spool="1 MiB"))
    maker.keyframe(NEVER)
    (rig.disk.mount / "big").write_bytes(os.urandom(2 * 2**20))
    with pytest.raises(SpaceError, match="spool is full"):
        for _ in range(3):  # a doubt here would be the machine's
            if rig.journal(maker) is None:
                pytest.skip("this kernel lost events just now")
    assert maker.ready and rig.spool.count == 0
    # There is room again: the point that could not be made is in the next one.
    rig.spool._limit = 64 * 2**20
    (rig.disk.mount / "after").write_bytes(b"after")
    made = rig.journal(maker)
    if made is None:
        pytest.skip("this kernel lost events just now")
    assert made.changed >= 2 * 2**20
    rig.send()
    big = (rig.disk.mount / "big").read_bytes()
    with restored(rig.repository, rig.repository.point("hv1", made.id), rig.folder) as mount:
        assert ((mount / "big").read_bytes(), (mount / "after").read_bytes()) == (big, b"after")


def test_what_is_too_much_for_a_journal_becomes_a_keyframe(rig: Rig) -> None:
    maker = rig.maker(rig.settings(journal="1 MiB"))
    maker.keyframe(NEVER)
    data = os.urandom(4 * 2**20)
    (rig.disk.mount / "big").write_bytes(data)
    try:
        with pytest.raises(TooMuchError):
            maker.journal(NEVER)
    except DoubtError:
        pytest.skip("this kernel lost events just now")
    made = maker.keyframe(NEVER)
    with restored(rig.repository, rig.repository.point("hv1", made.id), rig.folder) as mount:
        assert (mount / "big").read_bytes() == data


def test_a_resized_disk_is_in_doubt(rig: Rig) -> None:
    maker = rig.maker()
    maker.keyframe(NEVER)
    image = rig.folder / "disk.img"
    os.truncate(image, SIZE + 2**20)
    run("losetup", "-c", rig.disk.device)
    assert f"had {SIZE} bytes" in maker.doubt() and not maker.ready
    with pytest.raises(DoubtError):
        maker.journal(NEVER)
    assert not rig.spool.count


def test_nothing_of_ours_may_lie_on_the_disk(rig: Rig) -> None:
    settings = rig.settings()
    check_places(settings)
    for key in ("spool", "status", "metrics"):
        with pytest.raises(UsageError, match="which is on a disk that is captured"):
            check_places(msgspec.structs.replace(settings, **{key: rig.disk.mount / "x"}))


def test_names_in_the_spool_are_those_of_the_repository(rig: Rig) -> None:
    maker = rig.maker()
    maker.keyframe(NEVER)
    (rig.disk.mount / "f").write_bytes(b"x")
    if rig.journal(maker) is None:
        pytest.skip("this kernel lost events just now")
    kinds = []
    while (waiting := rig.spool.first(0)) is not None:
        parsed = parse_name(waiting.name)
        kinds.append(parsed.kind if parsed else "")
        rig.sender._send(waiting)
    assert kinds == ["journal", "point"]
