"""The trees of dm-thin, as its own tools write them."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recovery.capture.crc32c import crc32c
from recovery.capture.thin import BLOCK, ThinPlace, thin_runs, thin_start
from recovery.errors import IntegrityError
from recovery.format.extents import Run
from recovery.units import MIB
from tests.support.examples import examples
from tests.support.thin_pool import CHUNK, write_metadata

pytestmark = pytest.mark.skipif(shutil.which("thin_restore") is None, reason="needs thin-provisioning-tools")

#: Chunk -> chunk of the pool: neighbours are as likely as leaps.
mappings = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4000)), max_size=60).map(
    lambda steps: {sum(step for step, _ in steps[:n]) + n: block for n, (_, block) in enumerate(steps)}
)


def metadata(folder: Path, volumes: dict[int, dict[int, int]], size: int = MIB, chunk: int = CHUNK) -> bytes:
    file = folder / "meta"
    with file.open("wb") as opened:
        opened.truncate(size)
    write_metadata(file, volumes, chunk=chunk)
    return file.read_bytes()


def place(device: int, transaction: int = 2) -> ThinPlace:
    return ThinPlace((), (), device, transaction)


def runs_of(data: bytes, device: int, size: int = 1 << 40) -> list[Run]:
    return thin_runs(lambda at, length: data[at : at + length], place(device), size)


def spelled(runs: list[Run], chunk: int = CHUNK) -> dict[int, int]:
    """The runs chunk by chunk."""
    return {(r.at + n) // chunk: (r.offset + n) // chunk for r in runs for n in range(0, r.length, chunk)}


@given(st.dictionaries(st.integers(0, 2**24 - 1), mappings, min_size=1, max_size=4), st.sampled_from([64, 192, 1024]))
@settings(max_examples=examples(60), deadline=None)
def test_what_the_tools_write_is_read_back(volumes: dict[int, dict[int, int]], kib: int) -> None:
    with TemporaryDirectory() as folder:
        data = metadata(Path(folder), volumes, chunk=kib * 1024)
    for number, mapped in volumes.items():
        runs = runs_of(data, number)
        assert spelled(runs, kib * 1024) == mapped
        for one, other in zip(runs, runs[1:], strict=False):
            assert one.at + one.length <= other.at
            assert (one.at + one.length, one.offset + one.length) != (other.at, other.offset), "neighbours are one run"
        start = thin_start(lambda at, length: data[at : at + length], place(number))
        assert start == ((mapped[0] * kib * 1024, kib * 1024) if 0 in mapped else None)


def test_a_tree_of_several_levels(tmp_path: Path) -> None:
    """A leaf has 252 mappings, an inner node as many leaves."""
    dice = random.Random(1)
    blocks = list(range(150_000))
    dice.shuffle(blocks)
    mapped = dict(zip(sorted(dice.sample(range(10**6), len(blocks))), blocks, strict=True))
    data = metadata(tmp_path, {1: {0: 5}, 2: mapped}, 8 * MIB)
    assert spelled(runs_of(data, 2)) == mapped


def test_a_volume_ends_where_it_ends(tmp_path: Path) -> None:
    data = metadata(tmp_path, {1: {0: 9, 1: 10, 5: 3}})
    assert runs_of(data, 1, CHUNK + 512) == [Run(0, 9 * CHUNK, CHUNK + 512)]
    assert runs_of(data, 1, 5 * CHUNK) == [Run(0, 9 * CHUNK, 2 * CHUNK)]


def test_a_volume_that_is_not_there_is_said(tmp_path: Path) -> None:
    data = metadata(tmp_path, {3: {0: 1}, 9: {}})
    assert runs_of(data, 9) == []
    for missing in (0, 4, 10):
        with pytest.raises(IntegrityError, match=f"no volume with the number {missing}"):
            runs_of(data, missing)


def sealed(data: bytes | bytearray) -> bytes:
    """With the checksums of all blocks made right."""
    found = bytearray(data)
    for at in range(0, len(found), BLOCK):
        for xor in (160774, 121107) if any(found[at : at + 4]) else ():
            if crc32c(bytes(_whole()[at + 4 : at + BLOCK])) ^ xor == int.from_bytes(_whole()[at : at + 4], "little"):
                found[at : at + 4] = (crc32c(bytes(found[at + 4 : at + BLOCK])) ^ xor).to_bytes(4, "little")
    return bytes(found)


@given(st.data(), st.booleans())
@settings(max_examples=examples(60), deadline=None)
def test_damage_ends_in_an_error(data: st.DataObject, by_somebody: bool) -> None:
    """What the disk damaged is found by its checksum; what somebody made up with right ones must not hang us."""
    whole = _whole()
    damaged = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        block = data.draw(st.integers(0, 12))
        at = block * BLOCK + data.draw(st.one_of(st.integers(4, 48), st.integers(320, 344), st.integers(4, BLOCK - 1)))
        damaged[at] = data.draw(st.integers(0, 255))
    try:
        runs = runs_of(sealed(damaged) if by_somebody else bytes(damaged), 2)
    except IntegrityError:
        return
    assert all(run.length > 0 for run in runs)
    # Blocks that the volume does not use may be damaged.
    assert by_somebody or runs == runs_of(whole, 2)


def test_other_metadata_than_those_that_lvm_knows_are_refused(tmp_path: Path) -> None:
    """A group put back from an older backup: number 2 may have been another volume."""
    data = _whole()
    for transaction, right in ((0, False), (1, True), (2, True), (3, True), (4, False)):
        try:
            thin_runs(lambda at, length: data[at : at + length], place(2, transaction), 1 << 40)
        except IntegrityError as error:
            assert not right and "transaction 2" in error.message
        else:
            assert right


def test_a_tree_that_bites_its_tail_is_an_error() -> None:
    """Every child of every inner node is the node itself."""
    data = bytearray(_whole())
    for block in range(len(data) // BLOCK):
        at = block * BLOCK
        flags, number = (
            int.from_bytes(data[at + 4 : at + 8], "little"),
            int.from_bytes(data[at + 8 : at + 16], "little"),
        )
        if flags == 1 and number == block:
            for index in range(int.from_bytes(data[at + 16 : at + 20], "little")):
                place = at + 32 + int.from_bytes(data[at + 20 : at + 24], "little") * 8 + index * 8
                data[place : place + 8] = block.to_bytes(8, "little")
    with pytest.raises(IntegrityError, match="tree"):
        runs_of(sealed(data), 2)


@pytest.mark.parametrize(
    ("at", "value", "said"), [(32, b"\0", "no superblock"), (40, b"\x09", "version 9"), (336, bytes(4), "no size")]
)
def test_a_superblock_that_is_none(at: int, value: bytes, said: str) -> None:
    data = bytearray(_whole())
    data[at : at + len(value)] = value
    with pytest.raises(IntegrityError, match=said):
        runs_of(sealed(data), 2)


def test_the_checksum_is_the_known_one() -> None:
    assert crc32c(b"123456789") ^ 0xFFFFFFFF == 0xE3069283
    assert crc32c(b"") == 0xFFFFFFFF


def test_metadata_that_end_early() -> None:
    with pytest.raises(IntegrityError, match="no superblock"):
        runs_of(b"", 2)
    with pytest.raises(IntegrityError, match="beyond their end"):
        runs_of(_whole()[: 2 * BLOCK], 2)


_KEPT: list[bytes] = []


def _whole() -> bytes:
    if not _KEPT:
        with TemporaryDirectory() as folder:
            mapped = {at: (at * 7919) % 3000 for at in range(1000)}
            _KEPT.append(metadata(Path(folder), {1: {0: 5}, 2: mapped}))
    return _KEPT[0]
