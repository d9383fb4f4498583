"""A writer that stamps numbered records with fsync, and the check that what came back is a prefix without a hole."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from recovery.events import ignore
from recovery.format.point import Point
from recovery.repository.repository import Repository
from recovery.restore.disk import RestoreOptions, restore_disk

RECORD, SLOTS = 4096, 64
#: ``WRITER FOLDER [PAUSE [MOST]]`` appends record after record, and keeps the newest ones in slots too (blocks that
#: are overwritten in place); says which number is safe, and when. PAUSE: seconds between two, MOST: how many at most.
WRITER = """
import os, sys, time
pause, most = float((sys.argv + ["", ""])[2] or 0.02), int((sys.argv + ["", ""])[3] or 5000)
log = os.open(sys.argv[1] + "/log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
slots = os.open(sys.argv[1] + "/slots", os.O_RDWR | os.O_CREAT)
number = 0
while number < most:
    record = b"%012d" % number + bytes([number % 251]) * (4096 - 12)
    os.pwrite(slots, record, number % 64 * 4096); os.fsync(slots)
    os.write(log, record); os.fsync(log)
    print(number, time.time(), flush=True)
    number += 1
    time.sleep(pause)
"""


class WrittenDisk:
    """A loop disk with an ext4 in ``folder``, and a writer on it once it was started."""

    def __init__(self, folder: Path, size: int) -> None:
        self.folder = folder
        image = folder / "disk.img"
        image.touch()
        os.truncate(image, size)
        run("mkfs.ext4", "-q", "-F", str(image))
        self.device = run("losetup", "-f", "--show", str(image)).strip()
        self.mount = folder / "mnt"
        self.mount.mkdir()
        run("mount", self.device, str(self.mount))
        self._acks = (folder / "acks").open("wb")
        self._writer: subprocess.Popen[bytes] | None = None

    def start_writer(self, pause: float = 0.02, most: int = 5000) -> None:
        """From the first record on."""
        words = [sys.executable, "-c", WRITER, str(self.mount), str(pause), str(most)]
        self._writer = subprocess.Popen(words, stdout=self._acks)

    def stop_writer(self) -> None:
        """As by a power cut."""
        if self._writer is not None:
            self._writer.kill()
            self._writer.wait()

    def acknowledged(self) -> list[float]:
        """When each record was safe, by number."""
        lines = (self.folder / "acks").read_text().splitlines()
        return [float(line.split()[1]) for line in lines if len(line.split()) == 2]

    def wait_for_records(self, more: int) -> None:
        """Until so many more were acknowledged (a limit that only a hang meets)."""
        wanted, end = len(self.acknowledged()) + more, time.monotonic() + 600
        while len(self.acknowledged()) < wanted:
            assert time.monotonic() < end, "the writer hangs"
            time.sleep(0.02)

    def close(self) -> None:
        """Nothing stays: no process, no mount, no loop device."""
        self.stop_writer()
        self._acks.close()
        for _ in range(50):
            if subprocess.run(["umount", self.mount], check=False, capture_output=True).returncode == 0:
                break
            time.sleep(0.2)
        subprocess.run(["losetup", "-d", self.device], check=False)


def run(*words: str) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


@contextlib.contextmanager
def restored(repository: Repository, point: Point, folder: Path) -> Iterator[Path]:
    """The files of a point's disk, as its kernel would find them after a power cut."""
    image = folder / "restored.img"
    image.unlink(missing_ok=True)
    options = RestoreOptions(verify_all=True)
    report = restore_disk(repository, point, "disk1", str(image), ignore, threading.Event(), options)
    assert report.root_matched
    with mounted_image(image, folder / "restored") as mount:
        yield mount


@contextlib.contextmanager
def mounted_image(image: Path, mount: Path) -> Iterator[Path]:
    """An ext4's files, its journal replayed. Of a leg of an array only the caller knows that one is in it."""
    mount.mkdir(exist_ok=True)
    run("mount", "-t", "ext4", "-o", "loop", str(image), str(mount))
    try:
        yield mount
    finally:
        run("umount", str(mount))


def check_prefix(mount: Path, moment: float, acknowledged: list[float]) -> int:
    """The records in the log and the slots; how many there are."""
    log = (mount / "log").read_bytes() if (mount / "log").exists() else b""
    slots = (mount / "slots").read_bytes() if (mount / "slots").exists() else b""
    # A record that was being written may be there in part: fsync had not returned.
    count = len(log) // RECORD
    for number in range(count):
        record = log[number * RECORD : (number + 1) * RECORD]
        assert record == b"%012d" % number + bytes([number % 251]) * (RECORD - 12), f"record {number} of {count}"
    safe = sum(when < moment for when in acknowledged)
    assert count >= safe, f"{safe} records were safe before the point, {count} came back"
    for slot in range(SLOTS):
        expected = list(range(slot, count, SLOTS))[-1:]
        if expected:
            found = int(slots[slot * RECORD : slot * RECORD + 12])
            # The slot is written before the log, so it may be one round ahead for the record that came next.
            assert found == expected[0] or (found == count and count % SLOTS == slot)
    return count
