"""What ends or changes in the middle of a restore: the token, the server's certificate."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from recovery.errors import AccessError
from recovery.repository.http import login_code, login_password
from tests.integration.engine_world import HoldingStore
from tests.support.fault_world import HOST, FaultWorld, make_fault_world, start
from tests.support.faults import Fault, Faults, Seen
from tests.support.server import PASSWORD

pytestmark = pytest.mark.faults


@pytest.fixture
def world(tmp_path: Path) -> Iterator[FaultWorld]:
    made = make_fault_world(tmp_path)
    yield made
    made.close()


@pytest.fixture
def proxy(world: FaultWorld) -> Iterator[Faults]:
    found = Faults(world.rig.server.listener.port)
    yield found
    found.close()


def expire_tokens_at(world: FaultWorld, proxy: Faults, number: int) -> None:
    """The server forgets all tokens before the request of this number, as it does when their time is over."""

    def script(seen: Seen) -> Fault | None:
        if seen.number == number:
            with world.rig.server.state.transaction() as connection:
                connection.execute("DELETE FROM tokens")
        return None

    proxy.script = script


def test_a_token_that_expires_is_replaced_when_the_password_is_known(
    world: FaultWorld, proxy: Faults, tmp_path: Path
) -> None:
    world.rig.session("restore")  # makes the user
    session = login_password(proxy.url, world.rig.trust, "restore", PASSWORD)
    first = session.current()
    expire_tokens_at(world, proxy, 5)
    start(world.opened(world.store(proxy.url, session)), world.point, tmp_path / "out.img").join()
    assert session.current() != first
    assert (tmp_path / "out.img").read_bytes() == world.data


def test_the_server_is_away_just_when_a_new_token_is_needed(world: FaultWorld, proxy: Faults, tmp_path: Path) -> None:
    world.rig.session("restore")
    session = login_password(proxy.url, world.rig.trust, "restore", PASSWORD)
    expire_tokens_at(world, proxy, 5)
    forget, logins = proxy.script, [0]

    def script(seen: Seen) -> Fault | None:
        if seen.path == "/v1/login":
            logins[0] += 1
            return Fault(status=503) if logins[0] <= 3 else None
        return forget(seen)

    proxy.everything, proxy.script = True, script
    start(world.opened(world.store(proxy.url, session)), world.point, tmp_path / "out.img").join()
    assert logins[0] > 3
    assert (tmp_path / "out.img").read_bytes() == world.data


def test_after_a_code_a_token_that_expires_is_one_clear_error_and_a_new_code_goes_on(
    world: FaultWorld, proxy: Faults, tmp_path: Path
) -> None:
    out = tmp_path / "out.img"
    codes = world.rig.server.app.codes
    session = login_code(proxy.url, world.rig.trust, codes.issue(HOST, 3600)[1])
    expire_tokens_at(world, proxy, 9)
    restored = start(world.opened(world.store(proxy.url, session)), world.point, out, workers=4)
    with pytest.raises(AccessError) as caught:
        restored.join()
    assert "token" in caught.value.message.lower() or "log in" in caught.value.message.lower()
    assert caught.value.hint
    assert not any(out.read_bytes()[: 256 * 1024])

    proxy.script = lambda seen: None
    session = login_code(proxy.url, world.rig.trust, codes.issue(HOST, 3600)[1])
    report = start(world.opened(world.store(proxy.url, session)), world.point, out).join()
    assert report.skipped > 0
    assert out.read_bytes() == world.data


def test_another_certificate_in_the_middle_stops_the_restore(tmp_path: Path) -> None:
    """Whoever has it may be somebody else: not one more request goes there."""
    world = make_fault_world(tmp_path, tls=True)
    try:
        held = HoldingStore(world.store(world.rig.url))
        out = tmp_path / "out.img"
        restored = start(world.opened(held), world.point, out, patience=3600.0)
        assert held.reached.wait(20)
        world.rig.stop(seconds=0.0)
        before = world.rig.trust.fingerprint
        for file in (world.rig.root / ".server").iterdir():
            if "sqlite" not in file.name and not file.name.startswith("state"):
                shutil.rmtree(file) if file.is_dir() else file.unlink()
        world.rig.start()
        assert world.rig.trust.fingerprint != before
        held.release.set()
        with pytest.raises(AccessError, match="not trusted") as caught:
            restored.join(20)
        assert "fingerprint" in caught.value.hint
        assert not any(out.read_bytes())
    finally:
        world.close()


def test_a_certificate_of_the_same_ca_that_was_renewed_is_no_matter(tmp_path: Path) -> None:
    world = make_fault_world(tmp_path, tls=True)
    try:
        held = HoldingStore(world.store(world.rig.url))
        restored = start(world.opened(held), world.point, tmp_path / "out.img")
        assert held.reached.wait(20)
        certificate = world.rig.server.certificate
        assert certificate is not None
        before = certificate.certificate_path.read_bytes()
        world.rig.stop(seconds=0.0)
        certificate.certificate_path.unlink()
        world.rig.start()
        assert certificate.certificate_path.read_bytes() != before
        threading.Event().wait(0.1)
        held.release.set()
        restored.join()
        assert (tmp_path / "out.img").read_bytes() == world.data
    finally:
        world.close()
