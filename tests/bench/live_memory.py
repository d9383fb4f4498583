"""The memory of the tracker of 20 TiB: real loop devices over sparse files of that size, written to all over.

``python -m tests.bench.live_memory FOLDER WRITES`` is a process of its own, for the sake of its memory; it says what
it took as a Sample in JSON. The tracker is the agent's (eBPF), with the union of changes that a keyframe needs.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from recovery.capture.tracking.ebpf import EbpfTracker
from recovery.capture.tracking.remember import RememberingTracker
from recovery.capture.tracking.witness import tracked_disk
from recovery.commands import run
from recovery.units import MIB, format_size
from tests.bench.bench import Bench
from tests.bench.measure import process_cpu
from tests.bench.model import Goal, Measured, Sample, goal
from tests.bench.ours import ENVIRONMENT
from tests.bench.vast import SIZES
from tests.bench.worker import peak_memory
from tests.e2e.lab.server import CHECKOUT

NAME = "the tracker of 20 TiB"
_BLOCK = 4096


def memory(bench: Bench, folder: Path) -> tuple[list[Measured], list[Goal]]:
    """Raises CommandError."""
    folder.mkdir(parents=True, exist_ok=True)
    words = [sys.executable, "-m", "tests.bench.live_memory", str(folder), str(bench.live.memory_writes)]
    done = run(words, env=ENVIRONMENT, cwd=CHECKOUT, timeout=600)
    sample = msgspec.json.decode(done.stdout.splitlines()[-1], type=Sample)
    bench.say(f"    {NAME}: {format_size(int(sample.figures['tracker_memory']))}")
    taken = sample.figures["tracker_memory"] / MIB
    measured = Measured(name=NAME, command=f"loop devices of {', '.join(map(format_size, SIZES.values()))}, sparse")
    measured.samples.append(sample)
    return [measured], [goal("memory of the tracker and its process, 20 TiB", 256.0, taken, " MiB", at_most=True)]


def bpf_maps(pid: str = "self") -> int:
    """Bytes of kernel memory of the eBPF maps that a process holds."""
    sizes: dict[str, int] = {}
    for entry in Path(f"/proc/{pid}/fdinfo").iterdir():
        with contextlib.suppress(OSError):  # of the directory itself
            lines = dict(line.split(":", 1) for line in entry.read_text().splitlines() if ":" in line)
            if "map_type" in lines:
                # Python's mmap has a descriptor of its own for the same map.
                sizes[lines["map_id"]] = int(lines["memlock"])
    return sum(sizes.values())


def mapped_of_bpf(pid: str = "self") -> int:
    """Resident bytes of a process that are the memory of its eBPF maps."""
    total, ours = 0, False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        name, _, rest = line.partition(" ")
        if "-" in name:
            ours = "bpf-map" in rest or "bpf_map" in rest
        elif ours and name == "Rss:":
            total += int(rest.split()[0]) * 1024
    return total


@contextlib.contextmanager
def _device(path: Path, size: int) -> Iterator[Path]:
    path.touch()
    os.truncate(path, size)
    device = run(["losetup", "--find", "--show", path]).stdout.strip()
    try:
        yield Path(device)
    finally:
        run(["losetup", "--detach", device], check=False)
        path.unlink()


def scatter(device: Path, size: int, writes: int, source: random.Random) -> None:
    """Blocks of 4 KiB all over a disk, past the page cache."""
    page = mmap.mmap(-1, _BLOCK)
    page.write(b"\xa5" * _BLOCK)
    descriptor = os.open(device, os.O_WRONLY | os.O_DIRECT)
    try:
        for _ in range(writes):
            os.pwrite(descriptor, page, source.randrange(size // _BLOCK) * _BLOCK)
    finally:
        os.close(descriptor)


def main() -> None:
    """Track, write, ask twice."""
    folder, writes = Path(sys.argv[1]), int(sys.argv[2])
    begun, source = time.monotonic(), random.Random(7)
    with contextlib.ExitStack() as stack:
        devices = {
            name: stack.enter_context(_device(folder / f"{name}.raw", size)) for name, size in SIZES.items()
        }  # fmt: skip
        disks = [tracked_disk(name, device) for name, device in devices.items()]
        tracker = RememberingTracker(EbpfTracker())
        tracker.start(disks)
        stack.callback(tracker.close)
        switching = 0.0
        for _ in range(2):
            for disk in disks:
                scatter(disk.path, disk.size, writes // (2 * len(disks)), source)
            at = time.monotonic()
            tracker.switch()
            switching = max(switching, time.monotonic() - at)
        changed = sum(len(extents) for extents in tracker.changed().values())
        maps, shared, peak = bpf_maps(), mapped_of_bpf(), peak_memory()
        figures = {
            "tracker_memory": float(maps + max(0, peak - shared)),
            "maps_of_the_kernel": float(maps),
            "process_beside_them": float(peak - shared),
            "block_size": float(tracker.block_size),
            "changed_ranges": float(changed),
            "longest_switch_seconds": switching,
        }
    sample = Sample(seconds=time.monotonic() - begun, cpu=process_cpu(os.getpid()), figures=figures)
    print(msgspec.json.encode(sample).decode(), flush=True)


if __name__ == "__main__":
    main()
