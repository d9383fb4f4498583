"""Captures that fail, are stopped or killed: nothing of them is visible, and what was stored is found again."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from recovery.capture.pipeline import capture
from recovery.capture.request import CaptureRequest
from recovery.errors import (
    BusyError,
    CancelledError,
    DeviceError,
    RekindleError,
    SpaceError,
)
from recovery.events import ignore
from recovery.repository.check import check
from recovery.repository.index import SqliteIndex
from recovery.repository.repository import Repository
from recovery.repository.store import DirectoryStore
from tests.integration.capture_images import MIB, sh
from tests.support.captures import hooked, noise, packs, read_back, take
from tests.support.repositories import PASSPHRASE


def expect_failure_then_success(
    repository: Repository,
    path: Path,
    hook: Callable[[], None],
    error: type[RekindleError],
    cancel: threading.Event | None = None,
) -> None:
    with pytest.raises(error):
        take(hooked(repository, hook), path, cancel=cancel)
    assert repository.hosts() == []
    assert not any(thread.name.startswith("capture-") for thread in threading.enumerate())


def test_a_full_repository_leaves_nothing_visible(repository: Repository, tmp_path: Path) -> None:
    path = noise(tmp_path / "disk.img", 70 * MIB)
    calls: list[int] = []

    def full() -> None:
        calls.append(1)
        if len(calls) > 1:
            raise SpaceError("No room left.")

    expect_failure_then_success(repository, path, full, SpaceError)
    (kept,) = [info.size for info in repository.store.list("packs/")]
    point = take(repository, path)
    # The one of the two packs that was stored was found again.
    assert point.body.disks[0].stored < 71 * MIB - kept
    assert read_back(repository, point) == path.read_bytes()
    assert check(repository, read_data=False, listener=ignore).ok


def test_cancelling_leaves_nothing_visible(repository: Repository, tmp_path: Path) -> None:
    cancel = threading.Event()
    path = noise(tmp_path / "disk.img", 3 * MIB)
    expect_failure_then_success(repository, path, cancel.set, CancelledError, cancel=cancel)
    assert read_back(repository, take(repository, path)) == path.read_bytes()


def test_a_disk_that_changes_its_size_is_refused(repository: Repository, tmp_path: Path) -> None:
    path = noise(tmp_path / "disk.img", 3 * MIB)
    expect_failure_then_success(repository, path, lambda: os.truncate(path, 4 * MIB), DeviceError)


def test_a_disk_that_is_written_meanwhile_is_refused(repository: Repository, tmp_path: Path) -> None:
    path = noise(tmp_path / "disk.img", 3 * MIB)

    def write() -> None:
        with path.open("r+b") as file:
            file.write(b"x")

    expect_failure_then_success(repository, path, write, BusyError)


def test_a_disk_that_goes_away_is_refused(repository: Repository, tmp_path: Path) -> None:
    path = noise(tmp_path / "disk.img", 3 * MIB)
    expect_failure_then_success(repository, path, path.unlink, DeviceError)


@pytest.mark.slow
def test_an_image_whose_reader_dies_is_an_error(repository: Repository, tmp_path: Path) -> None:
    """The daemon that shows a qcow2 as a file is killed while the disk is read: no zeros, no hanging."""
    image = tmp_path / "disk.qcow2"
    # More than is read before the first of three packs has to be stored.
    sh("qemu-img", "convert", "-O", "qcow2", noise(tmp_path / "disk.img", 250 * MIB), image)

    def kill() -> None:
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                words = (process / "cmdline").read_bytes()
                if words.startswith(b"qemu-storage-daemon") and str(image).encode() in words:
                    os.kill(int(process.name), signal.SIGKILL)

    with pytest.raises(DeviceError):
        with_one_worker = CaptureRequest(host="host1", disks=(image,), workers=1, uploaders=1)
        index = SqliteIndex(":memory:")
        capture(hooked(repository, kill), index, with_one_worker, ignore, threading.Event())
    assert repository.hosts() == []
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()


def test_of_two_captures_at_once_one_is_told_and_nothing_is_lost(repository: Repository, tmp_path: Path) -> None:
    a, b = noise(tmp_path / "a.img", 2 * MIB), noise(tmp_path / "b.img", 2 * MIB, seed=2)
    take(repository, a)

    def other() -> None:
        take(repository, a)

    with pytest.raises(BusyError, match="Another capture"):
        take(hooked(repository, other), b)
    assert len(repository.points("host1")) == 2
    before = packs(repository)
    point = take(repository, b)
    assert packs(repository) == before
    assert read_back(repository, point) == b.read_bytes()


@pytest.mark.slow
def test_killed_in_the_middle_it_resumes_cheaply(repository: Repository, tmp_path: Path) -> None:
    assert isinstance(repository.store, DirectoryStore)
    path = noise(tmp_path / "disk.img", 200 * MIB)
    image = tmp_path / "disk.qcow2"
    sh("qemu-img", "convert", "-O", "qcow2", path, image)
    secret = tmp_path / "secret"
    secret.write_text(PASSPHRASE + "\n")
    argv = [sys.executable, "-m", "recovery.cli.main", "capture", str(repository.store.root), str(image)]
    argv += ["--host", "host1", "--secret-file", str(secret), "--workers", "1", "--level", "9"]
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache"), "TMPDIR": str(tmp_path)}
    process = subprocess.Popen(argv, env=environment, stderr=subprocess.DEVNULL)
    while not packs(repository):
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert repository.hosts() == []
    sizes = sorted(info.size for info in repository.store.list("packs/"))
    done = subprocess.run(argv, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    point = repository.point("host1", "latest")
    # At least one of the packs was there, whichever: they are stored in parallel.
    assert point.body.disks[0].stored < 201 * MIB - sizes[0]
    assert read_back(repository, point) == path.read_bytes()
    # What was half written when it was killed is no object and no damage.
    assert check(repository, read_data=True, listener=ignore).damages == []
