"""Many parts of packs in one request: right, refused where it must be, unharmed by bad networks, few on an old
repository."""

from __future__ import annotations

import random
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from recovery.errors import AccessError, IntegrityError, NotFoundError, UsageError
from recovery.events import Event, Message, ignore
from recovery.format.names import pack_name
from recovery.format.pack import Pack
from recovery.repository.failover import with_copies
from recovery.repository.http import HttpStore
from recovery.repository.parts import MAX_PARTS, gathers, read_parts
from recovery.repository.protocols import Part
from recovery.repository.repository import Repository
from recovery.repository.store import open_local
from recovery.restore.disk import RestoreOptions, restore_disk
from tests.support.faults import Fault, Faults
from tests.support.fragmented import DISK, History, grow_old
from tests.support.repositories import noise_pack
from tests.support.server import ServerRig

KIB, MIB = 2**10, 2**20


def a_pack(rig: ServerRig) -> Pack:
    pack = noise_pack(200_000)
    rig.local.store.put_if_absent(pack_name(pack.name), bytes(pack.data))
    return pack


@pytest.fixture(params=[False, True], ids=["tls", "plain-packs"])
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ServerRig]:
    rig = ServerRig(tmp_path / "server", plain_packs=request.param)
    yield rig
    rig.close()


def store_of(rig: ServerRig) -> HttpStore:
    return rig.store("restore", plain_packs=rig.plain_port is not None)


def test_parts_come_one_after_another(rig: ServerRig) -> None:
    packs = [a_pack(rig) for _ in range(3)]
    store, source = store_of(rig), random.Random(1)
    for count in (1, 2, 60, MAX_PARTS):
        parts, wanted = [], b""
        for _ in range(count):
            pack = source.choice(packs)
            offset = source.randrange(len(pack.data) - 1)
            length = source.randrange(1, min(3000, len(pack.data) - offset) + 1)
            parts.append(Part(pack_name(pack.name), offset, length))
            wanted += bytes(pack.data[offset : offset + length])
        buffer = bytearray(len(wanted))
        read_parts(store, parts, memoryview(buffer))
        assert bytes(buffer) == wanted
        directory = bytearray(len(wanted))
        read_parts(rig.local.store, parts, memoryview(directory))
        assert directory == buffer
    assert gathers(store)
    assert not gathers(rig.local.store)


def test_what_is_not_there_is_said(rig: ServerRig) -> None:
    pack, store = a_pack(rig), store_of(rig)
    good = Part(pack_name(pack.name), 0, 100)
    with pytest.raises(NotFoundError):
        read_parts(store, [good, Part(pack_name("0" * 64), 0, 10)], memoryview(bytearray(110)))
    with pytest.raises(IntegrityError, match="has only"):
        read_parts(store, [good, Part(good.name, len(pack.data) - 5, 10)], memoryview(bytearray(110)))
    with pytest.raises(NotFoundError, match="not the name"):
        read_parts(store, [good, Part("../../etc/passwd", 0, 10)], memoryview(bytearray(110)))


def test_the_server_refuses_what_makes_no_sense(tmp_path: Path) -> None:
    rig = ServerRig(tmp_path)
    try:
        pack = a_pack(rig)
        name, call = pack_name(pack.name), rig.store("admin").transport.call
        for parts in (
            [], [["repo.json", 0, 2]], [["packs/../repo.json", 0, 2]], [[name, -1, 2]], [[name, 0, 0]],
            [[name, 0, -3]], [[name, 0, 100]] * (MAX_PARTS + 1), [[name, 0, 2**40]], {"a": 1}, [[name, 0]],
        ):  # fmt: skip
            with pytest.raises(UsageError):
                call("POST", "/v1/read", data=msgspec.json.encode(parts))
        with pytest.raises(AccessError):
            rig.store("capture").transport.call("POST", "/v1/read", data=msgspec.json.encode([[name, 0, 2]]))
        body = msgspec.json.encode([[name, 10, 5], [name, 100, 5]])
        assert call("POST", "/v1/read", data=body).body == bytes(pack.data[10:15]) + bytes(pack.data[100:105])
        buffer = bytearray(4)
        call("POST", "/v1/read", data=body, range_from=3, into=memoryview(buffer))
        assert bytes(buffer) == bytes(pack.data[13:15]) + bytes(pack.data[100:102])
    finally:
        rig.close()


class Old:
    """An old repository behind a server and a proxy that does bad things."""

    def __init__(self, folder: Path) -> None:
        self.rig = ServerRig(folder / "server", tls=False)
        self.history: History = grow_old(
            self.rig.local, size=24 * MIB, chunk_size=256 * KIB, captures=40, share=0.05, pack_size=4 * MIB
        )
        self.faults = Faults(self.rig.server.listener.port)
        self.faults.everything = True
        self.stores: list[HttpStore] = []

    def repository(self, url: str = "") -> Repository:
        store = HttpStore(
            url or self.faults.url, trust=self.rig.trust, tokens=self.rig.session("restore"), patience=20
        )
        self.stores.append(store)
        return Repository(store, self.rig.local.file, self.rig.local.keys)

    def restore(
        self, repository: Repository, out: Path, hear: Callable[[Event], None] = ignore, *, skip_damaged: bool = False
    ) -> int:  # fmt: skip
        """Returns the bytes transferred."""
        report = restore_disk(
            repository, self.history.point, DISK, str(out), hear, threading.Event(),
            RestoreOptions(workers=2, verify_all=True, request=2 * MIB, skip_damaged=skip_damaged),
        )  # fmt: skip
        lost = {damage.offset // (256 * KIB) for damage in report.damaged}
        with out.open("rb") as file:
            for index in range(self.history.map.count):
                assert file.read(256 * KIB) == (bytes(256 * KIB) if index in lost else self.history.chunk(index)), (
                    index
                )
        assert report.root_matched == (not lost)
        return report.transferred

    def close(self) -> None:
        for store in self.stores:
            store.close()
        self.faults.close()
        self.rig.close()


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Old]:
    old = Old(tmp_path_factory.mktemp("old"))
    yield old
    old.close()


@pytest.mark.parametrize(
    "fault",
    [
        Fault(reset=True),
        Fault(cut=0),
        Fault(cut=100_001),
        Fault(claim=1000),
        Fault(shorter=1000),
        Fault(extra=b"more"),
        Fault(whole=True),
        Fault(headers={"Content-Range": "bytes 5-9/10"}),
        Fault(status=429),
        Fault(status=500),
        Fault(status=503),
        Fault(flip=70_000),
    ],
    ids=lambda f: "-".join(name for name in f.__dataclass_fields__ if getattr(f, name) != getattr(Fault(), name)),
)
def test_a_bad_network_harms_no_gathered_read(old: Old, tmp_path: Path, fault: Fault) -> None:
    bad = iter([None, fault, None, None, fault])
    old.faults.dealt.clear()
    old.faults.script = lambda seen: next(bad, None) if seen.path == "/v1/read" else None
    transferred = old.restore(old.repository(), tmp_path / "out.raw")
    assert len(old.faults.dealt) == 2
    needed = sum(entry.length for _, entry in old.history.map.blobs())
    # What had arrived before a cut is not fetched again; a batch with a wrong length is, up to three times.
    assert transferred <= needed * 1.15 + 2 * MIB


def test_one_lost_pack_costs_only_its_chunks(old: Old, tmp_path: Path) -> None:
    copy = shutil.copytree(old.rig.root, tmp_path / "copy", ignore=shutil.ignore_patterns(".server"))
    refs = [entry.pack for _, entry in old.history.map.blobs()]
    lost = min(set(refs), key=refs.count)
    kept = old.rig.root / pack_name(lost.hex())
    kept.rename(tmp_path / "kept")
    old.faults.script = lambda seen: None
    try:
        events: list[Event] = []
        with_copy = with_copies(old.repository(), [open_local(copy)])
        old.restore(with_copy, tmp_path / "one.raw", events.append)
        assert any(lost.hex() in event.text for event in events if isinstance(event, Message))
        damaged: list[int] = []
        old.restore(old.repository(), tmp_path / "two.raw", skip_damaged=True)
        report_chunks = [i for i, entry in old.history.map.blobs() if entry.pack == lost]
        with (tmp_path / "two.raw").open("rb") as file:
            for index in range(old.history.map.count):
                if not any(file.read(256 * KIB)):
                    damaged.append(index)
        assert damaged == report_chunks
    finally:
        (tmp_path / "kept").rename(kept)


@pytest.mark.slow
def test_an_old_repository_is_read_in_few_requests(tmp_path: Path) -> None:
    """Hundreds of captures behind it: at most one request for 6 MiB, and 15 % read for nothing."""
    rig = ServerRig(tmp_path / "server", tls=False)
    try:
        history = grow_old(rig.local, size=160 * MIB, chunk_size=256 * KIB, captures=200, share=0.01)
        repository = rig.repository("restore")
        map = repository.chunk_map(history.point, DISK)
        before = reads(rig)
        out = tmp_path / "out.raw"
        report = restore_disk(repository, history.point, DISK, str(out), ignore, threading.Event(),
                              RestoreOptions(verify_all=True), chunk_map=map)  # fmt: skip
        requests, sent = (now - then for now, then in zip(reads(rig), before, strict=True))
        needed = sum(entry.length for _, entry in history.map.blobs())
        packs = len(history.map.used_packs())
        assert report.root_matched
        assert packs > 150
        assert requests <= 3 + sent / (6 * MIB), (requests, sent)
        assert report.transferred <= 1.15 * needed
        assert sent <= 1.15 * needed
    finally:
        rig.close()


def reads(rig: ServerRig) -> tuple[float, float]:
    """Requests for packs so far, and bytes sent."""
    text = rig.server.app.metrics.render()
    counts = re.findall(r'rekindle_requests_total{method="(?:GET|POST)",route="/v1/(?:read|objects/)".*} (\d+)', text)
    sent = re.findall(r"^rekindle_sent_bytes_total (\d+)", text, re.MULTILINE)
    return sum(map(float, counts)), sum(map(float, sent))
