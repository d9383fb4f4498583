"""Getting rid of a build's folder never reaches what is mounted in it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from rekindle_image import scratch

from recovery.commands import run
from recovery.errors import BusyError

TABLE = """\
22 1 0:22 / /sys rw - sysfs sysfs rw
44 27 0:22 / {folder}/root/sys ro - sysfs sys rw
45 27 0:40 / {folder}/root/proc ro - proc proc ro
46 27 0:41 / {folder}-other/proc ro - proc proc ro
47 27 0:42 / {folder}/with\\040space rw - tmpfs tmpfs rw
"""


def test_only_mounts_below_the_folder_and_the_last_first(tmp_path: Path) -> None:
    found = scratch.mounts_below(tmp_path, TABLE.format(folder=tmp_path))
    assert found == [tmp_path / "with space", tmp_path / "root/proc", tmp_path / "root/sys"]


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_what_was_mounted_survives_a_build_that_is_killed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("somebody else's")
    with pytest.raises(KeyboardInterrupt), scratch.scratch_folder(tmp_path) as folder:
        inside = folder / "root/dev/shm"
        inside.mkdir(parents=True)
        run(["mount", "--bind", precious, inside])
        assert (inside / "file").exists()
        raise KeyboardInterrupt
    assert not folder.exists()
    assert (precious / "file").read_text() == "somebody else's"
    assert not scratch.mounts_below(tmp_path, Path("/proc/self/mountinfo").read_text())


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_nothing_is_removed_while_something_stays_mounted(tmp_path: Path) -> None:
    precious, folder = tmp_path / "precious", tmp_path / "folder"
    (folder / "inside").mkdir(parents=True)
    precious.mkdir()
    (precious / "file").write_text("somebody else's")
    run(["mount", "--bind", precious, folder / "inside"])
    try:
        with (folder / "inside/file").open(), pytest.raises(BusyError, match="still mounted"):
            scratch.discard(folder)
        assert (precious / "file").exists()
        assert folder.exists()
    finally:
        run(["umount", folder / "inside"])
