"""Whole restores through a bad network: whatever happens to single answers, the disk is right in the end."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from recovery.errors import CancelledError, IntegrityError, RekindleError, UnreachableError
from recovery.events import Event, Message, Progress
from tests.support.fault_world import FaultWorld, make_fault_world, start
from tests.support.faults import Fault, Faults
from tests.support.server import ServerRig

pytestmark = pytest.mark.faults


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultWorld]:
    made = make_fault_world(tmp_path_factory.mktemp("faults"))
    yield made
    made.close()


@pytest.fixture
def proxy(world: FaultWorld) -> Iterator[Faults]:
    found = Faults(world.rig.server.listener.port)
    yield found
    found.close()


ONCE = {
    "reset before the answer": Fault(reset=True),
    "cut in the middle of the body": Fault(cut=100_000),
    "cut before the body": Fault(cut=0),
    "Content-Length larger than the body": Fault(claim=777),
    "Content-Length smaller than the body": Fault(claim=-777),
    "body too short": Fault(shorter=999),
    "more bytes behind the body": Fault(extra=b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"),
    "the whole object instead of the range": Fault(whole=True),
    "200 for the range": Fault(status=200),
    "another range": Fault(headers={"Content-Range": "bytes 5-99/1000"}),
    "a Content-Range that is none": Fault(headers={"Content-Range": "bytes=here"}),
    "no length": Fault(headers={"Content-Length": "none of your business"}),
    "500": Fault(status=500),
    "502": Fault(status=502),
    "503": Fault(status=503),
    "503, try again in 1 s": Fault(status=503, headers={"Retry-After": "1"}),
    "504": Fault(status=504),
    "429": Fault(status=429),
    "429, try again in 1 s": Fault(status=429, headers={"Retry-After": "1"}),
    "429, try again on a date": Fault(status=429, headers={"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}),
    "a flipped bit in a frame": Fault(flip=200_000),
    "a flipped bit in a frame's head": Fault(flip=3),
}


@pytest.mark.parametrize("name", ONCE)
def test_a_fault_that_passes_costs_only_a_retry(world: FaultWorld, proxy: Faults, tmp_path: Path, name: str) -> None:
    fault = ONCE[name]
    proxy.each([fault, fault], good=2)
    out = tmp_path / "out.img"
    restored = start(world.opened(world.store(proxy.url)), world.point, out)
    report = restored.join()
    assert proxy.dealt == [fault, fault]
    assert out.read_bytes() == world.data
    assert report.root_matched
    if not fault.extra and fault.claim >= 0:  # those are found out by the request after them, if by any
        assert restored.retries() >= 1
        assert restored.messages()


def test_all_faults_in_one_restore(world: FaultWorld, proxy: Faults, tmp_path: Path) -> None:
    proxy.each(ONCE.values(), good=1)  # one of two: the same frame damaged twice on its way is taken for damaged
    restored = start(world.opened(world.store(proxy.url)), world.point, tmp_path / "out.img", workers=4)
    restored.join()
    assert len(proxy.dealt) > 10
    assert (tmp_path / "out.img").read_bytes() == world.data


def test_half_of_all_answers_are_cut_somewhere(world: FaultWorld, proxy: Faults, tmp_path: Path) -> None:
    proxy.everything = True
    proxy.script = lambda seen: Fault(cut=seen.number * 37_000 % 300_000) if seen.number % 2 else None
    start(world.opened(world.store(proxy.url)), world.point, tmp_path / "out.img").join()
    assert len(proxy.dealt) > 5
    assert (tmp_path / "out.img").read_bytes() == world.data


def test_a_cut_body_is_taken_up_where_it_broke(world: FaultWorld, proxy: Faults, tmp_path: Path) -> None:
    proxy.next(Fault(cut=150_000))
    start(world.opened(world.store(proxy.url)), world.point, tmp_path / "out.img", workers=1).join()
    first, second = proxy.seen[:2]
    assert (second.path, second.start) == (first.path, first.start + 150_000)


def test_retry_after_is_heeded_and_told(world: FaultWorld, proxy: Faults, tmp_path: Path) -> None:
    proxy.next(Fault(status=503, headers={"Retry-After": "2"}))
    restored = start(world.opened(world.store(proxy.url)), world.point, tmp_path / "out.img")
    restored.join()
    assert any("in 2 s (attempt 1)" in text for text in restored.messages())


def test_a_stalled_server_is_given_up_and_asked_again(
    world: FaultWorld, proxy: Faults, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recovery.repository.transport._READ_SECONDS", 0.5)
    proxy.each([Fault(stall=True), Fault(stall=True, cut=70_000)], good=1)
    restored = start(world.opened(world.store(proxy.url)), world.point, tmp_path / "out.img")
    restored.join()
    assert len(proxy.dealt) == 2
    assert (tmp_path / "out.img").read_bytes() == world.data
    assert any("does not answer in time" in text for text in restored.messages())


@pytest.mark.parametrize("where", ["before the head", "in the body", "at the map"])
def test_a_restore_stops_at_once_while_the_server_stalls(
    world: FaultWorld, proxy: Faults, tmp_path: Path, where: str
) -> None:
    """The stall itself would last for two minutes."""
    proxy.everything = where == "at the map"
    proxy.always(Fault(stall=True, cut=70_000 if where == "in the body" else None))
    restored = start(world.opened(world.store(proxy.url)), world.point, tmp_path / "out.img", workers=4)
    assert proxy.stalled.wait(20)
    restored.cancel.set()
    with pytest.raises(CancelledError):
        restored.join(2.0)
    out = tmp_path / "out.img"
    assert not out.exists() or not any(out.read_bytes())


def test_silence_is_told(world: FaultWorld, proxy: Faults, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recovery.restore.disk._SILENT", 0.5)
    proxy.always(Fault(stall=True))
    said = threading.Event()

    def hear(event: Event) -> None:
        if isinstance(event, Progress) and "nothing arrived for" in event.note:
            said.set()

    restored = start(world.opened(world.store(proxy.url)), world.point, tmp_path / "out.img", hear=hear)
    assert said.wait(20)
    restored.cancel.set()
    with pytest.raises(CancelledError):
        restored.join(5)


def test_refused_connections_are_waited_out_and_told(world: FaultWorld, proxy: Faults, tmp_path: Path) -> None:
    proxy.always(Fault(rate=4_000_000))
    told = threading.Event()

    def hear(event: Event) -> None:
        if isinstance(event, Message) and event.level == "warning" and "refuses connections" in event.text:
            told.set()

    store = world.store(proxy.url)
    proxy.refuse()
    restored = start(world.opened(store), world.point, tmp_path / "out.img", hear=hear)
    assert told.wait(20)
    proxy.accept()
    restored.join()
    assert (tmp_path / "out.img").read_bytes() == world.data
    assert restored.retries() >= 2
    assert any("nothing listens" in text and "Trying again in" in text for text in restored.messages())


def test_an_outage_stands_in_the_progress_with_its_attempt_and_a_countdown(
    world: FaultWorld, proxy: Faults, tmp_path: Path
) -> None:
    proxy.script = lambda seen: Fault(rate=3_000_000) if seen.number < 8 else Fault(status=503)
    notes: list[str] = []
    seconds: dict[str, set[str]] = {}
    counted = threading.Event()

    def hear(event: Event) -> None:
        if isinstance(event, Progress):
            notes.append(event.note)
            if found := re.fullmatch(r"reconnecting, attempt (\d+), next in (\d+) s", event.note):
                seconds.setdefault(found[1], set()).add(found[2])
                if len(seconds) >= 3 and len(seconds[found[1]]) >= 3:
                    counted.set()

    restored = start(world.opened(world.store(proxy.url)), world.point, tmp_path / "out.img", hear=hear)
    # Three attempts at least, and one of them counted down for three seconds.
    assert counted.wait(60), sorted(set(notes))
    proxy.script = lambda seen: None
    restored.join()
    assert notes[-1] == "", "gone from the progress once bytes arrive"
    assert (tmp_path / "out.img").read_bytes() == world.data


def test_a_restore_stops_at_once_while_the_server_is_away(world: FaultWorld, proxy: Faults, tmp_path: Path) -> None:
    told = threading.Event()
    store = world.store(proxy.url)
    proxy.refuse()
    restored = start(
        world.opened(store), world.point, tmp_path / "out.img", patience=3600.0,
        hear=lambda event: told.set() if isinstance(event, Message) and "attempt 6" in event.text else None,
    )  # fmt: skip
    assert told.wait(30)
    restored.cancel.set()
    with pytest.raises(CancelledError):
        restored.join(2.0)


def test_a_name_that_dns_does_not_know_for_a_while(
    world: FaultWorld, proxy: Faults, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, failures = socket.getaddrinfo, [0]

    def resolve(*args: Any, **kwargs: Any) -> Any:
        failures[0] += 1
        if failures[0] <= 4:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return real(*args, **kwargs)

    store = world.store(proxy.url.replace("127.0.0.1", "localhost"))
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    restored = start(world.opened(store), world.point, tmp_path / "out.img")
    restored.join()
    assert (tmp_path / "out.img").read_bytes() == world.data
    assert any("no address for that name" in text for text in restored.messages())


def test_a_slow_line_only_takes_longer(world: FaultWorld, proxy: Faults, tmp_path: Path) -> None:
    proxy.always(Fault(rate=8_000_000))
    restored = start(world.opened(world.store(proxy.url)), world.point, tmp_path / "out.img", workers=4)
    restored.join()
    assert (tmp_path / "out.img").read_bytes() == world.data
    assert restored.retries() == 0


PERMANENT: dict[str, tuple[Fault, type[RekindleError], str]] = {
    "500": (Fault(status=500), RekindleError, "500"),
    "429": (Fault(status=429), UnreachableError, "429"),
    "503": (Fault(status=503), UnreachableError, "503"),
    "403": (Fault(status=403), RekindleError, "403"),
    "ranges are not known": (Fault(whole=True), UnreachableError, "other bytes"),
    "objects are short": (Fault(shorter=999), IntegrityError, "shorter"),
    "flipped": (Fault(flip=3), IntegrityError, "byte [0-9]+ of disk1"),
    "cut before the body": (Fault(cut=0), UnreachableError, "ended early"),
}


def _wrong(found: bytes, right: bytes) -> bool:
    """A byte is neither right nor the zero of a new file. Whole blocks first: a look at each byte takes seconds."""
    return found != right and any(found) and any(a not in (0, b) for a, b in zip(found, right, strict=True))


#: Those that the quick run sees too: an error of the server, one of access, damage.
_QUICK = ("503", "403", "flipped")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in _QUICK else pytest.mark.slow) for name in PERMANENT]
)
def test_a_fault_that_stays_is_one_clear_error_and_nothing_wrong_is_on_the_disk(
    world: FaultWorld, proxy: Faults, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recovery.repository.transport._SENSELESS_SECONDS", 0.5)
    monkeypatch.setattr("recovery.restore.worker._FIRST_WAIT", 0.1)
    fault, kind, words = PERMANENT[name]
    proxy.script = lambda seen: fault if seen.number >= 4 else None
    out = tmp_path / "out.img"
    restored = start(world.opened(world.store(proxy.url)), world.point, out, patience=1.0)
    with pytest.raises(kind, match=words) as caught:
        restored.join(30)
    assert isinstance(caught.value, RekindleError)
    assert caught.value.hint
    written = out.read_bytes()
    assert len(written) == len(world.data)
    assert [
        at for at in range(0, len(written), 4096) if _wrong(written[at : at + 4096], world.data[at : at + 4096])
    ] == []
    assert not any(written[: 256 * 1024])
    # Once it is over, the same command completes the disk.
    proxy.script = lambda seen: None
    start(world.opened(world.store(proxy.url)), world.point, out).join()
    assert out.read_bytes() == world.data


def test_the_server_dies_and_comes_back(tmp_path: Path) -> None:
    world = make_fault_world(tmp_path)
    try:
        proxy = Faults(world.rig.server.listener.port)
        proxy.always(Fault(rate=3_000_000))
        begun = threading.Event()

        def hear(event: Event) -> None:
            if isinstance(event, Progress) and event.transferred:
                begun.set()

        restored = start(world.opened(world.store(proxy.url)), world.point, tmp_path / "out.img", hear=hear)
        assert begun.wait(20)
        world.rig.stop(seconds=0.0)
        assert restored.thread is not None
        assert restored.thread.is_alive()
        threading.Event().wait(0.5)
        world.rig.start()
        restored.join()
        assert (tmp_path / "out.img").read_bytes() == world.data
        assert restored.retries() >= 1
        proxy.close()
    finally:
        world.close()


def test_the_server_is_replaced_by_another_with_a_copy_of_the_repository(tmp_path: Path) -> None:
    """The other server knows the user, and not the token: the session logs in again."""
    from recovery.repository.http import login_password
    from tests.support.server import PASSWORD

    world = make_fault_world(tmp_path / "a")
    other = ServerRig(tmp_path / "b")
    other.close()
    try:
        import shutil

        shutil.rmtree(other.root)
        shutil.copytree(world.rig.root, other.root, ignore=shutil.ignore_patterns(".server"))
        other._tls = False
        other.start()
        for rig in (world.rig, other):
            rig.session("restore")
        proxy = Faults(world.rig.server.listener.port)
        proxy.always(Fault(rate=3_000_000))
        session = login_password(proxy.url, world.rig.trust, "restore", PASSWORD)
        begun = threading.Event()

        def hear(event: Event) -> None:
            if isinstance(event, Progress) and event.transferred:
                begun.set()

        restored = start(world.opened(world.store(proxy.url, session)), world.point, tmp_path / "out.img", hear=hear)
        assert begun.wait(20)
        proxy.upstream = other.server.listener.port
        world.rig.stop(seconds=0.0)
        restored.join()
        assert (tmp_path / "out.img").read_bytes() == world.data
        proxy.close()
    finally:
        world.close()
        other.close()
