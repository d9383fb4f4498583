"""Block devices that fail: a loop device over a FUSE file of qemu-storage-daemon, which gives errors where it is told
to, and vanishes when it is killed."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

TOOL = "qemu-storage-daemon"
AVAILABLE = shutil.which(TOOL) is not None and Path("/dev/fuse").exists()
SECTOR = 512


class FailingDisk:
    """A block device (``device``) that holds the file ``backing``. ``bad``: (what, byte): each such access to the
    sector of that byte fails with an I/O error. ``vanish``: every access fails from then on."""

    def __init__(self, backing: Path, *, bad: tuple[Literal["read", "write"], int] | None = None) -> None:
        self._export = backing.with_suffix(".export")
        self._export.touch()
        node: dict[str, object] = {"driver": "file", "filename": str(backing)}
        if bad is not None:
            rule = {"event": "none", "iotype": bad[0], "errno": 5, "sector": bad[1] // SECTOR, "once": False}
            node = {"driver": "blkdebug", "image": node, "inject-error": [rule]}
        export = f"type=fuse,id=e,node-name=disk,mountpoint={self._export},writable=on"
        # A long-lived child: it is the disk.
        self._process = subprocess.Popen(
            [TOOL, "--blockdev", json.dumps({"node-name": "disk", **node}), "--export", export],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        self._wait(backing.stat().st_size)
        self.device = subprocess.run(
            ["losetup", "-f", "--show", self._export], check=True, capture_output=True, text=True
        ).stdout.strip()

    def _wait(self, size: int) -> None:
        deadline = time.monotonic() + 60
        while self._export.stat().st_size != size:
            if self._process.poll() is not None or time.monotonic() > deadline:
                self._process.kill()
                raise AssertionError(f"{TOOL}: {self._process.communicate()[0]}")
            time.sleep(0.02)

    def vanish(self) -> None:
        """The disk is pulled."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """The device is no more; what was written is in the backing file."""
        subprocess.run(["losetup", "-d", self.device], check=True)
        self._process.terminate()
        self._process.wait(20)
        subprocess.run(["umount", "-l", self._export], check=False, capture_output=True)


@contextlib.contextmanager
def failing_disk(backing: Path, *, bad: tuple[Literal["read", "write"], int] | None = None) -> Iterator[FailingDisk]:
    """One for the block."""
    disk = FailingDisk(backing, bad=bad)
    try:
        yield disk
    finally:
        disk.close()


@contextlib.contextmanager
def loop(backing: Path) -> Iterator[str]:
    """A loop device that holds ``backing``."""
    device = subprocess.run(
        ["losetup", "-f", "--show", backing], check=True, capture_output=True, text=True
    ).stdout.strip()
    try:
        yield device
    finally:
        subprocess.run(["losetup", "-d", device], check=True)


def until_free(device: str) -> None:
    """Wait until nothing holds a block device that was unmounted: a process with mounts of its own (other tests start
    such processes) has a copy of the mount for a moment."""
    end = time.monotonic() + 60
    while True:
        try:
            os.close(os.open(device, os.O_RDONLY | os.O_EXCL))
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > end:
                raise
            time.sleep(0.05)
        else:
            return
