"""Files found in real filesystems that mke2fs made, of each kind of block map, and what is refused."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from recovery.commands import run
from recovery.errors import IntegrityError, RekindleError, UsageError
from recovery.explore.ext4 import Ext4, Inode
from recovery.units import MIB

NAMES = 900
MAKE: dict[str, list[str]] = {
    "ext2": ["-t", "ext2", "-b", "1024"],
    "ext3": ["-t", "ext3", "-b", "1024"],
    "ext4": ["-t", "ext4"],
    "ext4-small-inodes": ["-t", "ext4", "-b", "1024", "-I", "128", "-O", "^64bit,^metadata_csum"],
}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tree")
    (root / "many").mkdir()
    for number in range(NAMES):
        (root / f"many/file-{number:04}-{'x' * 60}").write_text(str(number))
    with (root / "sparse").open("wb") as file:
        for place in range(0, 9, 2):
            file.seek(place * MIB + 100)
            file.write(os.urandom(300_000))
        file.truncate(10 * MIB + 7)
    (root / "short").symlink_to("many")
    (root / "long").symlink_to("many/../" * 12 + "sparse")
    (root / "grüße").write_text("Grüße")
    return root


def image(folder: Path, tree: Path, kind: str) -> Path:
    path = folder / f"{kind}.img"
    with path.open("wb") as file:
        file.truncate(64 * MIB)
    run(["mke2fs", "-q", "-F", *MAKE[kind], "-d", tree, path])
    return path


def opened(path: Path) -> Ext4:
    data = path.read_bytes()
    return Ext4(lambda offset, length: data[offset : offset + length])


def found(filesystem: Ext4, *names: str) -> Inode:
    inode = filesystem.root()
    for name in names:
        below = filesystem.entry(inode, name)
        assert below is not None, name
        inode = below
    return inode


@pytest.mark.parametrize("kind", MAKE)
def test_every_file_is_found_and_right(kind: str, tree: Path, tmp_path: Path) -> None:
    filesystem = opened(image(tmp_path, tree, kind))
    sparse = found(filesystem, "sparse")
    assert filesystem.content(sparse, 1 << 40) == (tree / "sparse").read_bytes()
    assert sum(run.length for run in filesystem.runs(sparse)) < 3 * MIB, "holes are in no run"
    assert filesystem.content(found(filesystem, "grüße"), 100).decode() == "Grüße"
    for number in (0, 1, NAMES // 2, NAMES - 1):  # a folder of many blocks, hashed where the kind has that
        name = f"file-{number:04}-{'x' * 60}"
        assert filesystem.content(found(filesystem, "many", name), 100).decode() == str(number)
    assert filesystem.link(found(filesystem, "short")) == "many"
    assert filesystem.link(found(filesystem, "long")) == "many/../" * 12 + "sparse"
    assert filesystem.entry(filesystem.root(), "missing") is None
    assert filesystem.entry(sparse, "below a file") is None


def changed(path: Path, place: int, data: bytes) -> Path:
    content = bytearray(path.read_bytes())
    content[place : place + len(data)] = data
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        (lambda path: changed(path, 1024 + 56, b"\0\0"), IntegrityError, "no ext4 superblock"),
        (lambda path: run(["debugfs", "-w", "-R", "feature needs_recovery", path]), UsageError, "journal"),
        (lambda path: changed(path, 1024 + 98, b"\xff\xff"), UsageError, "features that are not read here"),
        (lambda path: changed(path, 1024 + 40, bytes(4)), IntegrityError, "makes no sense"),
    ],
    ids=["magic", "journal", "features", "groups"],
)
def test_what_is_not_understood_is_refused(
    change: Callable[[Path], object], error: type[RekindleError], text: str, tree: Path, tmp_path: Path
) -> None:
    path = image(tmp_path, tree, "ext4")
    change(path)
    with pytest.raises(error, match=text):
        opened(path)


def test_an_extent_tree_of_nonsense_is_an_error_and_no_endless_way(tree: Path, tmp_path: Path) -> None:
    filesystem = opened(image(tmp_path, tree, "ext4"))
    sparse = found(filesystem, "sparse")
    for block in (
        b"\0" * 60,
        b"\x0a\xf3\xff\xff\x04\0\0\0" + bytes(52),
        sparse.block[:6] + b"\xff\xff" + sparse.block[8:],
    ):
        broken = Inode(sparse.number, sparse.mode, sparse.size, sparse.flags, block)
        with pytest.raises(IntegrityError, match="make no sense"):
            filesystem.runs(broken)
