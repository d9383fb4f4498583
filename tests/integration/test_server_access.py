"""Getting in and not getting in: trust, passwords, codes, tokens, guessing."""

from __future__ import annotations

import gc
import logging
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from rekindle_server.certificates import ensure_certificate
from rekindle_server.ratelimit import FREE_FAILURES, RateLimiter
from rekindle_server.server import Server, ServerConfig

from recovery.errors import AccessError, NotFoundError, UnreachableError
from recovery.repository import http_session
from recovery.repository.http import HttpStore, Trust, connect, identify, login_code, login_password
from recovery.repository.location import Credentials
from recovery.repository.tls import format_fingerprint, normalize_fingerprint
from tests.support.repositories import commit, new_repository, store_disk
from tests.support.server import PASSWORD, ServerRig


class Clock:
    """A clock that stands until it is moved."""

    now = 5000.0

    def __call__(self) -> float:
        return self.now


class FixedToken:
    """A token that cannot be renewed."""

    def __init__(self, token: str) -> None:
        self.token = token

    def current(self) -> str:
        return self.token

    def refused(self, token: str) -> bool:
        return False


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerRig]:
    rig = ServerRig(tmp_path_factory.mktemp("server"))
    disk = store_disk(rig.local, b"x" * 300_000)
    for host in ("pve1", "pve2"):
        commit(rig.local, host, {"disk1": disk})
    yield rig
    rig.close()


@pytest.fixture(autouse=True)
def fresh_limiter(rig: ServerRig) -> Clock:
    clock = Clock()
    rig.server.app.limiter = RateLimiter(clock)
    return clock


def test_the_right_pin_in_any_notation(rig: ServerRig) -> None:
    certificate = rig.server.certificate
    assert certificate is not None
    pins = [certificate.fingerprint, normalize_fingerprint(certificate.fingerprint), certificate.fingerprint.lower()]
    leaf = identify(rig.url).fingerprint
    for trust in (
        *(Trust(fingerprint=pin) for pin in pins),
        Trust(fingerprint=leaf),
        Trust(ca_pem=certificate.ca_path.read_text()),
        Trust(ca_pem=certificate.ca_path.read_text(), fingerprint=pins[0]),
    ):
        assert identify(rig.url, trust).trusted
        store = HttpStore(rig.url, trust=trust, tokens=rig.session("restore"))
        assert store.size("repo.json")
        store.close()


def test_another_server_is_refused_before_any_secret(rig: ServerRig, tmp_path: Path) -> None:
    other = ensure_certificate(tmp_path, ["127.0.0.1"])
    logins = rig.server.app.metrics.value("rekindle_requests_total", method="POST", route="/v1/login", status="200")
    for trust in (Trust(fingerprint=other.fingerprint), Trust(ca_pem=other.ca_path.read_text()), Trust()):
        with pytest.raises(AccessError) as caught:
            login_password(rig.url, trust, "nobody", PASSWORD)
        assert caught.value.hint
        seen = identify(rig.url, trust)
        assert not seen.trusted
        assert seen.reason
        assert normalize_fingerprint(seen.ca_fingerprint) == normalize_fingerprint(rig.trust.fingerprint)
    with pytest.raises(AccessError, match="not the one expected"):
        login_password(rig.url, Trust(fingerprint="ab" * 32), "nobody", PASSWORD)
    after = rig.server.app.metrics.value("rekindle_requests_total", method="POST", route="/v1/login", status="200")
    assert after == logins


def test_the_environment_cannot_widen_the_trust(
    rig: ServerRig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = rig.server.certificate
    assert certificate is not None
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate.ca_path))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    other = ensure_certificate(tmp_path, ["127.0.0.1"])
    with pytest.raises(AccessError, match="not trusted"):
        login_password(rig.url, Trust(ca_pem=other.ca_path.read_text()), "nobody", PASSWORD)
    assert rig.store("restore").size("repo.json")


def test_all_addresses_and_a_name_the_certificate_lacks(tmp_path: Path) -> None:
    new_repository(tmp_path)
    server = Server(ServerConfig(root=tmp_path, state=tmp_path / ".server", port=0, names=("backup.example.org",)))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        assert server.certificate is not None
        trust = Trust(fingerprint=server.certificate.fingerprint)
        assert "backup.example.org" in server.certificate.names
        hosts = ["127.0.0.1", "localhost", *(["[::1]"] if socket.has_dualstack_ipv6() else [])]
        for host in hosts:
            assert identify(f"https://{host}:{server.listener.port}", trust).trusted
        url = f"https://127.0.0.2:{server.listener.port}"
        assert "mismatch" in identify(url, trust).reason
        with pytest.raises(AccessError, match="not trusted") as caught:
            login_password(url, trust, "ann", PASSWORD)
        assert "--name 127.0.0.2" in caught.value.hint
    finally:
        server.stop(1)
        thread.join()


def test_wrong_passwords_and_users(rig: ServerRig) -> None:
    rig.session("restore", "pve1")
    for user, password in (("restore-pve1", PASSWORD + "x"), ("nobody", PASSWORD)):
        with pytest.raises(AccessError, match="User name or password is wrong"):
            login_password(rig.url, rig.trust, user, password)
    with pytest.raises(AccessError):
        login_password(rig.url, rig.trust, "", "")


def test_a_one_time_code_restores_its_host_once(rig: ServerRig) -> None:
    entry, code = rig.server.app.codes.issue("pve1", 3600)
    session = login_code(rig.url, rig.trust, code.lower())
    assert (session.role, session.hosts) == ("restore", ("pve1",))
    store = HttpStore(rig.url, trust=rig.trust, tokens=session)
    assert {i.name.split("/")[1] for i in store.list("points/")} == {"pve1"}
    with pytest.raises(AccessError, match="used already"):
        http_session.Session(rig.url, rig.trust, {"code": code, "attempt": "another machine's"})
    # The same process may open the repository again: the passphrase that comes next may have been mistyped.
    del session, store
    gc.collect()
    store = HttpStore(rig.url, trust=rig.trust, tokens=login_code(rig.url, rig.trust, code.lower()))
    assert store.get("repo.json")
    rig.server.app.codes.revoke(entry.id)
    with pytest.raises(AccessError, match="not valid"):
        store.get("repo.json")
    for wrong in ("0000-0000-0000", "nonsense"):
        with pytest.raises(AccessError, match="not known"):
            login_code(rig.url, rig.trust, wrong)


def test_a_code_is_not_lost_when_the_answer_to_it_is(rig: ServerRig) -> None:
    _, code = rig.server.app.codes.issue("pve1", 3600)
    use = {"code": code, "attempt": "0123456789abcdef"}
    first, again = (http_session.Session(rig.url, rig.trust, use) for _ in range(2))
    assert first.hosts == again.hosts == ("pve1",)
    with pytest.raises(AccessError, match="used already"):
        http_session.Session(rig.url, rig.trust, {"code": code})


def test_unknown_hosts_are_not_found(rig: ServerRig) -> None:
    with pytest.raises(NotFoundError):
        rig.repository("restore").points("nobody")
    with pytest.raises(AccessError, match="not for pve2"):
        rig.repository("restore", "pve1").points("pve2")


def test_guessing_gets_slower_and_the_right_password_ends_it(rig: ServerRig, fresh_limiter: Clock) -> None:
    rig.session("restore", "pve1")
    for _ in range(FREE_FAILURES):
        with pytest.raises(AccessError, match="wrong"):
            login_password(rig.url, rig.trust, "restore-pve1", "wrong password")
    # Even the right one has to wait, or trying would tell which it is.
    with pytest.raises(AccessError, match="Too many") as caught:
        login_password(rig.url, rig.trust, "restore-pve1", PASSWORD)
    assert "Wait 1 s" in caught.value.hint
    fresh_limiter.now += 1
    with pytest.raises(AccessError, match="wrong"):
        login_password(rig.url, rig.trust, "restore-pve1", "wrong password")
    fresh_limiter.now += 1
    with pytest.raises(AccessError, match="Too many"):
        login_code(rig.url, rig.trust, "0000-0000-0000")
    fresh_limiter.now += 1
    login_password(rig.url, rig.trust, "restore-pve1", PASSWORD).close()
    with pytest.raises(AccessError, match="wrong"):
        login_password(rig.url, rig.trust, "restore-pve1", "wrong password")


def test_an_expired_token(rig: ServerRig, monkeypatch: pytest.MonkeyPatch) -> None:
    state = rig.server.app.state
    real = state.clock
    session = login_password(rig.url, rig.trust, _user(rig), PASSWORD)
    fixed = HttpStore(rig.url, trust=rig.trust, tokens=FixedToken(session.current()))
    store = HttpStore(rig.url, trust=rig.trust, tokens=session)
    _, code = rig.server.app.codes.issue("pve1", 86400)
    by_code = HttpStore(rig.url, trust=rig.trust, tokens=login_code(rig.url, rig.trust, code))
    assert fixed.size("repo.json")
    assert fixed.get("repo.json") == store.get("repo.json") == by_code.get("repo.json")
    monkeypatch.setattr(state, "clock", lambda: real() + 3601)
    with pytest.raises(AccessError, match="expired") as caught:
        fixed.get("repo.json")
    assert caught.value.hint
    with pytest.raises(AccessError, match="expired"):
        by_code.get("repo.json")
    with pytest.raises(AccessError, match="expired"):
        fixed.size("repo.json")
    # A password logs in again by itself.
    assert store.get("repo.json")


def test_a_token_is_renewed_before_it_expires(rig: ServerRig, monkeypatch: pytest.MonkeyPatch) -> None:
    state = rig.server.app.state
    real = state.clock
    _, code = rig.server.app.codes.issue("pve1", 86400)
    session = login_code(rig.url, rig.trust, code)
    store = HttpStore(rig.url, trust=rig.trust, tokens=session)
    for minutes in range(0, 24 * 60, 40):
        monkeypatch.setattr(state, "clock", lambda minutes=minutes: real() + minutes * 60)
        session._renew_at = 0.0
        assert store.get("repo.json")


def test_logging_out_ends_the_token(rig: ServerRig) -> None:
    session = login_password(rig.url, rig.trust, _user(rig), PASSWORD)
    token = session.current()
    session.close()
    with pytest.raises(AccessError, match="not valid"):
        HttpStore(rig.url, trust=rig.trust, tokens=FixedToken(token)).get("repo.json")


def test_a_location_is_opened_by_credentials(rig: ServerRig) -> None:
    store = connect(rig.url, Credentials(user=_user(rig), password=PASSWORD, ca=rig.trust.fingerprint))
    assert store.get("repo.json")
    store.close()
    _, code = rig.server.app.codes.issue("pve1", 60)
    certificate = rig.server.certificate
    assert certificate is not None
    by_code = connect(rig.url, Credentials(code=code, ca=str(certificate.ca_path)))
    assert by_code.get("repo.json")
    by_code.close()


def test_no_secret_reaches_the_log(rig: ServerRig, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    _, code = rig.server.app.codes.issue("pve1", 60)
    session = login_code(rig.url, rig.trust, code)
    list(HttpStore(rig.url, trust=rig.trust, tokens=session).list("points/"))
    with pytest.raises(AccessError):
        login_password(rig.url, rig.trust, "ann", "a wrong secret")
    ours = "\n".join(r.getMessage() for r in caplog.records if r.name.startswith("rekindle"))
    assert "GET /v1/list 200" in ours
    for secret in (code, code.replace("-", ""), session.current(), "a wrong secret", "prefix="):
        assert secret not in ours
    audit = rig.server.app.state.rows("SELECT * FROM audit")
    assert any(row["action"] == "login refused" and row["actor"] == "ann" for row in audit)


def test_who_is_not_our_server(rig: ServerRig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_session, "LOGIN_PATIENCE", 0.2)
    with pytest.raises(UnreachableError, match="nothing listens"):
        login_password("https://127.0.0.1:1", rig.trust, "ann", PASSWORD)
    plain = rig.url.replace("https", "http")
    with pytest.raises(UnreachableError):
        login_password(plain, Trust(), "ann", PASSWORD)
    assert format_fingerprint("ab" * 32).count(":") == 31


def _user(rig: ServerRig) -> str:
    rig.session("restore", "pve1")
    return "restore-pve1"
