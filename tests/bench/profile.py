"""``scripts/bench profile``: where the CPU seconds of one restored GB go, by samples of Linux's perf.

A disk is restored from a directory to a preallocated file with O_DIRECT while perf takes samples of this process: user
and kernel, all threads, nothing of the start of the program. The samples of each share are scaled to the CPU seconds
that the kernel counted, and to GB (10^9 bytes) that were restored and are not zero.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import signal
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from recovery.events import ignore
from recovery.repository.repository import Repository
from recovery.repository.store import open_local
from recovery.restore.disk import RestoreOptions, restore_disk
from tests.bench.data import cache_folder, files_disk
from tests.bench.ours import serving
from tests.bench.worker import open_source

#: The first rule that fits a sample's stack (all of its symbols and objects, innermost first) names its share.
_SHARES = (
    ("decompress (zstd)", r"ZSTD_|HUF_|FSE_|HIST_|XXH"),
    ("decrypt (AES-256-GCM)", r"aes.*gcm|gcm_|ghash|_aesni|vaes"),
    ("hash of what is read back (BLAKE3)", r"blake3"),
    ("fresh memory: page faults", r"page_fault|clear_page|do_anonymous|madvise|munmap|unmap_page"),
    (
        "write: submit and complete (O_DIRECT)",
        r"pwrite|ext4_file_write|iomap_dio|blkdev_write|bio_|virtblk|end_io|blk_",
    ),
    ("read: page cache to buffer", r"preadv?64|preadv|filemap_read|vfs_read|do_preadv"),
    ("zero runs", r"fallocate|punch_hole|blkdev_issue_zeroout"),
    ("network: socket to buffer", r"tcp_|sock_|recv|loopback|skb_|__poll|do_sys_poll"),
    ("threads: switches, locks, wake-ups", r"futex|schedule|finish_task_switch|pthread_|sched_yield"),
    ("Python", r"python|_PyEval|PyObject|Py[A-Z]"),
    ("AEAD and key set-up", r"_rust\.abi3|libcrypto"),
)


def main() -> None:
    """Measure and print the table as Markdown."""
    parser = argparse.ArgumentParser(prog="scripts/bench profile", description=__doc__)
    parser.add_argument("--data", type=Path, default=cache_folder(), help="prepared data (default: %(default)s)")
    parser.add_argument("--from", dest="source", type=Path, default=Path("/usr"), help="whose files fill the disk")
    parser.add_argument("--repository", type=Path, help="restore the latest point in this directory instead")
    parser.add_argument("--secret-file", type=Path, help="its passphrase")
    parser.add_argument("--out", type=Path, help="the target (default: a new file beside the data)")
    parser.add_argument("--times", type=int, default=3, help="restores (default 3)")
    parser.add_argument("--http", action="store_true", help="by plain HTTP from a server of ours on this machine")
    arguments = parser.parse_args()
    if arguments.repository and arguments.http:
        parser.error("--http serves the bench's own repository")
    if arguments.repository is None:
        disk = files_disk(arguments.data, print, arguments.source)
        arguments.repository, arguments.secret_file = disk.repository(print), disk.secret
    elif arguments.secret_file is None:
        parser.error("--repository needs --secret-file")
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=arguments.data)))
        if arguments.http:
            served = serving(arguments.secret_file, arguments.repository, scratch, tls=False)
            repository, _ = open_source(stack.enter_context(served).source)
        else:
            repository = Repository.open(open_local(arguments.repository), arguments.secret_file.read_text().strip())
        profile(repository, arguments.out or scratch / "out.raw", scratch, arguments.times)


def profile(repository: Repository, out: Path, scratch: Path, times: int) -> None:
    """Restore the latest point's first disk ``times`` times onto ``out``; print where the CPU seconds went."""
    point = repository.point(repository.hosts()[0], "latest")
    name = point.body.disks[0].name
    map = repository.chunk_map(point, name)
    if not out.exists():
        with out.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, map.size)
    options = RestoreOptions(compare="never")

    def restore() -> None:
        restore_disk(repository, point, name, str(out), ignore, threading.Event(), options, chunk_map=map)

    restore()  # the packs come into the page cache, and the file's blocks are written once
    data = scratch / "perf.data"
    words = ["perf", "record", "-q", "-F", "997", "-e", "cpu-clock", "-g", "-o", str(data), "-p", str(os.getpid())]
    recorder = subprocess.Popen(words)
    time.sleep(1)  # it attaches
    before, begin = os.times(), time.monotonic()
    for _ in range(times):
        restore()
    seconds, after = time.monotonic() - begin, os.times()
    recorder.send_signal(signal.SIGINT)
    recorder.wait(60)
    cpu = after.user + after.system - before.user - before.system
    script = subprocess.run(
        ["perf", "script", "-i", str(data), "-F", "ip,sym,dso"], check=True, capture_output=True, text=True
    ).stdout
    report(shares(script.split("\n\n")), cpu, seconds, times * map.used() / 1e9)


def shares(stacks: Iterable[str]) -> Counter[str]:
    """How many samples each share has. Pure."""
    found: Counter[str] = Counter()
    for stack in stacks:
        if stack.strip():
            found[share_of(stack)] += 1
    return found


def share_of(stack: str) -> str:
    """The share of one sample: by its innermost frame if that tells, else by all of its stack. Pure."""
    innermost = stack.strip().splitlines()[0]
    for text in (innermost, stack):
        for name, pattern in _SHARES:
            if re.search(pattern, text):
                return name
    return "other"


def report(found: Counter[str], cpu: float, seconds: float, gigabytes: float) -> None:
    """The table."""
    total = sum(found.values())
    print(f"{gigabytes:.1f} GB that are not zero in {seconds:.1f} s with {os.cpu_count()} cores: "
          f"{gigabytes / seconds * 1000:.0f} MB/s, {cpu / gigabytes:.3f} CPU seconds a GB\n")  # fmt: skip
    print("| where | CPU s per GB | share |\n|---|--:|--:|")
    for name, count in found.most_common():
        print(f"| {name} | {count / total * cpu / gigabytes:.3f} | {count / total:.1%} |")


if __name__ == "__main__":
    main()
