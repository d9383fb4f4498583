"""The pure parts of the host image: boot code, initramfs archive, partition table, data set."""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recovery.commands import run
from tests.e2e.lab.host_image import build, dataset, grub, guest, recipe
from tests.support.examples import examples


def fake_grub(root: Path) -> Path:
    """A boot sector whose every byte is 0xEE, where GRUB keeps its own."""
    folder = root / "usr/lib/grub/i386-pc"
    folder.mkdir(parents=True)
    (folder / "boot.img").write_bytes(b"\xee" * 512)
    return root


@settings(deadline=None, max_examples=examples(30))
@given(sector=st.integers(1, 1 << 30), length=st.integers(1, 4096))
def test_boot_code_points_at_the_core_and_the_core_at_its_rest(
    tmp_path_factory: pytest.TempPathFactory, sector: int, length: int
) -> None:
    root = fake_grub(tmp_path_factory.mktemp("grub"))
    disk = root / "disk"
    disk.write_bytes(b"\x11" * 512)
    core = (b"\xcc" * length).ljust(-(-max(length, 512) // 512) * 512, b"\0")
    grub.install_bios(disk, root, core, at=sector * 512)
    with disk.open("rb") as file:
        first = file.read(512)
        file.seek(sector * 512)
        written = file.read(len(core))
    assert struct.unpack_from("<Q", first, 0x5C)[0] == sector
    assert struct.unpack_from("<Q", written, 0x1F4)[0] == sector + 1
    assert first[0x1B8:] == b"\x11" * (512 - 0x1B8), "disk signature, partition table and 55AA are not ours"
    assert written[:0x1F4] == core[:0x1F4]
    assert written[0x1FC:] == core[0x1FC:]


def test_partitions_do_not_overlap_and_leave_room_for_both_tables() -> None:
    parts = sorted(recipe.PARTITIONS, key=lambda part: part.start)
    for before, after in zip(parts, parts[1:], strict=False):
        assert before.start + before.size <= after.start
    assert parts[0].start >= 34 * 512
    assert parts[-1].start + parts[-1].size <= recipe.DISK_SIZE - 34 * 512
    assert parts[-1].name == "lvm", "the last partition is the one that grows"


def test_sfdisk_accepts_the_table(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with disk.open("wb") as file:
        file.truncate(recipe.DISK_SIZE)
    run(["sfdisk", "-q", disk], input=recipe.sfdisk_script().encode())
    found = run(["sfdisk", "-d", disk]).stdout
    for part in recipe.PARTITIONS:
        assert f"start={part.start // 512:>12}, size={part.size // 512:>12}, type={part.type}" in found


def test_the_ramdisk_is_an_archive_that_says_every_file(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/tool").write_bytes(b"12345")
    (tmp_path / "bin/link").symlink_to("tool")
    archive = guest._newc(tmp_path)
    found = {}
    at = 0
    while archive[at : at + 6] == b"070701":
        fields = [int(archive[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        name_at, (size, name_size) = at + 110, (fields[6], fields[11])
        name = archive[name_at : name_at + name_size - 1].decode()
        data_at = -(-(name_at + name_size) // 4) * 4
        found[name] = (fields[1] & 0o170000, archive[data_at : data_at + size])
        at = -(-(data_at + size) // 4) * 4
    assert found == {
        "bin": (0o040000, b""),
        "bin/tool": (0o100000, b"12345"),
        "bin/link": (0o120000, b"tool"),
        "TRAILER!!!": (0, b""),
    }


def test_the_two_states_differ_and_each_matches_its_sums(tmp_path: Path) -> None:
    for state in ("older", "newer", "older"):
        dataset.write(tmp_path, state)
        folder = tmp_path / dataset.FOLDER
        sums = {}
        for path in folder.iterdir():
            if path.name != dataset.SUMS:
                sums[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
        lines = (folder / dataset.SUMS).read_text().splitlines()
        assert {name: digest for digest, name in (line.split("  ") for line in lines)} == sums
    assert dataset.sums("older") != dataset.sums("newer")


def test_the_key_follows_the_recipe(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    first = build.key()
    assert first == build.key()
    (tmp_path / "recipe.py").write_text("other")
    monkeypatch.setattr(build, "__file__", str(tmp_path / "build.py"))
    assert build.key() != first
