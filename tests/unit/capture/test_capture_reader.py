"""Which chunks are read, and what happens when a disk cannot be; matching disks with those of the parent point."""

from __future__ import annotations

import threading
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recovery.capture.crew import Channel, Crew
from recovery.capture.identity import Identity
from recovery.capture.parent import match_disks
from recovery.capture.reader import SourceReader, chunk_runs
from recovery.capture.sources import Source
from recovery.errors import CancelledError, DeviceError, SpaceError
from recovery.format.point import PointDisk
from tests.support.examples import examples

CHUNK = 64 * 1024


def source(path: Path, name: str = "disk1", size: int = 0, **identity: str) -> Source:
    size = size or path.stat().st_size
    return Source(name, path, path, size, 512, False, identity=Identity(**identity))


@settings(deadline=None, max_examples=examples(60))
@given(
    st.integers(1, 12 * CHUNK), st.lists(st.tuples(st.integers(0, 12 * CHUNK), st.integers(1, 2 * CHUNK)), max_size=4)
)
def test_runs_cover_the_disk_and_leave_out_only_zeros(size: int, writes: list[tuple[int, int]]) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "disk"
        with path.open("wb") as file:
            file.truncate(size)
            for offset, length in writes:
                if offset < size:
                    file.seek(offset)
                    file.write(b"x" * min(length, size - offset))
        runs = list(chunk_runs(source(path), CHUNK))
        data = path.read_bytes()
    count = -(-size // CHUNK)
    assert [index for first, length, _ in runs for index in range(first, first + length)] == list(range(count))
    assert all(has != other for (_, _, has), (_, _, other) in zip(runs, runs[1:], strict=False))
    for first, length, has_data in runs:
        for index in range(first, first + length):
            written = any(data[index * CHUNK : (index + 1) * CHUNK])
            assert has_data or not written
    if not writes:
        assert not any(has for _, _, has in runs)


def test_a_disk_that_ends_early_is_an_error_with_its_offset(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes(b"x" * 1000)
    reader = SourceReader(source(path, size=4000))
    with pytest.raises(DeviceError, match="ends at byte 1000, but it had 4000"):
        reader.read_into(0, memoryview(bytearray(4000)))
    reader.close()


def disk(
    name: str, size: int = 10, *, wwn: str = "", serial: str = "", model: str = "", device: str = ""
) -> PointDisk:
    return PointDisk(
        name=name, size=size, sector_size=512, chunk_size=CHUNK, root="",
        wwn=wwn, serial=serial, model=model, device=device,
    )  # fmt: skip


def test_disks_are_matched_by_wwn_and_serial_before_their_names() -> None:
    path = Path("/dev/sdx")
    ours = [
        source(path, "disk1", 10, serial="S2", model="M"),
        source(path, "disk2", 10, wwn="0x1"),
        source(path, "disk3", 10),
    ]
    theirs = [
        disk("disk1", wwn="0x1"),
        disk("disk2", serial="S2", model="M"),
        disk("disk3", 99),
        disk("disk4", serial="S2", model="other"),
    ]
    found = match_disks(ours, theirs)
    assert {name: found[name].name for name in found} == {"disk1": "disk2", "disk2": "disk1"}


def test_image_files_are_matched_by_their_names_then_by_place() -> None:
    ours = [source(Path("/a/b.img"), "disk1", 10), source(Path("/a/new.img"), "disk2", 20)]
    theirs = [disk("disk1", 20, device="a.img"), disk("disk2", 10, device="b.img")]
    assert {name: value.name for name, value in match_disks(ours, theirs).items()} == {"disk1": "disk2"}
    assert match_disks(ours, []) == {}


def test_the_first_error_stops_all_threads() -> None:
    crew = Crew(threading.Event())
    channel: Channel[int] = Channel(crew, 1)

    def fail() -> None:
        channel.get()
        raise SpaceError("full")

    crew.start("reader", fail)

    def fill() -> None:
        for number in range(100):
            channel.put(number)

    waiting = crew.start("stuck", fill)
    with pytest.raises(SpaceError):
        crew.finish()
    assert not waiting.is_alive()


def test_cancelling_stops_threads_that_wait() -> None:
    cancel = threading.Event()
    crew = Crew(cancel)
    channel: Channel[int] = Channel(crew, 1)

    def wait() -> None:
        channel.get()

    crew.start("waits", wait)
    cancel.set()
    with pytest.raises(CancelledError):
        crew.finish()


def test_each_item_reaches_one_reader_and_all_readers_end() -> None:
    crew = Crew(threading.Event())
    channel: Channel[int] = Channel(crew, 2)
    seen: list[int] = []

    def read() -> None:
        while (item := channel.get()) is not None:
            seen.append(item)

    for number in range(4):
        crew.start(f"reader-{number}", read)
    for item in range(50):
        channel.put(item)
    channel.close()
    crew.finish()
    assert sorted(seen) == list(range(50))
