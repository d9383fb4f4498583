"""Packs by plain HTTP: signed reads only, no token in the clear, and nothing that somebody on the way can break."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from rekindle_server.plain import PlainPacks

from recovery.errors import AccessError, ErrorReport, NotFoundError
from recovery.events import Message
from recovery.format.names import pack_name
from recovery.format.pack import Pack
from recovery.repository.http import HttpStore
from recovery.repository.http_signed import PACKS, SignedReads, signature, signed_path
from recovery.restore.disk import RestoreOptions, restore_disk
from tests.support.fault_world import HOST, content
from tests.support.faults import Fault, Faults
from tests.support.repositories import commit, noise_pack, store_disk
from tests.support.server import PASSWORD, ServerRig


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[ServerRig]:
    rig = ServerRig(tmp_path, plain_packs=True)
    yield rig
    rig.close()


def a_pack(rig: ServerRig, size: int = 500_000) -> Pack:
    pack = noise_pack(size)
    rig.local.store.put_if_absent(pack_name(pack.name), bytes(pack.data))
    return pack


def given(rig: ServerRig) -> SignedReads:
    """As a client gets it."""
    reply = rig.store("restore").transport.call("POST", "/v1/signed", data=b"")
    return msgspec.json.decode(reply.body, type=SignedReads)


def wait_for_count(rig: ServerRig, count: int) -> None:
    """Until the server has counted so many signed reads: it does after it has answered."""
    text = f'route="{PACKS}",status="206"}} {count}\n'
    deadline = time.monotonic() + 60
    while text not in rig.server.app.metrics.render():
        assert time.monotonic() < deadline, rig.server.app.metrics.render()
        time.sleep(0.02)


def ask(rig: ServerRig, path: str, headers: dict[str, str], method: str = "GET") -> tuple[int, bytes]:
    assert rig.plain_port
    connection = http.client.HTTPConnection("127.0.0.1", rig.plain_port, timeout=10)
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_a_signed_read_gives_just_what_was_signed(rig: ServerRig) -> None:
    pack, keys = a_pack(rig), given(rig)
    name, expires = pack_name(pack.name), keys.now + 60
    path = signed_path(keys, name, "bytes=100-299", expires)
    assert ask(rig, path, {"Range": "bytes=100-299"}) == (206, bytes(pack.data[100:300]))
    assert ask(rig, path, {"Range": "bytes=100-300"})[0] == 403
    assert ask(rig, path, {})[0] == 404
    assert ask(rig, path.replace("expires=", "expires=1"), {"Range": "bytes=100-299"})[0] == 403
    other = a_pack(rig, 4000)
    assert ask(rig, path.replace(pack.name, other.name), {"Range": "bytes=100-299"})[0] == 403
    for wrong in (path[:-1] + ("0" if path[-1] != "0" else "1"), path.replace(keys.session, "0" * 32), path[:-64]):
        assert ask(rig, wrong, {"Range": "bytes=100-299"})[0] == 403
    token = rig.session("restore").current()
    assert ask(rig, path, {"Range": "bytes=100-299", "Authorization": f"Bearer {token}"})[0] == 400


def test_a_read_cannot_be_signed_for_ever_or_for_the_past(rig: ServerRig) -> None:
    pack, keys = a_pack(rig), given(rig)
    for expires, status in ((keys.now + 60, 206), (keys.now - 5, 403), (keys.now + 3600, 403), (10**15, 403)):
        path = signed_path(keys, pack_name(pack.name), "bytes=0-9", expires)
        assert ask(rig, path, {"Range": "bytes=0-9"})[0] == status


def test_the_plain_port_has_nothing_but_packs(rig: ServerRig) -> None:
    keys = given(rig)
    token = rig.session("restore").current()
    for name in ("repo.json", "keys/" + "0" * 64 + ".json", "packs/../repo.json", "maps/" + "0" * 64):
        path = signed_path(keys, name, "bytes=0-9", keys.now + 60)
        assert ask(rig, path, {"Range": "bytes=0-9"})[0] in (400, 404)
    for path in ("/v1/info", "/v1/list", "/v1/objects/repo.json", "/metrics", "/healthz", "/v1/login"):
        assert ask(rig, path, {"Authorization": f"Bearer {token}"})[0] == 404
    assert ask(rig, PACKS + "packs/00/" + "0" * 64, {}, "PUT")[0] == 405


def test_the_key_ends_with_the_login(rig: ServerRig) -> None:
    pack = a_pack(rig)
    rig.session("restore")
    store = HttpStore(rig.url, trust=rig.trust, tokens=rig.session("restore"))
    keys = given(rig)
    path = signed_path(keys, pack_name(pack.name), "bytes=0-9", keys.now + 60)
    assert ask(rig, path, {"Range": "bytes=0-9"})[0] == 206
    store.transport.call("POST", "/v1/logout")
    status, body = ask(rig, path, {"Range": "bytes=0-9"})
    assert status == 403
    assert msgspec.json.decode(body, type=ErrorReport).kind == "AccessError"
    store.close()


def test_who_may_not_read_packs_gets_no_key(rig: ServerRig) -> None:
    with pytest.raises(AccessError, match="capture"):
        rig.store("capture", plain_packs=True)


def test_a_server_that_was_not_told_to_does_not_offer_it(tmp_path: Path) -> None:
    rig = ServerRig(tmp_path)
    try:
        with pytest.raises(NotFoundError) as caught:
            rig.store("restore", plain_packs=True)
        assert "--plain-packs" in caught.value.hint
    finally:
        rig.close()


def test_ranges_come_by_the_plain_port_and_the_rest_by_tls(rig: ServerRig) -> None:
    pack = a_pack(rig)
    store = rig.store("restore", plain_packs=True)
    for offset, length in ((0, 10), (7, 100_000), (0, len(pack.data)), (len(pack.data) - 1, 1)):
        buffer = memoryview(bytearray(length))
        store.read_into(pack_name(pack.name), offset, buffer)
        assert bytes(buffer) == pack.data[offset : offset + length]
    assert store.get("repo.json") == rig.local.store.get("repo.json")
    wait_for_count(rig, 4)
    assert 'method="GET",route="/v1/objects/",status="206"' not in rig.server.app.metrics.render()


def test_a_restarted_server_has_other_keys_and_nobody_notices(rig: ServerRig) -> None:
    pack = a_pack(rig)
    store = rig.store("restore", plain_packs=True)
    buffer = memoryview(bytearray(1000))
    store.read_into(pack_name(pack.name), 5, buffer)
    rig.stop()
    rig.start()
    store.read_into(pack_name(pack.name), 5, buffer)
    store.read_into(pack_name(pack.name), 5, buffer)
    assert bytes(buffer) == pack.data[5:1005]
    wait_for_count(rig, 2)


def test_a_clock_of_another_decade_does_not_matter(rig: ServerRig, monkeypatch: pytest.MonkeyPatch) -> None:
    pack = a_pack(rig)
    store = rig.store("restore", plain_packs=True)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() - 10 * 365 * 86400)  # the server's clock was bound before
    buffer = memoryview(bytearray(1000))
    store.read_into(pack_name(pack.name), 5, buffer)
    wait_for_count(rig, 1)


class Tampered:
    """A server whose plain port is reached through a proxy that does bad things; TLS goes straight to it."""

    def __init__(self, folder: Path) -> None:
        self.rig = ServerRig(folder, plain_packs=True)
        self.data = content()
        self.point = commit(self.rig.local, HOST, {"disk1": store_disk(self.rig.local, self.data, frames_per_pack=3)})
        plain = self.rig.server.plain_listener
        assert plain is not None
        self.faults = Faults(plain.port)
        # What the server tells its clients: the port of whoever sits between.
        offered = PlainPacks(self.rig.server.app, int(self.faults.url.rpartition(":")[2]))
        plain.plain = self.rig.server.listener.plain = offered
        self.repository = self.rig.repository("restore")
        self.repository.store = self.rig.store("restore", plain_packs=True)
        self.said: list[str] = []

    def restore(self, target: Path) -> None:
        def hear(event: object) -> None:
            if isinstance(event, Message):
                self.said.append(event.text)

        options = RestoreOptions(workers=2, verify_all=True, patience=20.0)
        report = restore_disk(self.repository, self.point, "disk1", str(target), hear, threading.Event(), options)
        assert target.read_bytes() == self.data
        assert report.root_matched

    def close(self) -> None:
        self.faults.close()
        self.rig.close()


@pytest.fixture
def tampered(tmp_path: Path) -> Iterator[Tampered]:
    tampered = Tampered(tmp_path)
    yield tampered
    tampered.close()


FORGED = json.dumps({"kind": "AccessError", "message": "Your disk is mine.", "hint": "", "exit_code": 4}).encode()


@pytest.mark.parametrize(
    "fault",
    [
        Fault(flip=200),
        Fault(status=403),
        Fault(status=404),
        Fault(status=302, headers={"Location": "http://127.0.0.1:1/"}),
        Fault(reset=True),
        Fault(cut=1000),
        Fault(claim=1 << 40),
        Fault(whole=True),
        Fault(shorter=100),
        Fault(headers={"Content-Range": "bytes 0-9/10"}),
        Fault(extra=FORGED),
    ],
    ids=lambda fault: "-".join(
        name for name in fault.__dataclass_fields__ if getattr(fault, name) != getattr(Fault(), name)
    ),
)
def test_tampering_with_every_read_costs_time_and_nothing_else(
    tampered: Tampered, tmp_path: Path, fault: Fault
) -> None:
    tampered.faults.always(fault)
    tampered.restore(tmp_path / "out.raw")
    assert tampered.faults.dealt
    assert not any("mine" in text for text in tampered.said)


def test_nobody_listens_on_the_plain_port_any_more(tampered: Tampered, tmp_path: Path) -> None:
    tampered.faults.refuse()
    tampered.restore(tmp_path / "out.raw")
    assert any("over TLS for 30 s" in text for text in tampered.said)


def test_a_read_that_hangs_can_be_stopped_at_once(tampered: Tampered, tmp_path: Path) -> None:
    tampered.faults.always(Fault(stall=True, cut=10))
    cancel = threading.Event()
    threading.Timer(0.5, cancel.set).start()
    begin = time.monotonic()
    with pytest.raises(Exception, match="stopped"):
        restore_disk(tampered.repository, tampered.point, "disk1", str(tmp_path / "out"), lambda event: None, cancel)
    # Two seconds are promised to a machine that has time; a read that is not stopped waits for two minutes.
    assert time.monotonic() - begin < 60


def test_the_token_is_not_seen_on_the_plain_port(tampered: Tampered, tmp_path: Path) -> None:
    seen: list[str] = []
    judge = tampered.faults.judge

    def watch(method: str, path: str, start: int) -> Fault:
        seen.append(path)
        return judge(method, path, start)

    tampered.faults.judge = watch  # type: ignore[method-assign]
    tampered.restore(tmp_path / "out.raw")
    token = tampered.rig.session("restore").current()
    assert seen
    assert not any(token in path or PASSWORD in path for path in seen)
    assert all("signature=" in path for path in seen)


def test_what_is_signed_cannot_be_read_in_two_ways() -> None:
    key = b"k" * 32
    texts = {signature(key, *read) for read in (("a", "b", 1), ("a", "", 1), ("ab", "", 1), ("a", "b", 11))}
    assert len(texts) == 4


def test_a_server_that_comes_back_on_another_port_is_found_again(
    rig: ServerRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recovery.repository.http_plain._ASIDE", 0.0)
    pack = a_pack(rig)
    store = rig.store("restore", plain_packs=True)
    before = rig.plain_port
    rig.stop()
    rig.plain_port = 0
    rig.start()
    assert rig.plain_port != before
    buffer = memoryview(bytearray(1000))
    for _ in range(3):  # the first over TLS
        store.read_into(pack_name(pack.name), 5, buffer)
        assert bytes(buffer) == pack.data[5:1005]
    wait_for_count(rig, 2)


def test_a_server_that_comes_back_without_the_offer_is_read_over_tls(
    rig: ServerRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recovery.repository.http_plain._ASIDE", 0.0)
    pack = a_pack(rig)
    said: list[str] = []
    store = rig.store("restore", plain_packs=True)
    rig.stop()
    rig.plain_port = None
    rig.start()
    buffer = memoryview(bytearray(1000))
    with store.attended(lambda why, attempt, pause: said.append(why), threading.Event()):
        for _ in range(3):
            store.read_into(pack_name(pack.name), 5, buffer)
            assert bytes(buffer) == pack.data[5:1005]
    assert any("does not offer" in text for text in said)
