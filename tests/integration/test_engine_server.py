"""The engine and a real repository server: who answers, getting in, and a server that goes away in the middle."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from recovery.engine import access as access_room
from recovery.engine.api import Access, Medium
from recovery.engine.engine import Engine
from recovery.errors import AccessError, UnreachableError
from recovery.events import Progress, RunFinished
from recovery.plan.model import Choices
from recovery.repository.tls import normalize_fingerprint
from tests.integration.engine_world import HoldingStore
from tests.support.repositories import PASSPHRASE, commit, store_disk
from tests.support.server import PASSWORD, ServerRig

CONTENT = os.urandom(6 << 20) + bytes(2 << 20)


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerRig]:
    rig = ServerRig(tmp_path_factory.mktemp("server"))
    for host in ("pve1", "other"):
        commit(rig.local, host, {"disk1": store_disk(rig.local, CONTENT)})
    rig.session("restore", "pve1")
    yield rig
    rig.close()


@pytest.fixture
def engine(rig: ServerRig, tmp_path: Path) -> Iterator[Engine]:
    medium = Medium(server=rig.url, ca_fingerprint=rig.trust.fingerprint)
    (tmp_path / "medium.json").write_bytes(msgspec.json.encode(medium))
    found = Engine(log_directory=tmp_path / "log", look_inside=False, medium_file=tmp_path / "medium.json")
    yield found
    found.close()


def access(rig: ServerRig, **changes: str) -> Access:
    given = {"url": rig.url, "user": "restore-pve1", "password": PASSWORD, "secret": PASSPHRASE, **changes}
    return Access(**given)


def test_who_answers(rig: ServerRig, engine: Engine, tmp_path: Path) -> None:
    identity = engine.identify(rig.url)
    assert identity.trusted
    assert normalize_fingerprint(identity.ca_fingerprint) == normalize_fingerprint(rig.trust.fingerprint)
    stranger = Engine(log_directory=tmp_path / "log2", look_inside=False, medium_file=tmp_path / "none.json")
    try:
        unknown = stranger.identify(rig.url)
        assert not unknown.trusted
        assert unknown.reason
        with pytest.raises(AccessError):
            stranger.connect(access(rig))
        for fingerprint in (unknown.fingerprint, unknown.ca_fingerprint):
            assert stranger.connect(access(rig, fingerprint=fingerprint)).hosts == ("pve1",)
    finally:
        stranger.close()


def test_getting_in(rig: ServerRig, engine: Engine, tmp_path: Path) -> None:
    with pytest.raises(AccessError):
        engine.connect(access(rig, password="another password"))
    with pytest.raises(AccessError):
        engine.connect(access(rig, secret="another passphrase"))
    with pytest.raises(AccessError):
        engine.connect(access(rig, fingerprint="ab" * 32))
    with pytest.raises(UnreachableError):
        engine.connect(access(rig, url="https://127.0.0.1:9"))
    info = engine.connect(access(rig))
    assert (info.location, info.hosts) == (rig.url, ("pve1",))
    text = (tmp_path / "log/engine.log").read_text()
    assert PASSWORD not in text
    assert PASSPHRASE not in text


def test_a_restore_waits_for_a_server_that_goes_away(
    rig: ServerRig, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access_room, "_PATIENCE", 0.5)
    engine.connect(access(rig))
    repository = engine._repository
    assert repository is not None
    held = HoldingStore(repository.store)
    repository.store = held
    target = tmp_path / "disk1.raw"
    plan = engine.plan(Choices(host="pve1", point="latest", targets={"disk1": str(target)}, adapt=False))
    assert plan.allowed
    engine.start(plan.id, {a.target.id: a.target.confirmation for a in plan.assignments})
    assert held.reached.wait(30)
    rig.stop(0.1)
    held.release.set()
    box: list[Progress | RunFinished] = []
    retried = threading.Event()

    def follow() -> None:
        for event in engine.events():
            if isinstance(event, Progress) and event.retries:
                retried.set()
            if isinstance(event, RunFinished):
                box.append(event)

    follower = threading.Thread(target=follow)
    follower.start()
    waited = retried.wait(60)
    rig.start()
    follower.join(60)
    assert waited
    assert not follower.is_alive()
    assert box[-1].error is None  # type: ignore[union-attr]
    assert target.read_bytes() == CONTENT
