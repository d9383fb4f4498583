"""What the bench measures of this project, in a process of its own: ``python -m tests.bench.worker KIND JSON``.

Starting Python, unlocking the repository and logging in are not part of these figures; the row of the whole command
has them. The answer is a line of JSON.
"""

from __future__ import annotations

import os
import random
import resource
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec

from recovery.events import Event, Progress, ignore
from recovery.format.chunk import FrameDecoder, chunk_id
from recovery.format.chunkmap import ChunkMap, MapEntry
from recovery.format.names import pack_name
from recovery.format.point import Point
from recovery.repository.http import HttpStore, login_password
from recovery.repository.location import Credentials, open_store
from recovery.repository.protocols import ObjectStore
from recovery.repository.repository import Repository
from recovery.repository.tls import Trust
from recovery.repository.transport import Reply
from recovery.restore.disk import RestoreOptions, restore_disk
from tests.bench.data import HOST
from tests.bench.model import Sample

DISK = "disk1"


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """Where the repository is and how to get in. ``http://`` needs no fingerprint; ``plain_packs``: packs by plain
    HTTP, all else by TLS."""

    location: str
    secret: str
    password: str = ""
    fingerprint: str = ""
    plain_packs: bool = False


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """What to do. ``budget`` is bytes of frames that ``limit`` holds; ``seed`` chooses what ``delta`` spoils."""

    source: Source
    target: str = ""
    budget: int = 0
    seed: int = 0


def open_source(source: Source) -> tuple[Repository, Point]:
    """The repository, unlocked, and the newest point of the bench's host."""
    secret = Path(source.secret).read_text().strip()
    repository = Repository.open(_store(source), secret)
    return repository, repository.point(HOST, "latest")


def _store(source: Source) -> ObjectStore:
    if not source.location.startswith("http"):
        return open_store(source.location)
    password = Path(source.password).read_text().strip()
    if source.fingerprint:
        ca, plain_packs = source.fingerprint, source.plain_packs
        return open_store(source.location, Credentials(user=HOST, password=password, ca=ca, plain_packs=plain_packs))
    # By plain HTTP to another address than loopback, which the command line does not do.
    trust = Trust(plain=True)
    return HttpStore(source.location, trust=trust, tokens=login_password(source.location, trust, HOST, password))


def restore(task: Task) -> Sample:
    """Restore the disk to the target, as the product does by default."""
    repository, point = open_source(task.source)
    return _timed_restore(repository, point, task.target)


def limit(task: Task) -> Sample:
    """Decode the disk's frames from memory by as many threads as there are cores: decrypt, decompress, no more.

    Each frame once, as in a restore. When they are more than ``budget`` bytes the first ones are taken, and the time
    is scaled by plain bytes.
    """
    repository, point = open_source(task.source)
    map = repository.chunk_map(point, DISK)
    frames, held, plain, whole = [], 0, 0, 0
    seen: set[tuple[bytes, int]] = set()
    for index, entry in map.blobs():
        if (entry.pack, entry.offset) in seen:
            continue
        seen.add((entry.pack, entry.offset))
        whole += map.length(index)
        if held >= task.budget:
            continue
        data = bytearray(entry.length)
        repository.store.read_into(pack_name(entry.pack.hex()), entry.offset, memoryview(data))
        frames.append((entry, memoryview(data), map.length(index)))
        held, plain = held + entry.length, plain + map.length(index)
    threads = os.cpu_count() or 1

    def work(part: int) -> None:
        decoder, out = FrameDecoder(repository.keys), memoryview(bytearray(map.chunk_size))
        for entry, data, length in frames[part::threads]:
            decoder.decode_into(data, entry.id, out[:length])

    with ThreadPoolExecutor(threads) as pool:
        begin, cpu = time.monotonic(), _cpu()
        list(pool.map(work, range(threads)))
        seconds, used = time.monotonic() - begin, _cpu() - cpu
    scale = whole / plain
    return Sample(
        seconds=seconds * scale, cpu=used * scale, figures={"frame_bytes": held * scale, "part": plain / whole}
    )


def counted(task: Task) -> Sample:
    """As ``restore`` from our server, with the number of requests that it takes."""
    repository, point = open_source(task.source)
    assert isinstance(repository.store, HttpStore)
    transport, lock, requests = repository.store.transport, threading.Lock(), [0]
    call = transport.call

    def counting(*words: Any, **named: Any) -> Reply:
        with lock:
            requests[0] += 1
        return call(*words, **named)

    setattr(transport, "call", counting)  # noqa: B010 - an attribute of this one object
    sample = _timed_restore(repository, point, task.target)
    return msgspec.structs.replace(sample, figures={**sample.figures, "requests": float(requests[0])})


def delta(task: Task) -> Sample:
    """Spoil one in a hundred stored chunks of a target that holds the disk, and restore again."""
    repository, point = open_source(task.source)
    map = repository.chunk_map(point, DISK)
    stored = [index for index, _ in map.blobs()]
    chosen = random.Random(task.seed).sample(stored, max(1, len(stored) // 100))
    with Path(task.target).open("r+b") as file:
        for index in chosen:
            file.seek(index * map.chunk_size)
            file.write(os.urandom(map.length(index)))
        file.flush()
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    changed = _frame_bytes(map, chosen)
    sample = _timed_restore(repository, point, task.target)
    figures = {**sample.figures, "changed": float(changed), "chunks": float(len(chosen))}
    return msgspec.structs.replace(sample, figures=figures)


def missing(task: Task) -> Sample:
    """How much a target lacks: the bytes of the frames of chunks that it does not hold."""
    repository, point = open_source(task.source)
    map = repository.chunk_map(point, DISK)
    lacking, begin = [], time.monotonic()
    with Path(task.target).open("rb", buffering=0) as file:
        buffer = bytearray(map.chunk_size)
        for index, entry in map.blobs():
            plain = memoryview(buffer)[: map.length(index)]
            file.seek(index * map.chunk_size)
            if file.readinto(plain) != len(plain) or chunk_id(repository.keys, plain) != entry.id:
                lacking.append(index)
    everything = _frame_bytes(map, [index for index, _ in map.blobs()])
    figures: dict[str, float] = {"remaining": _frame_bytes(map, lacking), "stored": everything}
    return Sample(seconds=time.monotonic() - begin, figures=figures)


def started(task: Task) -> Sample:
    """As ``restore``, but it says on stdout when the first byte was written: the bench kills it some time later."""
    repository, point = open_source(task.source)
    told = threading.Event()

    def hear(event: Event) -> None:
        if isinstance(event, Progress) and event.written and not told.is_set():
            told.set()
            print("writing", flush=True)

    return _timed_restore(repository, point, task.target, hear)


def _timed_restore(
    repository: Repository, point: Point, target: str, listener: Callable[[Event], None] = ignore
) -> Sample:
    begin, cpu = time.monotonic(), _cpu()
    report = restore_disk(repository, point, DISK, target, listener, threading.Event(), RestoreOptions())
    figures: dict[str, float] = {
               "transferred": report.transferred, "written": report.written, "skipped": report.skipped,
               "peak_rss": peak_memory()}  # fmt: skip
    return Sample(seconds=time.monotonic() - begin, cpu=_cpu() - cpu, figures=figures)


def _frame_bytes(map: ChunkMap, indexes: list[int]) -> int:
    entries = [map.get(index) for index in indexes]
    return sum({(e.pack, e.offset): e.length for e in entries if isinstance(e, MapEntry)}.values())


def peak_memory() -> int:
    """The most bytes that this process ever held. (What getrusage says begins with what its parent held.)"""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def _cpu() -> float:
    """CPU-seconds of this process and of helpers of its that have ended."""
    every = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in every)


_KINDS = {
    "restore": restore,
    "counted": counted,
    "limit": limit,
    "delta": delta,
    "missing": missing,
    "started": started,
}


def main() -> None:
    """Do one task."""
    task = msgspec.json.decode(sys.argv[2], type=Task)
    print(msgspec.json.encode(_KINDS[sys.argv[1]](task)).decode(), flush=True)


if __name__ == "__main__":
    main()
