"""New files of a folder: seen all at once or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from recovery.errors import BusyError, DeviceError, UsageError
from recovery.explore.newfiles import NewFiles


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_nothing_is_seen_before_all_is_published(tmp_path: Path) -> None:
    with NewFiles(tmp_path / "a/b") as files:
        files.write("one", b"1")
        files.write("two", b"2")
        assert names(tmp_path / "a/b") == [".one.part", ".two.part"]
        files.publish()
        assert names(tmp_path / "a/b") == ["one", "two"]
    assert names(tmp_path / "a/b") == ["one", "two"]
    assert (tmp_path / "a/b/one").stat().st_mode & 0o777 == 0o600


def test_what_ends_early_leaves_neither_file_nor_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError), NewFiles(tmp_path / "a/b") as files:  # noqa: PT011 - any error ends it
        files.write("one", b"1")
        raise ValueError
    assert names(tmp_path) == []


def test_a_dropped_file_has_no_name_while_it_is_written_on(tmp_path: Path) -> None:
    with NewFiles(tmp_path) as files:
        descriptor = files.create("one")
        files.drop()
        assert names(tmp_path) == []
        os.write(descriptor, b"late")
        os.close(descriptor)
    assert names(tmp_path) == []


def test_a_name_that_is_taken_is_refused_also_in_the_last_moment(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"mine")
    with NewFiles(tmp_path) as files, pytest.raises(UsageError, match="is there already"):
        files.create("one")
    with NewFiles(tmp_path) as files:
        files.write("two", b"2")
        files.write("three", b"3")
        (tmp_path / "three").symlink_to("nowhere")
        with pytest.raises(UsageError, match="three is there already"):
            files.publish()
    assert names(tmp_path) == ["one", "three"]
    assert (tmp_path / "one").read_bytes() == b"mine"


def test_overwriting_replaces_only_when_the_new_one_is_whole(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"old")
    with NewFiles(tmp_path, overwrite=True) as files:
        files.write("one", b"new")
        assert (tmp_path / "one").read_bytes() == b"old"
    assert (tmp_path / "one").read_bytes() == b"old"
    with NewFiles(tmp_path, overwrite=True) as files:
        files.write("one", b"new")
        files.publish()
    assert (tmp_path / "one").read_bytes() == b"new"


def test_when_one_name_cannot_be_given_none_is(tmp_path: Path) -> None:
    (tmp_path / "two").mkdir()
    with NewFiles(tmp_path, overwrite=True) as files:
        files.write("one", b"1")
        files.write("two", b"2")
        with pytest.raises(DeviceError):
            files.publish()
    assert names(tmp_path) == ["two"]


def test_a_file_that_a_power_cut_left_is_taken_over_and_one_in_use_is_not(tmp_path: Path) -> None:
    (tmp_path / ".one.part").write_bytes(b"of another day" * 100)
    with NewFiles(tmp_path) as files, NewFiles(tmp_path) as others:
        files.write("one", b"1")
        with pytest.raises(BusyError, match="another run"):
            others.create("one")
        files.publish()
    assert (tmp_path / "one").read_bytes() == b"1"
