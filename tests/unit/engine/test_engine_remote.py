"""SSH and the status page are off until asked for; secrets are in no command line and hidden before they are used."""

from __future__ import annotations

from pathlib import Path

import pytest

from recovery.cli.remote import describe
from recovery.commands import Completed, FakeRunner, use_runner
from recovery.engine.api import RunState, Unattended
from recovery.engine.remote import Remote, count_keys
from recovery.engine.statuspage import StatusPage
from recovery.errors import CommandError

Answers = dict[tuple[str, ...], Completed]
OFF: Answers = {("systemctl", "is-active"): Completed((), 3)}
KEY: Answers = {
    ("dropbearkey",): Completed((), 0, "Public key portion is:\nssh-ed25519 AAAA\nFingerprint: SHA256:abc\n")
}


def page(code: str) -> StatusPage:
    return StatusPage(code, lambda: (RunState(), [], Unattended()), port=0)


@pytest.fixture
def remote(tmp_path: Path) -> Remote:
    return Remote(page, keys=tmp_path / "authorized_keys", host_key=tmp_path / "key")


def test_nothing_listens_by_itself(remote: Remote) -> None:
    runner = FakeRunner(OFF)
    with use_runner(runner):
        assert remote.wanted_at_start(["unattended", "host=x"]) == (False, False)
        access = remote.access(("192.0.2.1/24",), None, None, lambda secret: None)
    assert (access.ssh, access.password, access.status) == (False, "", ())
    assert not any("start" in call for call in runner.calls)
    assert "off" in describe(access)[0]


def test_a_one_time_password(remote: Remote) -> None:
    hidden: list[str] = []
    runner = FakeRunner(KEY)
    with use_runner(runner):
        access = remote.access(("192.0.2.1/24", "2001:db8::1/64"), True, None, hidden.append)
    assert access.ssh
    assert access.host_key == "SHA256:abc"
    assert [access.password] == hidden
    assert not any(access.password in word for call in runner.calls for word in call)
    assert ("chpasswd",) in runner.calls
    assert runner.calls.index(("chpasswd",)) < runner.calls.index(("systemctl", "start", "rekindle-ssh.service"))
    said = describe(access)
    assert said[:2] == ["SSH:          ssh root@192.0.2.1", "SSH:          ssh root@2001:db8::1"]
    closing = FakeRunner({**OFF, **KEY})
    with use_runner(closing):
        access = remote.access((), False, None, hidden.append)
    assert ("usermod", "-p", "*", "root") in closing.calls
    assert (access.ssh, access.password) == (False, "")


def test_a_password_that_could_not_be_set_opens_nothing(remote: Remote) -> None:
    runner = FakeRunner({("chpasswd",): Completed((), 1, "", "no")})
    with use_runner(runner), pytest.raises(CommandError):
        remote.access((), True, None, lambda secret: None)
    assert not any("start" in call for call in runner.calls)


def test_keys_of_the_profile_turn_it_on_without_a_password(remote: Remote, tmp_path: Path) -> None:
    (tmp_path / "authorized_keys").write_text("# operators\nssh-ed25519 AAAA one\n\nssh-ed25519 BBBB two\n")
    runner = FakeRunner(KEY)
    with use_runner(runner):
        assert remote.wanted_at_start(["ssh=no", "status"]) == (False, True)
        access = remote.access(("192.0.2.1/24",), None, None, lambda secret: None)
    assert ("systemctl", "start", "rekindle-ssh.service") in runner.calls
    assert (access.keys, access.password) == (2, "")
    assert "none: only keys" in "\n".join(describe(access))
    assert count_keys(tmp_path / "none") == 0


def test_the_status_page_with_and_without_an_address(remote: Remote) -> None:
    hidden: list[str] = []
    with use_runner(FakeRunner(OFF)):
        access = remote.access(("192.0.2.1/24", "2001:db8::1/64"), None, True, hidden.append)
        assert len(access.status) == 2
        assert all(url.endswith(f"/{hidden[0]}") for url in access.status)
        assert access.status[1].startswith("http://[2001:db8::1]:")
        (url,) = remote.access((), None, None, hidden.append).status
        assert "no address yet" in url
        assert remote.access((), None, False, hidden.append).status == ()
