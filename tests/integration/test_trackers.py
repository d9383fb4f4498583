"""Each kind of tracker sees the writes to a disk, or doubts: lost events, devices that are not what they were."""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from recovery.capture.tracking import kernel
from recovery.capture.tracking.btf import kernel_types
from recovery.capture.tracking.ebpf import EbpfTracker
from recovery.capture.tracking.model import Tracker
from recovery.capture.tracking.program import (
    CONTROL_BYTES,
    LOG_ENTRIES,
    MAX_DISKS,
    STRUCTURES,
    TRACEPOINT,
    Maps,
    marking_program,
)
from recovery.capture.tracking.tracefs import TracefsTracker
from recovery.capture.tracking.witness import tracked_disk
from tests.integration.capture_images import MIB, sh, sparse

#: linux/loop.h
LOOP_CTL_REMOVE = 0x4C81

pytestmark = [
    pytest.mark.root,
    pytest.mark.usefixtures("tracing"),
    pytest.mark.skipif(
        os.geteuid() != 0 or not Path("/dev/loop-control").exists(), reason="needs root and loop devices"
    ),
]


def trackers() -> list[type[EbpfTracker] | type[TracefsTracker]]:
    return [EbpfTracker, TracefsTracker]


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Path]:
    """A loop device of 256 MiB."""
    name = sh("losetup", "--find", "--show", sparse(tmp_path / "disk.img", 256 * MIB)).strip()
    try:
        yield Path(name)
    finally:
        sh("losetup", "-d", name)


def write_blocks(device: Path, count: int, seed: int) -> set[int]:
    """Write 4 KiB to 64 KiB at random places past the page cache; the blocks written."""
    dice, buffer = random.Random(seed), memoryview(mmap.mmap(-1, 65536))
    written: set[int] = set()
    descriptor = os.open(device, os.O_RDWR | os.O_DIRECT)
    try:
        for _ in range(count):
            length = dice.choice([1, 1, 2, 16])
            first = dice.randrange(65536 - length)
            os.pwritev(descriptor, [buffer[: length * 4096]], first * 4096)
            written.update(range(first, first + length))
    finally:
        os.close(descriptor)
    return written


@pytest.mark.parametrize("make", trackers())
def test_every_write_and_discard_is_seen_or_doubted(make: type[Tracker], device: Path) -> None:
    with contextlib.closing(make()) as tracker:
        tracker.start([tracked_disk("disk1", device)])
        new = tracker.doubt("disk1")
        assert new is not None and new.cause == "new" and tracker.block_size == 4096
        tracker.renew("disk1")
        for seed in range(3):
            written = write_blocks(device, 400, seed)
            seen = set(tracker.switch(frozen=seed == 1)["disk1"].blocks(4096))
            assert seen <= written
            while not tracker.check("disk1"):
                pass
            # Some kernels lose events (a custom one did); then the kernel's counters must tell.
            assert seen == written or tracker.doubt("disk1") is not None
            tracker.renew("disk1")
        sh("blkdiscard", "-o", str(5 * MIB), "-l", str(200 * MIB), device)
        assert list(tracker.peek()["disk1"]) == [(5 * MIB, 200 * MIB)]
        sh("blkdiscard", "-z", "-o", str(MIB), "-l", str(MIB), device)
        assert list(tracker.switch()["disk1"]) == [(MIB, MIB), (5 * MIB, 200 * MIB)]
        assert not tracker.switch()["disk1"]


def test_a_full_ring_buffer_is_a_doubt(device: Path) -> None:
    with contextlib.closing(TracefsTracker(buffer_kib=8, reading=False)) as tracker:
        tracker.start([tracked_disk("disk1", device)])
        tracker.renew("disk1")
        write_blocks(device, 1500, 1)
        doubt = tracker.doubt("disk1")
        assert doubt is not None and doubt.cause == "missed"
        tracker.renew("disk1")
        assert tracker.doubt("disk1") is None


def test_a_device_that_is_not_what_it_was_is_doubted(tmp_path: Path) -> None:
    image = sparse(tmp_path / "disk.img", 16 * MIB)
    # A number of its own: it is free for a moment below, and other tests take the lowest free one.
    number = 1000 + os.getpid() % 1000
    device = Path(f"/dev/loop{number}")
    sh("losetup", device, image)
    try:
        with contextlib.closing(EbpfTracker()) as tracker:
            tracker.start([tracked_disk("disk1", device)])
            tracker.renew("disk1")
            assert tracker.doubt("disk1") is None
            os.truncate(image, 24 * MIB)
            sh("losetup", "-c", device)
            doubt = tracker.doubt("disk1")
            assert doubt is not None and doubt.cause == "resized"
        with contextlib.closing(EbpfTracker()) as tracker:
            tracker.start([tracked_disk("disk1", device)])
            tracker.renew("disk1")
            sh("losetup", "-d", device)
            doubt = tracker.doubt("disk1")
            assert doubt is not None and doubt.cause in ("replaced", "resized")
            sh("losetup", device, image)
            tracker.renew("disk1")
            doubt = tracker.doubt("disk1")
            assert doubt is not None and doubt.cause == "replaced"
    finally:
        subprocess.run(["losetup", "-d", device], check=False)
        with open("/dev/loop-control", "rb") as control, contextlib.suppress(OSError):
            fcntl.ioctl(control, LOOP_CTL_REMOVE, number)


def test_many_disks_cost_the_kernels_verifier_no_more_than_one() -> None:
    offsets, tracepoint = kernel_types(Path("/sys/kernel/btf/vmlinux").read_bytes(), STRUCTURES, TRACEPOINT)
    control, bits, log = (kernel.array_map(*each) for each in ((CONTROL_BYTES, 1), (4096, 200), (16, 2 * LOG_ENTRIES)))
    maps, descriptors = Maps(control, bits, log, elements=100, shift=3), [control, bits, log]
    looked_at = []
    try:
        for count in (1, MAX_DISKS):
            code = marking_program(0, maps, offsets, [(259, minor) for minor in range(count)])
            descriptors.append(kernel.load(code, "rekindle_test", tracepoint))
            facts = Path(f"/proc/self/fdinfo/{descriptors[-1]}").read_text().split()
            looked_at.append(int(facts[facts.index("verified_insns:") + 1]) if "verified_insns:" in facts else 0)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    assert looked_at[1] <= 2 * looked_at[0], "the limit is a million"
