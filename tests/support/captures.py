"""Captures in tests: take one, read it back without the restore, and interfere between its packs."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from pathlib import Path

from recovery.capture.pipeline import capture
from recovery.capture.request import CaptureRequest
from recovery.events import Listener, ignore
from recovery.format.chunk import FrameDecoder
from recovery.format.names import pack_name, parse_name
from recovery.format.point import Point
from recovery.repository.index import SqliteIndex
from recovery.repository.repository import Repository
from recovery.repository.store import DirectoryStore


def take(
    repository: Repository,
    *disks: Path,
    host: str = "host1",
    listener: Listener = ignore,
    cancel: threading.Event | None = None,
) -> Point:
    """Capture with an index made afresh from the packs, as after the loss of the cache."""
    index = SqliteIndex(":memory:")
    index.refresh(repository.store)
    request = CaptureRequest(host=host, disks=disks)
    return capture(repository, index, request, listener, cancel or threading.Event())


def read_back(repository: Repository, point: Point, disk: str = "disk1") -> bytes:
    """The disk's bytes, by the map alone."""
    chunk_map = repository.chunk_map(point, disk)
    out = bytearray(chunk_map.size)
    decoder = FrameDecoder(repository.keys)
    for index, entry in chunk_map.blobs():
        frame = bytearray(entry.length)
        repository.store.read_into(pack_name(entry.pack.hex()), entry.offset, memoryview(frame))
        start = index * chunk_map.chunk_size
        length = decoder.decode_into(memoryview(frame), entry.id, memoryview(out)[start:])
        assert length == chunk_map.length(index)
    return bytes(out)


def packs(repository: Repository) -> list[str]:
    return [info.name for info in repository.store.list("packs/") if parse_name(info.name)]


def noise(path: Path, size: int, seed: int = 1) -> Path:
    path.write_bytes(random.Random(seed).randbytes(size))
    return path


class HookedStore(DirectoryStore):
    """A real directory that calls back before a pack is stored."""

    before_pack: Callable[[], None] = staticmethod(lambda: None)

    def put_if_absent(self, name: str, data: bytes | bytearray | memoryview) -> bool:
        if name.startswith("packs/"):
            self.before_pack()
        return super().put_if_absent(name, data)


def hooked(repository: Repository, hook: Callable[[], None]) -> Repository:
    assert isinstance(repository.store, DirectoryStore)
    store = HookedStore(repository.store.root)
    store.before_pack = hook
    return Repository(store, repository.file, repository.keys)
