"""One bit flipped anywhere in a repository: never a wrong byte on the disk; with a second copy nothing is lost,
without one it is said what and where."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from recovery.cli.main import main
from recovery.format.names import map_name, point_name
from recovery.layout import Content, Partition, PartitionTable
from tests.support.copies import CHUNK, Copies
from tests.support.repositories import PASSPHRASE

pytestmark = pytest.mark.faults

MIB = 2**20
#: Bits per place; ``REKINDLE_BITS=50`` for many more, ``REKINDLE_SEED`` for others.
_BITS = int(os.environ.get("REKINDLE_BITS", "1"))
_SEED = int(os.environ.get("REKINDLE_SEED", "5"))
_ROOT = Partition(number=2, start=MIB, size=9 * MIB, name="root", content=Content(kind="ext4"))
_FRAME = 14

PLACES = (
    "repo.json", "key", "point", "map", "frame's head", "frame's salt", "frame's content", "frame's seal", "footer",
)  # fmt: skip


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory) -> Copies:
    table = PartitionTable(kind="gpt", partitions=(_ROOT,))
    return Copies(tmp_path_factory.mktemp("bits"), table)


def place(copies: Copies, name: str) -> tuple[Path, int, int]:
    """A file of the first copy, and the range of its bytes that is meant."""
    folder, entry = copies.folder / "one", copies.entry(_FRAME)
    pack = copies.pack("one", _FRAME)
    # The head of a frame has 76 bytes, of which the last 24 are the salt; a seal has 16 (docs/format.md).
    start, end = entry.offset, entry.offset + entry.length
    header = copies.point.header
    whole: dict[str, Path] = {
        "repo.json": folder / "repo.json",
        "key": next(path for path in (folder / "keys").rglob("*.json") if b"passphrase" in path.read_bytes()),
        "point": folder / point_name("hv1", header.created, copies.point.id),
        "map": folder / map_name(header.maps[0].map),
    }
    if name in whole:
        return whole[name], 0, whole[name].stat().st_size
    ranges = {
        "frame's head": (start, start + 52),
        "frame's salt": (start + 52, start + 76),
        "frame's content": (start + 76, end - 16),
        "frame's seal": (end - 16, end),
        "footer": (
            max(e.offset + e.length for _, e in copies.map.blobs() if e.pack == entry.pack),
            pack.stat().st_size,
        ),
    }
    return pack, *ranges[name]


@pytest.fixture
def flipped(copies: Copies, request: pytest.FixtureRequest) -> Iterator[str]:
    """One bit is wrong for the time of the test; what it was is told."""
    name, number = request.param
    file, start, end = place(copies, name)
    source = random.Random(f"{_SEED} {name} {number}")
    at, bit = source.randrange(start, end), source.randrange(8)
    good = file.read_bytes()
    mode = file.stat().st_mode
    file.chmod(0o600)
    file.write_bytes(good[:at] + bytes([good[at] ^ 1 << bit]) + good[at + 1 :])
    yield f"{name}: bit {bit} of byte {at} of {file.name}, seed {_SEED}"
    file.write_bytes(good)
    file.chmod(mode)


def restore(copies: Copies, folder: Path, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[int, str, str]:
    """``rekindle restore`` from the first copy; exit code, output, errors."""
    (folder / "secret").write_text(PASSPHRASE)
    words = ["--host", "hv1", "--target", f"disk1={folder / 'out.img'}", "--no-adapt", "--verify"]
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main(["restore", str(copies.folder / "one"), *words, "--secret-file", str(folder / "secret"), *more])
    said = capsys.readouterr()
    return int(stop.value.code or 0), said.out, " ".join(said.err.split())


EVERYWHERE = pytest.mark.parametrize(
    "flipped", [(name, number) for name in PLACES for number in range(_BITS)], indirect=True,
    ids=[f"{name} {number}" for name in PLACES for number in range(_BITS)],
)  # fmt: skip


@EVERYWHERE
def test_with_a_second_copy_nothing_is_lost(
    copies: Copies, flipped: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, errors = restore(copies, tmp_path, capsys, "--also", str(copies.folder / "two"))
    assert code == 0, (flipped, errors)
    assert (tmp_path / "out.img").read_bytes() == copies.data, flipped
    assert f"its Merkle root is the signed one: {copies.point.disk('disk1').root}" in out


@EVERYWHERE
def test_without_one_no_wrong_byte_is_written(
    copies: Copies, flipped: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, errors = restore(copies, tmp_path, capsys)
    target = tmp_path / "out.img"
    if flipped.startswith("footer"):  # a restore needs none
        assert code == 0, (flipped, errors)
        assert target.read_bytes() == copies.data
        return
    # A key that was damaged opens nothing; all else is damage.
    assert code in ((4, 5) if flipped.startswith("key") else (5, 11)), (flipped, errors)
    assert "Traceback" not in errors and "Bug" not in errors
    if not flipped.startswith("frame"):
        assert not target.exists(), flipped
        return
    found = target.read_bytes()
    pairs = ((found[at : at + 4096], copies.data[at : at + 4096]) for at in range(0, len(found), 4096))
    wrong = [number for number, (is_there, right) in enumerate(pairs) if any(is_there) and is_there != right]
    assert wrong == [], flipped
    assert not any(found[:CHUNK]), "it must not boot"
    offset = _FRAME * CHUNK
    assert f"byte {offset} of disk1, 2.50 MiB into partition 2 (ext4)" in errors, errors
    assert f"not complete: {target}" in out and "to go on: rekindle restore" in out
    said = out + errors
    assert (said.count("o go on: "), said.count("without partition table")) == (1, 0), "once, and the whole of it"
    assert "--secret-file" in out.partition("to go on: ")[2].splitlines()[0]


@pytest.mark.parametrize("flipped", [("frame's content", 0)], indirect=True)
def test_what_is_lost_is_listed_with_offset_and_partition_when_that_was_asked_for(
    copies: Copies, flipped: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, errors = restore(copies, tmp_path, capsys, "--skip-damaged")
    assert code == 5, (flipped, errors)
    assert (tmp_path / "out.img").read_bytes() == copies.wipe(_FRAME)
    assert f"lost: byte {_FRAME * CHUNK}: {CHUNK} bytes, partition 2 (ext4)" in out
    (tmp_path / "out.img").unlink()
    code, out, errors = restore(copies, tmp_path, capsys, "--skip-damaged", "--json")
    report = json.loads(next(line for line in out.splitlines() if line.startswith('{"type":"report"')))["report"]
    (lost,) = report["disks"][0]["damaged"]
    assert (lost["offset"], lost["length"], lost["partition"], lost["content"]) == (_FRAME * CHUNK, CHUNK, 2, "ext4")
