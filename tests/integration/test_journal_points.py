"""Points with journals, restored: any minute, over a directory and a server, onto dirt, from damaged repositories."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from recovery.cli.main import main
from recovery.engine.preflight import check_packs
from recovery.errors import AccessError, IntegrityError, NotFoundError, RekindleError, UsageError
from recovery.events import ignore
from recovery.format.chunkmap import ChunkMap
from recovery.format.names import journal_name
from recovery.format.overlay import composed_root
from recovery.format.point import Point, PointHeader, encode_point
from recovery.repository.check import check
from recovery.repository.content import disk_content
from recovery.repository.failover import with_copies
from recovery.repository.repository import Repository
from recovery.repository.store import open_local
from recovery.restore.disk import RestoreOptions, restore_disk
from recovery.restore.pace import Gate
from recovery.restore.peek import read_captured
from recovery.restore.report import DiskReport
from recovery.restore.writes import Piece, WriteBehind
from tests.support.journals import Minutes, scribble
from tests.support.repositories import PASSPHRASE, commit, new_repository, store_disk
from tests.support.server import ServerRig

CHUNK = 256 * 1024
SIZE = 40 * CHUNK + 4096 * 3 + 512
ALL = RestoreOptions(verify_all=True)


def base_disk() -> bytes:
    """Content, zeros and the same chunk in several places."""
    chance = random.Random(4)
    same = chance.randbytes(CHUNK)
    parts = [chance.choice([bytes(CHUNK), same, chance.randbytes(CHUNK)]) for _ in range(40)]
    return b"".join(parts) + chance.randbytes(SIZE - 40 * CHUNK)


class History:
    """A keyframe and some minutes, in a repository: ``disks[n]`` is what the disk was at ``points[n]``."""

    def __init__(self, repository: Repository, count: int = 6) -> None:
        self.repository = repository
        self.disks = [base_disk()]
        self.points = [commit(repository, "hv1", {"disk1": store_disk(repository, self.disks[0])})]
        self.minutes = Minutes(repository, self.points[0])
        for number in range(count):
            new = scribble(self.disks[-1], number)
            if number == 2:  # both ends, and a chunk that journals cover wholly
                new = os.urandom(5000) + new[5000 : 7 * CHUNK] + os.urandom(CHUNK) + new[8 * CHUNK : -100] + bytes(100)
            if number == 4:  # all of a stored chunk is discarded
                new = new[: 7 * CHUNK] + bytes(CHUNK) + new[8 * CHUNK :]
            self.points.append(self.minutes.add(self.disks[-1], new))
            self.disks.append(new)


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History(new_repository(tmp_path / "r"))


def restore(repository: Repository, point: Point, out: Path, options: RestoreOptions = ALL) -> DiskReport:
    return restore_disk(repository, point, "disk1", str(out), ignore, threading.Event(), options)


def test_every_minute_is_restored_to_the_byte(history: History, tmp_path: Path) -> None:
    for number, (point, disk) in enumerate(zip(history.points, history.disks, strict=True)):
        out = tmp_path / f"out{number}"
        report = restore(history.repository, point, out)
        assert out.read_bytes() == disk
        assert report.root_matched and report.verified_bytes == SIZE == report.logical
        assert report.logical == report.written + report.zeroed + report.skipped
        assert (report.journals, report.root) == (number, point.disk("disk1").root)


def test_the_root_of_what_is_read_back_is_the_one_that_a_capture_of_that_disk_would_have(
    history: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else 'root matched' would say only that the restore agrees with itself."""
    seen: list[bytes] = []

    def watched(map: ChunkMap, composed: Mapping[int, bytes]) -> bytes:
        seen.append(composed_root(map, composed))
        return seen[-1]

    monkeypatch.setattr("recovery.restore.disk.composed_root", watched)
    restore(history.repository, history.points[-1], tmp_path / "out")
    captured = store_disk(history.repository, history.disks[-1])[1]
    assert seen == [captured.root()]


def test_a_disk_that_holds_something_else_becomes_that_minute_and_the_next_restore_fetches_little(
    history: History, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.write_bytes(os.urandom(SIZE + 4096))
    restore(history.repository, history.points[3], out)
    assert out.read_bytes()[:SIZE] == history.disks[3]
    report = restore(history.repository, history.points[4], out, RestoreOptions(verify_all=True, compare="always"))
    assert out.read_bytes()[:SIZE] == history.disks[4]
    assert report.root_matched and report.skipped > report.written
    again = restore(history.repository, history.points[4], out, RestoreOptions(verify_all=True, compare="always"))
    # The first and the last MiB are wiped first: nothing else is written again.
    assert again.written <= 3 * 2**20 and again.root_matched


@pytest.mark.parametrize("plain_packs", [False, True])
def test_through_a_server(tmp_path: Path, plain_packs: bool) -> None:
    rig = ServerRig(tmp_path, plain_packs=plain_packs)
    try:
        # The keyframe is made where the rig's files are; the minutes by a login that may only add.
        history = History(rig.local, count=0)
        writer = rig.repository("capture", "hv1")
        history.minutes.repository = writer
        for number in range(5):
            history.disks.append(scribble(history.disks[-1], number))
            history.points.append(history.minutes.add(*history.disks[-2:]))
        reader = Repository(rig.store("restore", "hv1", plain_packs=plain_packs), rig.local.file, rig.local.keys)
        for number in (2, 5):
            restore(reader, reader.point("hv1", history.points[number].id), tmp_path / "out")
            assert (tmp_path / "out").read_bytes() == history.disks[number]
        journal = journal_name("hv1", history.points[3].header.journals[0].journal)
        assert writer.store.size(journal) == rig.local.store.size(journal)
        for forbidden in (
            lambda: writer.store.get(journal),
            lambda: writer.store.delete(journal),
            lambda: reader.store.delete(journal),
            lambda: rig.store("restore", "db*").get(journal),
            lambda: rig.store("capture", "db*").put_if_absent(journal, rig.local.store.get(journal)),
        ):
            with pytest.raises(AccessError):
                forbidden()
        assert journal in {info.name for info in reader.store.list("journals/")}
        assert not list(rig.store("restore", "db*").list("journals/"))
    finally:
        rig.close()


def test_nobody_waits_for_a_turn_with_a_buffer_that_others_wait_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those who composed chunks once held the writers' buffers while they waited for their turn to decode, and whose
    turn it was waited for a buffer: for ever, where a server is quick and chunks of both kinds are many."""
    passed, take, put = Gate.passed, WriteBehind.take, WriteBehind.put
    mine, taken = threading.local(), []

    @contextlib.contextmanager
    def watched(gate: Gate) -> Iterator[None]:
        if getattr(mine, "buffers", 0):
            raise AssertionError("a thread with a buffer waits at a gate")
        with passed(gate):
            yield

    def took(writes: WriteBehind) -> memoryview:
        buffer = take(writes)
        mine.buffers = getattr(mine, "buffers", 0) + 1
        taken.append(threading.get_ident())
        return buffer

    def gave(writes: WriteBehind, buffer: memoryview, pieces: list[Piece]) -> None:
        mine.buffers -= 1
        put(writes, buffer, pieces)

    monkeypatch.setattr(Gate, "passed", watched)
    monkeypatch.setattr(WriteBehind, "take", took)
    monkeypatch.setattr(WriteBehind, "put", gave)
    history = History(new_repository(tmp_path / "r"))
    restore(history.repository, history.points[-1], tmp_path / "out")
    assert taken and (tmp_path / "out").read_bytes() == history.disks[-1]


def test_a_server_takes_nothing_that_is_not_whole(tmp_path: Path) -> None:
    rig = ServerRig(tmp_path)
    try:
        history = History(rig.local, count=1)
        writer = rig.repository("capture", "hv*")
        minutes = Minutes(writer, history.points[0])
        journal = minutes.encode([])
        for name, data, error in (
            (journal_name("hv1", journal.digest), journal.data[:-1], IntegrityError),
            (journal_name("hv1", "0" * 64), journal.data, IntegrityError),
            (journal_name("hv2", journal.digest), journal.data, IntegrityError),
            (journal_name("hv1", "ab" * 32), b"RKJOURN\x01 rubbish", IntegrityError),
        ):
            with pytest.raises(error):
                writer.store.put_if_absent(name, data)
        # A point whose journal was never sent, and one whose journal is of another keyframe.
        latest = history.points[-1]
        forged = PointHeader(
            version=2, repository=writer.id, host="hv1", created=latest.header.created + 60, parent=latest.id,
            maps=latest.header.maps, journals=tuple(
                type(ref)(disk=ref.disk, journal="12" * 32, head=ref.head) for ref in latest.header.journals
            ),
        )  # fmt: skip
        id, data = encode_point(writer.keys, forged, latest.body)
        with pytest.raises(RekindleError, match="does not have"):
            writer.store.put_if_absent(f"points/hv1/{round(forged.created * 1e6):016d}-{id}", data)
        assert [point.id for point in rig.local.points("hv1")] == [point.id for point in history.points]
    finally:
        rig.close()


def journals(repository: Repository) -> list[Path]:
    return [Path(str(repository.store.location)) / info.name for info in repository.store.list("journals/")]  # type: ignore[attr-defined]


def newest(history: History) -> Path:
    name = history.points[-1].header.journals[0].journal
    return next(path for path in journals(history.repository) if path.name == name)


def test_every_flipped_bit_and_every_cut_of_a_journal_is_found_by_the_check_and_by_the_restore(
    history: History, tmp_path: Path
) -> None:
    whole = check(history.repository, read_data=True)
    assert whole.ok and whole.journals == 6 and not whole.spare
    chance = random.Random(11)
    path = newest(history)
    data = path.read_bytes()
    for number in range(24):
        damaged = bytearray(data)
        if number % 2:
            damaged[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        else:
            del damaged[chance.randrange(len(data)) :]
        path.write_bytes(damaged)
        report = check(history.repository, read_data=True)
        assert [damage.object for damage in report.damages] == [f"journals/hv1/{path.name}"]
        assert report.damages[0].hurts == (f"hv1 {history.points[-1].id[:12]} disk1",)
        out = tmp_path / "out"
        try:
            restore(history.repository, history.points[-1], out)
        except IntegrityError:
            continue
        # A frame that nothing needs any more is not read.
        assert out.read_bytes() == history.disks[-1]
    path.unlink()
    assert [damage.what for damage in check(history.repository).damages] == ["it is missing"]
    with pytest.raises(NotFoundError):
        restore(history.repository, history.points[-1], tmp_path / "out")


def test_a_cut_journal_shows_without_reading_all_data(history: History) -> None:
    path = newest(history)
    path.write_bytes(path.read_bytes()[:-1])
    report = check(history.repository)
    assert [damage.object for damage in report.damages] == [f"journals/hv1/{path.name}"]


def test_journals_in_another_order_or_of_another_point_are_refused(history: History) -> None:
    """Each is whole and of this repository: only their signed root tells."""
    paths = {path.name: path for path in journals(history.repository)}
    entries = history.minutes.chain
    one, two = (paths[entry.digest.hex()] for entry in entries[2:4])
    other = history.minutes.encode([])  # of the same host, disk and keyframe
    for content in (two.read_bytes(), other.data):
        before = one.read_bytes()
        one.write_bytes(content)
        with pytest.raises(IntegrityError):
            disk_content(history.repository, history.points[-1], "disk1")
        one.write_bytes(before)
    assert disk_content(history.repository, history.points[-1], "disk1").overlay is not None


def test_a_copy_of_the_repository_helps_out(history: History, tmp_path: Path) -> None:
    root = tmp_path / "r"
    shutil.copytree(root, tmp_path / "copy")
    for path in journals(history.repository):
        data = bytearray(path.read_bytes())
        data[-20] ^= 1
        path.write_bytes(data)
    both = with_copies(history.repository, [open_local(tmp_path / "copy")])
    restore(both, history.points[-1], tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == history.disks[-1]


def test_what_no_copy_has_is_named_or_left_as_zeros(history: History, tmp_path: Path) -> None:
    path = newest(history)
    data = bytearray(path.read_bytes())
    data[-20] ^= 1  # the last frame
    path.write_bytes(data)
    with pytest.raises(IntegrityError, match="of disk1") as caught:
        restore(history.repository, history.points[-1], tmp_path / "out")
    assert "journals/hv1/" in caught.value.hint
    report = restore(
        history.repository, history.points[-1], tmp_path / "out",
        RestoreOptions(verify_all=True, skip_damaged=True),
    )  # fmt: skip
    out = (tmp_path / "out").read_bytes()
    assert report.damaged and not report.root_matched
    lost = {
        index
        for damage in report.damaged
        for index in range(damage.offset // CHUNK, -(-(damage.offset + damage.length) // CHUNK))
    }
    for index in range(-(-SIZE // CHUNK)):
        place = slice(index * CHUNK, min(SIZE, (index + 1) * CHUNK))
        assert out[place] == (bytes(place.stop - place.start) if index in lost else history.disks[-1][place])


def test_who_knows_no_journals_is_refused_and_never_given_the_keyframe(history: History) -> None:
    with pytest.raises(UsageError, match="journals"):
        history.repository.chunk_map(history.points[-1], "disk1")
    assert (
        history.repository.base_map(history.points[-1], "disk1").root().hex() == history.points[0].disk("disk1").root
    )


@pytest.fixture
def times(tmp_path: Path) -> Iterator[tuple[Repository, list[Point]]]:
    repository = new_repository(tmp_path / "t")
    disk = bytes(CHUNK)
    key = commit(repository, "hv1", {"disk1": store_disk(repository, disk)}, created=1_700_000_000.0)
    minutes = Minutes(repository, key)
    yield repository, [key, *(minutes.add(disk, disk, created=1_700_000_000.0 + 60 * n) for n in (1, 2, 3))]


def test_a_time_means_the_newest_point_at_or_before_it(times: tuple[Repository, list[Point]]) -> None:
    repository, points = times
    for moment, number in ((1_700_000_000.0, 0), (1_700_000_059.9, 0), (1_700_000_060.0, 1), (1_800_000_000.0, 3)):
        assert repository.at("hv1", moment).id == points[number].id
    for text, number in (
        ("2023-11-14T22:13:20Z", 0),  # the whole second
        ("2023-11-14T22:14Z", 1),  # the whole minute
        ("2023-11-14 22:15:19 UTC", 1),
        ("3 hours ago", 3),
        ("latest", 3),
        (points[2].id[:8], 2),
    ):
        assert repository.point("hv1", text).id == points[number].id
    for text in ("2023-11-13T22:14Z", "abcdef0123", "no time", "ab"):
        with pytest.raises(NotFoundError):
            repository.point("hv1", text)
    with pytest.raises(NotFoundError, match="no point of that time") as caught:
        repository.at("hv1", 1_699_999_999.0)
    assert "2023-11-14" in caught.value.hint


def test_any_bytes_of_a_minute_are_read_without_restoring_it(history: History) -> None:
    for number in (0, 3, 6):
        point, disk = history.points[number], history.disks[number]
        assert read_captured(history.repository, point, "disk1", 0, SIZE + 1) == disk
        assert (
            read_captured(history.repository, point, "disk1", 7 * CHUNK - 100, 5000) == disk[7 * CHUNK - 100 :][:5000]
        )
    path = newest(history)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(IntegrityError, match="No copy of the repository has the content of disk1"):
        read_captured(history.repository, history.points[-1], "disk1", 0, SIZE)


def test_what_is_missing_is_known_before_the_first_write(history: History, tmp_path: Path) -> None:
    point = history.points[-1]
    assert not list(check_packs(history.repository, point, ["disk1"]))
    path = newest(history)
    data = path.read_bytes()
    for kept, code in ((len(data) - 1, "journal-truncated"), (100, "map-damaged"), (0, "map-damaged")):
        path.write_bytes(data[:kept])
        assert [problem.code for problem in check_packs(history.repository, point, ["disk1"])] == [code]
    path.unlink()
    assert [problem.code for problem in check_packs(history.repository, point, ["disk1"])] == ["map-damaged"]
    assert not list(check_packs(history.repository, history.points[-2], ["disk1"]))


def test_the_command_restores_a_time(
    times: tuple[Repository, list[Point]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    repository, points = times
    (tmp_path / "secret").write_text(PASSPHRASE)
    out = tmp_path / "out.img"
    words = ["restore", str(repository.store.location), "--host", "hv1", "--point", "2023-11-14T22:14Z"]  # type: ignore[attr-defined]
    with pytest.raises(SystemExit) as stop:
        main([*words, "--target", f"disk1={out}", "--secret-file", str(tmp_path / "secret"), "--verify"])
    said = capsys.readouterr().out
    assert stop.value.code in (0, None), said
    assert points[1].id[:12] in said and "keyframe and 1 journals" in said
    assert out.read_bytes() == bytes(CHUNK)
