"""What the fault tests share: a server with one captured disk, a proxy before it, and whole restores through it."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from recovery.events import Event, Message, Progress
from recovery.format.point import Point
from recovery.layout import Firmware
from recovery.repository.http import HttpStore
from recovery.repository.protocols import ObjectStore
from recovery.repository.repository import Repository
from recovery.repository.transport import TokenProvider
from recovery.restore.disk import RestoreOptions, restore_disk
from recovery.restore.report import DiskReport
from tests.support.repositories import commit, store_disk
from tests.support.server import ServerRig

MIB = 2**20
HOST = "hv1"
SIZE = 10 * MIB + 512 * 7


def content(seed: int = 1, size: int = SIZE) -> bytes:
    """A disk: random and repeated data, and holes."""
    source = random.Random(seed)
    parts: list[bytes] = []
    while sum(map(len, parts)) < size:
        length = source.randrange(1, MIB)
        parts.append(bytes(length // 2) if source.random() < 0.2 else source.randbytes(length))
    return b"".join(parts)[:size]


@dataclass
class FaultWorld:
    """A server with the point of a host of one disk ``disk1``, whose content is ``data``."""

    rig: ServerRig
    point: Point
    data: bytes
    stores: list[HttpStore] = field(default_factory=list)

    def store(self, url: str, tokens: TokenProvider | None = None, *, patience: float = 20.0) -> HttpStore:
        """A store at ``url``, logged in."""
        store = HttpStore(url, trust=self.rig.trust, tokens=tokens or self.rig.session("restore"), patience=patience)
        self.stores.append(store)
        return store

    def opened(self, store: ObjectStore) -> Repository:
        """The repository through a store."""
        return Repository(store, self.rig.local.file, self.rig.local.keys)

    def close(self) -> None:
        """Close the stores and the server."""
        for store in self.stores:
            store.close()
        self.rig.close()


def make_fault_world(folder: Path, *, tls: bool = False) -> FaultWorld:
    """A new one; small packs, so that a restore has many requests."""
    rig = ServerRig(folder, tls=tls)
    data = content()
    firmware: Firmware = "uefi" if Path("/sys/firmware/efi").exists() else "bios"  # so that it may come back here
    made = commit(rig.local, HOST, {"disk1": store_disk(rig.local, data, frames_per_pack=3)}, firmware=firmware)
    return FaultWorld(rig, made, data)


@dataclass
class Restored:
    """A restore that runs or ran. ``join`` returns its report or raises what it raised."""

    target: Path
    events: list[Event] = field(default_factory=list)
    cancel: threading.Event = field(default_factory=threading.Event)
    report: DiskReport | None = None
    error: BaseException | None = None
    thread: threading.Thread | None = None

    def join(self, seconds: float = 60.0) -> DiskReport:
        """Wait for the end."""
        assert self.thread is not None
        self.thread.join(seconds)
        assert not self.thread.is_alive(), "the restore does not end"
        if self.error is not None:
            raise self.error
        assert self.report is not None
        return self.report

    def messages(self) -> list[str]:
        """The texts of all Messages."""
        return [event.text for event in self.events if isinstance(event, Message)]

    def retries(self) -> int:
        """As the last Progress says."""
        return max((event.retries for event in self.events if isinstance(event, Progress)), default=0)


def start(
    repository: Repository, point: Point, target: Path | str, *, patience: float = 30.0, workers: int = 2,
    request: int = MIB, hear: Callable[[Event], None] | None = None,
) -> Restored:  # fmt: skip
    """Begin a restore of ``disk1`` in a thread; small requests make many of them."""
    restored = Restored(Path(target))

    def listen(event: Event) -> None:
        restored.events.append(event)
        if hear is not None:
            hear(event)

    def run() -> None:
        options = RestoreOptions(patience=patience, workers=workers, verify_all=True, request=request)
        try:
            restored.report = restore_disk(
                repository, point, "disk1", str(target), listen, restored.cancel, options
            )  # fmt: skip
        except BaseException as error:
            restored.error = error

    restored.thread = threading.Thread(target=run, name="restore", daemon=True)
    restored.thread.start()
    return restored
