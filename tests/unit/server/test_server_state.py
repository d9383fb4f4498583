"""Users, tokens and one-time codes."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from rekindle_server.codes import ALPHABET, REPEAT_SECONDS, Codes, normalize, pretty
from rekindle_server.policy import Grant
from rekindle_server.state import State, find_state
from rekindle_server.users import MAX_LIFETIME, TOKEN_SECONDS, Tokens, Users

from recovery.errors import AccessError, NotFoundError, UsageError

PASSWORD = "correct horse battery"
GRANT = Grant(actor="ann", role="restore", hosts=("pve1",))


class Clock:
    """A clock that stands until it is moved."""

    now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def state(tmp_path: Path, clock: Clock) -> State:
    return State(tmp_path / "state", clock=clock)


@pytest.mark.strong_secrets
def test_users(state: State) -> None:
    them = Users(state)
    them.add("ann", "restore", ("pve*",), PASSWORD)
    assert "$argon2id$v=19$m=65536,t=3,p=4$" in state.rows("SELECT password FROM users")[0]["password"]
    assert them.verify("ann", PASSWORD) == Grant(actor="ann", role="restore", hosts=("pve*",))
    assert them.verify("ann", PASSWORD + "x") is None
    assert them.verify("bob", PASSWORD) is None
    with pytest.raises(UsageError, match="already"):
        them.add("ann", "admin", (), PASSWORD)
    with pytest.raises(UsageError, match="shorter"):
        them.add("bob", "admin", (), "short")
    with pytest.raises(UsageError, match="user name"):
        them.add("#code-1", "admin", (), PASSWORD)
    with pytest.raises(UsageError, match="pattern"):
        them.add("bob", "admin", ("../x",), PASSWORD)
    them.set_password("ann", "another password")
    assert them.verify("ann", PASSWORD) is None
    them.remove("ann")
    assert them.list() == []
    with pytest.raises(NotFoundError):
        them.remove("ann")


def test_no_secret_is_stored(state: State) -> None:
    Users(state).add("ann", "restore", (), PASSWORD)
    token = Tokens(state).issue(GRANT).token
    _, code = Codes(state).issue("pve1", 60)
    stored = b"".join(path.read_bytes() for path in state.directory.iterdir())
    for secret in (PASSWORD, token, code, normalize(code)):
        assert secret.encode() not in stored
    assert (state.directory / "server.sqlite").stat().st_mode & 0o777 == 0o600
    assert state.directory.stat().st_mode & 0o777 == 0o700


def test_a_token_expires_and_is_renewed_up_to_its_end(state: State, clock: Clock) -> None:
    tokens = Tokens(state)
    token = tokens.issue(GRANT).token
    assert tokens.check(token) == GRANT
    start = clock.now
    while clock.now < start + MAX_LIFETIME - TOKEN_SECONDS:
        clock.now += TOKEN_SECONDS / 2
        renewed = tokens.renew(token)
        assert renewed.expires == min(clock.now + TOKEN_SECONDS, start + MAX_LIFETIME)
        assert renewed.seconds == renewed.expires - clock.now
    clock.now = start + MAX_LIFETIME
    with pytest.raises(AccessError, match="expired"):
        tokens.check(token)
    with pytest.raises(AccessError, match="expired"):
        tokens.renew(token)
    with pytest.raises(AccessError, match="not valid"):
        tokens.check(token + "x")


def test_a_login_that_was_under_way_when_its_user_was_removed_gets_no_token(state: State) -> None:
    them, tokens = Users(state), Tokens(state)
    them.add("ann", "restore", (), PASSWORD)
    before = tokens.revocations()
    grant = them.verify("ann", PASSWORD)
    assert grant is not None
    them.remove("ann")
    with pytest.raises(AccessError, match="during this login"):
        tokens.issue(grant, before)
    assert tokens.issue(grant, tokens.revocations()).token


def test_a_new_password_or_no_user_ends_tokens(state: State) -> None:
    them, tokens = Users(state), Tokens(state)
    them.add("ann", "restore", (), PASSWORD)
    first = tokens.issue(GRANT).token
    them.set_password("ann", "another password")
    second = tokens.issue(GRANT).token
    assert tokens.check(second) == GRANT
    them.remove("ann")
    for token in (first, second):
        with pytest.raises(AccessError, match="not valid"):
            tokens.check(token)


def test_a_code_works_once_for_one_host(state: State) -> None:
    codes = Codes(state)
    entry, code = codes.issue("pve1", 3600)
    assert len(normalize(code)) * 5 >= 50
    assert len(code.split("-")) == 3
    grant = codes.redeem(" " + code.lower().replace("-", " "), "192.0.2.1")
    assert grant == Grant(actor=f"#code-{entry.id}", role="restore", hosts=("pve1",))
    with pytest.raises(AccessError, match="used already"):
        codes.redeem(code, "192.0.2.1")
    assert [c.state for c in codes.list()] == ["used"]


def test_only_the_same_attempt_may_repeat_a_use_and_not_for_long(state: State, clock: Clock) -> None:
    codes = Codes(state)
    entry, code = codes.issue("pve1", 86400)
    assert codes.redeem(code, "", "attempt") == codes.redeem(code, "", "attempt")
    for other in ("", "other"):
        with pytest.raises(AccessError, match="used already"):
            codes.redeem(code, "", other)
    clock.now += REPEAT_SECONDS
    with pytest.raises(AccessError, match="used already"):
        codes.redeem(code, "", "attempt")
    again, code = codes.issue("pve1", 86400)
    codes.redeem(code, "", "attempt")
    codes.revoke(again.id)
    with pytest.raises(AccessError):
        codes.redeem(code, "", "attempt")
    assert entry.id != again.id


def test_codes_that_do_not_open(state: State, clock: Clock) -> None:
    codes = Codes(state)
    revoked, code = codes.issue("pve1", 3600)
    codes.revoke(revoked.id)
    with pytest.raises(AccessError, match="revoked"):
        codes.redeem(code, "")
    _, code = codes.issue("pve1", 3600)
    clock.now += 3600
    with pytest.raises(AccessError, match="expired"):
        codes.redeem(code, "")
    wrong = ALPHABET[(ALPHABET.index(code[0]) + 1) % len(ALPHABET)] + code[1:]
    assert codes.redeem(wrong, "") is None
    assert codes.redeem("", "") is None
    assert codes.redeem("!" * 12, "") is None
    with pytest.raises(UsageError):
        codes.issue("pve*", 3600)
    with pytest.raises(UsageError):
        codes.issue("pve1", 3600 * 24 * 31)
    with pytest.raises(NotFoundError):
        codes.revoke("nothing")


def test_revoking_a_used_code_ends_its_token(state: State) -> None:
    codes, tokens = Codes(state), Tokens(state)
    entry, code = codes.issue("pve1", 3600)
    grant = codes.redeem(code, "")
    assert grant is not None
    token = tokens.issue(grant).token
    codes.revoke(entry.id)
    with pytest.raises(AccessError):
        tokens.check(token)


def test_of_many_who_use_a_code_at_once_one_succeeds(state: State) -> None:
    codes = Codes(state)
    _, code = codes.issue("pve1", 3600)
    results: list[object] = []

    def attempt() -> None:
        try:
            results.append(codes.redeem(code, ""))
        except AccessError:
            results.append(None)

    threads = [threading.Thread(target=attempt) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8
    assert sum(result is not None for result in results) == 1


def test_look_alikes_are_read_as_what_was_meant() -> None:
    assert normalize("oIl0-uV8k 9") == "011 0VV8K9".replace(" ", "")
    assert pretty("ABCDEFGH1234") == "ABCD-EFGH-1234"


def test_the_state_is_found_by_its_own_path_or_the_repositorys(tmp_path: Path) -> None:
    State(tmp_path / ".server").close()
    assert find_state(tmp_path) == find_state(tmp_path / ".server") == tmp_path / ".server"
    with pytest.raises(NotFoundError):
        State(tmp_path / "elsewhere", create=False)


def test_a_damaged_state_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "server.sqlite").write_bytes(b"this is no database" * 100)
    with pytest.raises(AccessError, match="cannot be opened"):
        State(tmp_path)
