"""Disks of a running host: every write is seen, points are the disk of one moment, and nothing stays frozen."""

from __future__ import annotations

import contextlib
import mmap
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from recovery.capture.live import cut
from recovery.capture.live.capture import capture_live
from recovery.capture.live.filesystems import find_filesystems
from recovery.capture.live.holder import Holder, How, Thawed
from recovery.capture.live.limits import FreezeLimits, NotStillError
from recovery.capture.live.rawread import Read, ReadingCrew
from recovery.capture.live.rawvolumes import RawVolume
from recovery.capture.live.session import LiveSession
from recovery.capture.request import CaptureRequest
from recovery.capture.tracking.ebpf import EbpfTracker
from recovery.capture.tracking.witness import tracked_disk
from recovery.errors import BusyError, UsageError
from recovery.events import Event, Message, ignore
from recovery.format.point import Point
from recovery.repository.index import SqliteIndex
from recovery.restore.disk import RestoreOptions, restore_disk
from tests.integration.capture_images import MIB, sh, sparse
from tests.support.repositories import new_repository

pytestmark = [
    pytest.mark.root,
    pytest.mark.usefixtures("tracing"),
    pytest.mark.skipif(
        os.geteuid() != 0 or not Path("/dev/loop-control").exists(), reason="needs root and loop devices"
    ),
]

#: Nothing here is about speed, and machines that test are slow.
PATIENT = FreezeLimits(freeze=120.0, passes=4)


@contextlib.contextmanager
def disk_with(kind: str, folder: Path, size: int) -> Iterator[tuple[Path, Path]]:
    """``(device, mount point)`` of a loop device with a filesystem, mounted read-write."""
    image = sparse(folder / f"{kind}.img", size)
    device = sh("losetup", "--find", "--show", image).strip()
    mount = folder / "mnt"
    mount.mkdir(exist_ok=True)
    try:
        # Less than the device, so that there is room that no filesystem guards.
        sh(f"mkfs.{kind}", "-q", device, *([str((size - 8 * MIB) // 1024)] if kind == "ext4" else []))
        sh("mount", device, mount)
        try:
            yield Path(device), mount
        finally:
            # A freezer whose agent was killed holds the filesystem until it has noticed.
            for _ in range(300):
                if subprocess.run(["umount", mount], check=False, capture_output=True).returncode == 0:
                    break
                time.sleep(0.1)
            else:
                sh("umount", mount)
    finally:
        sh("losetup", "-d", device)


@contextlib.contextmanager
def writer(folder: Path) -> Iterator[Path]:
    """A program that stamps numbered records, each on the disk before the next one, and rewrites blocks at random."""
    stop = threading.Event()
    log = folder / "log"

    def work() -> None:
        dice = random.Random(7)
        with log.open("wb", buffering=0) as records, (folder / "data").open("wb", buffering=0) as data:
            data.truncate(8 * MIB)
            for number in range(1, 1 << 30):
                os.pwrite(data.fileno(), dice.randbytes(4096), dice.randrange(2048) * 4096)
                if number % 8 == 0:
                    records.write(b"%08d\n" % (number // 8))
                    os.fsync(records.fileno())
                    # Not faster than a loaded machine can copy.
                    stop.wait(0.05)
                if stop.is_set():
                    return

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield log
    finally:
        stop.set()
        thread.join()


class Bench:
    """A repository, and captures into it whose content is compared with the disk as it was while frozen."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.repository = new_repository(folder / "repo")
        self.index = SqliteIndex(folder / "index.sqlite")
        self.told: list[str] = []
        self.lines_when_frozen = 0
        self._frozen = folder / "frozen.img"
        self._thaw = Holder.thaw
        self._monkeypatch = monkeypatch

    def listen(self, event: Event) -> None:
        if isinstance(event, Message):
            self.told.append(event.text)

    def capture(self, device: Path, session: LiveSession, log: Path | None = None) -> Point:
        """A point; it must be byte for byte what the frozen disk was."""

        def thaw(holder: Holder) -> Thawed:
            sh("dd", f"if={device}", f"of={self._frozen}", "bs=1M", "iflag=direct")
            if log is not None:
                self.lines_when_frozen = log.stat().st_size // 9
            return self._thaw(holder)

        self._monkeypatch.setattr(Holder, "thaw", thaw)
        request = CaptureRequest(host="h", disks=(device,), workers=2)
        point = capture_live(self.repository, self.index, request, session, self.listen, threading.Event())
        self._monkeypatch.setattr(Holder, "thaw", self._thaw)
        target = sparse(self.folder / "restored.img", point.body.disks[0].size)
        restore_disk(self.repository, point, "disk1", str(target), ignore, threading.Event(), RestoreOptions())
        sh("cmp", self._frozen, target)
        return point

    def records(self, point: Point) -> list[str]:
        """The records in a restored ext4."""
        return sh("debugfs", "-R", "cat /log", self.folder / "restored.img").split()


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("kind", "size", "check"),
    [
        ("ext4", 64, ["e2fsck", "-fn"]),
        pytest.param("xfs", 320, ["xfs_repair", "-n"], marks=pytest.mark.slow),
        pytest.param("btrfs", 128, ["btrfs", "check"], marks=pytest.mark.slow),
    ],
)
def test_points_under_a_writer_are_the_frozen_disk(kind: str, size: int, check: list[str], bench: Bench) -> None:
    with (
        disk_with(kind, bench.folder, size * MIB) as (device, mount),
        writer(mount) as log,
        LiveSession(PATIENT) as session,
    ):
        first = bench.capture(device, session, log)
        second = bench.capture(device, session, log)
        assert first.body.consistency == second.body.consistency == "filesystem"
        live = second.body.live
        assert live is not None and live.tracker in ("ebpf", "tracefs")
        assert [(each.kind, each.how) for each in live.filesystems] == [(kind, "frozen")]
        assert live.freeze_milliseconds > 0 and live.moment >= first.header.created
        if not live.full_compare:
            # Only what changed was read.
            assert live.passes[0].bytes < size * MIB and second.body.disks[0].changed < size * MIB // 2
        if kind == "ext4":
            records = bench.records(second)
            # Every record that was acknowledged before the freeze, and no hole.
            assert len(records) >= bench.lines_when_frozen > 0
            assert records == [f"{number:08d}" for number in range(1, len(records) + 1)]
        assert find_filesystems([tracked_disk("disk1", device)])[0].mount == str(mount)
    restored = bench.folder / "restored.img"
    if kind == "xfs":
        # xfs_repair does not look at the log, which a frozen xfs leaves as it is.
        sh("mount", "-o", "loop", restored, bench.folder / "mnt")
        sh("umount", bench.folder / "mnt")
    sh(*check, restored)


def test_a_doubt_leads_to_a_full_compare_which_the_point_says(bench: Bench) -> None:
    with disk_with("ext4", bench.folder, 64 * MIB) as (device, mount), LiveSession(PATIENT, ("tracefs",)) as session:
        first = bench.capture(device, session)
        assert first.body.live is not None and "not tracked until now" in first.body.live.full_compare
        (mount / "a").write_bytes(b"a" * MIB)
        second = bench.capture(device, session)
        assert second.body.live is not None and second.body.live.full_compare == ""
        assert second.body.live.passes[0].bytes == 0
        # Another capture of the host came between.
        bench.repository.commit(
            type(second.header)(
                version=1,
                repository=bench.repository.id,
                host="h",
                created=time.time(),
                parent=second.id,
                maps=second.header.maps,
            ),
            second.body,
        )
        (mount / "b").write_bytes(b"b" * MIB)
        third = bench.capture(device, session)
        assert third.body.live is not None and "not the one" in third.body.live.full_compare
        assert third.body.live.passes[0].bytes == 64 * MIB


def test_missed_writes_are_noticed_and_all_is_read_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that the tracker did not see, while the first copy is made: the counters tell, under the freeze."""
    with disk_with("ext4", bench.folder, 64 * MIB) as (device, mount), LiveSession(PATIENT) as session:
        missed: list[bool] = []
        usual = cut._Cut._pass

        def lose(self: cut._Cut, changed: dict[str, object]) -> None:
            usual(self, changed)  # type: ignore[arg-type]
            if not missed and isinstance(tracker := session.tracker._tracker, EbpfTracker):
                missed.append(True)
                (mount / "unseen").write_bytes(b"x" * MIB)
                sh("sync", "--file-system", mount)
                tracker._control[64 + 16 : 64 + 112] = bytes(96)
                tracker.switch()

        monkeypatch.setattr(cut._Cut, "_pass", lose)
        point = bench.capture(device, session)
        assert missed and any("not known completely" in text for text in bench.told)
        assert point.body.live is not None and "missed" in point.body.live.full_compare
        assert point.body.live.tracker == "tracefs"


AGENT = """
import sys, time
from pathlib import Path
from recovery.capture.live.filesystems import find_filesystems
from recovery.capture.live.holder import Holder
from recovery.capture.tracking.witness import tracked_disk
with Holder(find_filesystems([tracked_disk("disk1", Path(sys.argv[1]))])) as holder:
    holder.freeze(float(sys.argv[2]))
    print("frozen", holder.process_id, flush=True)
    time.sleep(3600)
"""


@pytest.mark.parametrize(("seconds", "kill"), [("3600", True), ("1", False)])
def test_what_is_frozen_thaws_when_the_agent_dies_or_hangs(tmp_path: Path, seconds: str, kill: bool) -> None:
    with disk_with("ext4", tmp_path, 64 * MIB) as (device, mount):
        agent = subprocess.Popen(
            [sys.executable, "-c", AGENT, str(device), seconds], stdout=subprocess.PIPE, text=True
        )
        wrote = threading.Event()

        def write() -> None:
            (mount / "file").write_text("x")
            wrote.set()

        thread = threading.Thread(target=write, daemon=True)
        try:
            assert agent.stdout is not None and agent.stdout.readline().startswith("frozen")
            thread.start()
            if kill:
                assert not wrote.wait(0.5)
                agent.send_signal(signal.SIGKILL)
            # It would be an hour otherwise.
            assert wrote.wait(120)
        finally:
            agent.kill()
            agent.wait()
            subprocess.run(["fsfreeze", "-u", mount], check=False, capture_output=True)
            thread.join()


#: Writes one page at one place of a device, past every filesystem, without a pause.
def test_what_writes_past_the_filesystems_makes_no_point(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    with disk_with("ext4", bench.folder, 64 * MIB) as (device, mount), mmap.mmap(-1, 4096) as page:
        descriptor = os.open(device, os.O_RDWR | os.O_DIRECT)
        written = 0

        class Overtaken(ReadingCrew):
            """Each time that the rest was read, somebody has written to the disk itself. Done here, between the two:
            a program beside us gets no processor time just then on a busy machine, and then the disk did rest."""

            def read(self, reads: Sequence[Read], in_time: Callable[[], bool] = lambda: True) -> bool:
                nonlocal written
                done = super().read(reads, in_time)
                written += os.pwritev(descriptor, [page], 60 * MIB)
                return done

        monkeypatch.setattr(cut, "ReadingCrew", Overtaken)
        try:
            with (
                LiveSession(FreezeLimits(freeze=60.0, attempts=2)) as session,
                pytest.raises(NotStillError, match="writes past the frozen filesystems"),
            ):
                bench.capture(device, session)
        finally:
            os.close(descriptor)
        assert written == 2 * 4 * 4096, "in each of two freezes, four rounds"
        assert bench.repository.latest("h") is None
        (mount / "not-frozen").write_text("x")


def test_a_freeze_that_took_too_long_is_tried_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    usual, asked = Holder.freeze, list[float]()

    def freeze(holder: Holder, seconds: float, volumes: Sequence[RawVolume] = ()) -> list[How]:
        asked.append(seconds)
        # A limit that no filesystem can keep, by the real process.
        return usual(holder, 0.0 if len(asked) < tries else seconds, volumes)

    monkeypatch.setattr(Holder, "freeze", freeze)
    with disk_with("ext4", bench.folder, 64 * MIB) as (device, mount):
        (mount / "file").write_bytes(os.urandom(MIB))
        tries = 2
        with LiveSession(FreezeLimits(freeze=60.0, attempts=3)) as session:
            point = bench.capture(device, session)
        assert point.body.live is not None and point.body.live.attempts == 2
        asked.clear()
        tries = 99
        with (
            LiveSession(FreezeLimits(freeze=60.0, attempts=3)) as session,
            pytest.raises(NotStillError, match="did not freeze within 0 ms"),
        ):
            bench.capture(device, session)
        assert len(asked) == 3
        (mount / "not-frozen").write_text("x")


def test_what_would_wait_for_itself_is_refused(bench: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    with disk_with("ext4", bench.folder, 64 * MIB) as (device, mount), LiveSession(PATIENT) as session:
        inside = new_repository(mount / "repo")
        request = CaptureRequest(host="h", disks=(device,))
        with pytest.raises(UsageError, match="lies on a disk that is to be captured"):
            capture_live(inside, bench.index, request, session, ignore, threading.Event())
        with pytest.raises(UsageError, match="is not a disk"):
            image = CaptureRequest(host="h", disks=(bench.folder / "ext4.img",))
            capture_live(bench.repository, bench.index, image, session, ignore, threading.Event())
        with capfd.disabled(), (mount / "output").open("w") as output:
            kept = os.dup(1)
            os.dup2(output.fileno(), 1)
            try:
                with pytest.raises(BusyError, match="Our own output"):
                    capture_live(bench.repository, bench.index, request, session, ignore, threading.Event())
            finally:
                os.dup2(kept, 1)
                os.close(kept)


def test_a_freeze_by_somebody_else_is_left_alone(tmp_path: Path) -> None:
    with (
        disk_with("ext4", tmp_path, 64 * MIB) as (device, mount),
        Holder(find_filesystems([tracked_disk("disk1", device)])) as holder,
    ):
        sh("fsfreeze", "-f", mount)
        try:
            with pytest.raises(BusyError, match="frozen already"):
                holder.freeze(5.0)
            # Still theirs.
            assert subprocess.run(["fsfreeze", "-f", mount], check=False, capture_output=True).returncode != 0
        finally:
            sh("fsfreeze", "-u", mount)
