"""Partition tables from bytes, against the real sfdisk and against damage."""

from __future__ import annotations

import json
import random
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recovery.capture.rawtable import FoundTable, parse_table

MIB = 1024 * 1024
GPT = """label: gpt
start=2048, size=2048, type=21686148-6449-6E6F-744E-656564454649
size=20MiB, type=uefi, name="EFI system"
type=linux, name=root, attrs=LegacyBIOSBootable
"""
MBR = """label: dos
label-id: 0x1234abcd
start=2048, size=20480, type=83, bootable
start=22528, size=102400, type=5
start=24576, size=8192, type=8e
start=40960, size=8192, type=82
start=126976, size=2048, type=c
"""


def make(path: Path, script: str, size: int = 70 * MIB) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
    subprocess.run(["sfdisk", "-q", path], input=script.encode(), check=True)
    return path


def parse(path: Path, sector: int = 512, *, guess: bool = True) -> FoundTable:
    data = path.read_bytes()
    return parse_table(lambda offset, length: data[offset : offset + length], len(data), sector, guess=guess)


@pytest.mark.parametrize("script", [GPT, MBR])
def test_it_reads_what_sfdisk_wrote(tmp_path: Path, script: str) -> None:
    path = make(tmp_path / "disk", script)
    found = parse(path).table
    said = json.loads(subprocess.run(["sfdisk", "-J", path], capture_output=True, check=True).stdout)["partitiontable"]
    assert found.kind == {"gpt": "gpt", "dos": "mbr"}[said["label"]]
    assert int(found.uuid.replace("-", ""), 16) == int(said["id"].replace("-", ""), 16)
    ours = {part.number: (part.start // 512, part.size // 512, part.type) for part in found.partitions}
    theirs = {}
    for part in said["partitions"]:
        kind = part["type"].lower().zfill(2)
        theirs[int(part["node"].removeprefix(str(path)))] = (part["start"], part["size"], kind)
    assert ours == theirs


def test_names_uuids_and_flags_of_a_gpt(tmp_path: Path) -> None:
    parts = parse(make(tmp_path / "disk", GPT)).table.partitions
    assert [part.name for part in parts] == ["", "EFI system", "root"]
    assert [part.flags for part in parts] == [("bios_grub",), ("esp",), ("legacy_boot",)]
    assert len({part.uuid for part in parts}) == 3


def test_a_lost_primary_is_read_from_the_backup_and_said(tmp_path: Path) -> None:
    path = make(tmp_path / "disk", GPT)
    whole = parse(path)
    data = bytearray(path.read_bytes())
    data[512 + 60] ^= 1
    path.write_bytes(data)
    found = parse(path)
    assert found.table == whole.table
    assert "backup" in found.problem
    data[-512:] = bytes(512)
    path.write_bytes(data)
    assert parse(path).table.kind == "none"
    assert "none can be read" in parse(path).problem


def test_a_damaged_entry_makes_the_primary_invalid(tmp_path: Path) -> None:
    path = make(tmp_path / "disk", GPT)
    data = bytearray(path.read_bytes())
    data[1024 + 40] ^= 1
    path.write_bytes(data)
    assert "backup" in parse(path).problem


def test_a_gpt_for_4096_byte_sectors_in_a_file_is_found(tmp_path: Path) -> None:
    small = make(tmp_path / "small", GPT, 40 * MIB)
    # The same header and entries at the places of a disk with 4096-byte sectors.
    data = bytearray(small.read_bytes())
    moved = bytearray(len(data))
    moved[:512] = data[:512]
    moved[4096 : 4096 + 512] = data[512:1024]
    moved[8192 : 8192 + 128 * 128] = data[1024 : 1024 + 128 * 128]
    path = tmp_path / "fourk"
    path.write_bytes(moved)
    found = parse(path)
    assert (found.sector_size, found.table.kind) == (4096, "gpt")
    assert found.table.partitions[0].start == 2048 * 4096
    assert parse(path, guess=False).table.kind == "none"


def test_a_filesystem_without_a_table_is_none(tmp_path: Path) -> None:
    path = tmp_path / "fat"
    with path.open("wb") as file:
        file.truncate(40 * MIB)
    subprocess.run(["mkfs.vfat", path], check=True, capture_output=True)
    assert parse(path).table.kind == "none"


@given(st.binary(max_size=2048), st.booleans())
def test_garbage_never_raises(data: bytes, signed: bool) -> None:
    disk = bytearray(data.ljust(4096, b"\0"))
    if signed:
        disk[510:512] = b"\x55\xaa"
    parse_table(lambda offset, length: bytes(disk[offset : offset + length]), len(disk), 512, guess=True)


@pytest.mark.parametrize("script", [GPT, MBR])
def test_a_damaged_table_never_raises_and_never_loops(tmp_path: Path, script: str) -> None:
    data = bytearray(make(tmp_path / "disk", script, 64 * MIB + 512).read_bytes())
    rng = random.Random(7)
    for _ in range(300):
        at = rng.choice([rng.randrange(0, 2048), rng.randrange(22528 * 512, 22528 * 512 + 512)])
        before = data[at]
        data[at] = rng.randrange(256)
        parse_table(lambda offset, length: bytes(data[offset : offset + length]), len(data), 512, guess=True)
        data[at] = before
