"""A small real repository with one host of two disks, and a store that can be held in the middle of a restore."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from recovery.capture.pipeline import capture
from recovery.capture.request import CaptureRequest
from recovery.commands import run
from recovery.events import ignore
from recovery.format.point import Point
from recovery.repository.location import open_index, open_store
from recovery.repository.protocols import ObjectInfo, ObjectStore
from recovery.repository.repository import Repository
from recovery.units import MIB

PASSPHRASE = "correct-horse-battery-staple"
HOST = "pve1"


@dataclass(frozen=True)
class World:
    """The repository's folder, its recovery key, the captured images, and the point."""

    location: Path
    recovery_key: str
    images: dict[str, Path]
    point: Point

    def open(self) -> Repository:
        """A new handle of the repository."""
        return Repository.open(open_store(str(self.location)), PASSPHRASE)


def make_world(folder: Path) -> World:
    """Capture two images of random data and holes."""
    images = {"disk1": folder / "a.raw", "disk2": folder / "b.raw"}
    with images["disk1"].open("wb") as file:
        file.truncate(24 * MIB)
        for place in range(0, 24, 3):
            file.seek(place * MIB)
            file.write(os.urandom(MIB))
    script = b"label: gpt\nstart=2048, size=2048, type=L\nstart=4096, size=36864, type=L, name=root\n"
    run(["sfdisk", "-q", "--force", images["disk1"]], input=script)
    images["disk2"].write_bytes(os.urandom(2 * MIB) + bytes(3 * MIB) + os.urandom(512))
    location = folder / "repository"
    store = open_store(str(location), create=True)
    repository, recovery_key = Repository.create(store, PASSPHRASE)
    request = CaptureRequest(host=HOST, disks=tuple(images.values()), firmware="bios")
    index = open_index(repository)
    point = capture(repository, index, request, ignore, threading.Event())
    return World(location, recovery_key, images, point)


class HoldingStore:
    """An ObjectStore that stops before reading a pack until ``release`` is set; ``reached``: it does."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self.reached = threading.Event()
        self.release = threading.Event()

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        return self._store.list(prefix)

    def size(self, name: str) -> int | None:
        return self._store.size(name)

    def get(self, name: str) -> bytes:
        return self._store.get(name)

    def read_into(self, name: str, offset: int, buffer: memoryview) -> None:
        if name.startswith("packs/"):
            self.reached.set()
            self.release.wait(60)
        self._store.read_into(name, offset, buffer)

    def put_if_absent(self, name: str, data: bytes | memoryview) -> bool:
        return self._store.put_if_absent(name, data)

    def delete(self, name: str) -> None:
        self._store.delete(name)
