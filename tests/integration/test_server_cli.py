"""``rekindle serve``, ``user`` and ``code`` as they are typed, with what goes wrong."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from rekindle_server.codes import Codes
from rekindle_server.state import State

from recovery.cli.code import parse_duration
from recovery.cli.main import main
from recovery.cli.serve import parse_listen
from recovery.errors import UsageError


class Done(NamedTuple):
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


Rekindle = Callable[..., Done]


@pytest.fixture
def rekindle(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Rekindle:
    """The command, with its handling of errors, in this process."""

    def call(*arguments: str, stdin: str = "") -> Done:
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        said = capsys.readouterr()
        return Done(int(stop.value.code or 0), said.out, said.err)

    return call


@pytest.fixture
def state(tmp_path: Path) -> Path:
    State(tmp_path / ".server").close()
    return tmp_path


def test_users_and_codes_by_command(rekindle: Rekindle, state: Path) -> None:
    where = ("--state", str(state), "--json")
    added = rekindle("user", "add", "ann", "--role", "capture", "--host", "pve*", "--password-file", "-", *where,
                     stdin="a long password\n")  # fmt: skip
    assert added.returncode == 0, added.stderr
    users = json.loads(rekindle("user", "list", *where).stdout)
    assert [(u["name"], u["role"], u["hosts"]) for u in users] == [("ann", "capture", ["pve*"])]
    issued = json.loads(rekindle("code", "issue", "--host", "pve1", "--valid", "2h", *where).stdout)
    opened = State(state / ".server")
    assert Codes(opened).redeem(issued["code"], "") is not None
    opened.close()
    codes = json.loads(rekindle("code", "list", *where).stdout)
    assert [(c["id"], c["state"]) for c in codes] == [(issued["id"], "used")]
    assert issued["code"] not in rekindle("code", "list", *where).stdout
    assert rekindle("code", "revoke", issued["id"], *where).returncode == 0
    assert rekindle("user", "remove", "ann", *where).returncode == 0
    actions = [entry["action"] for entry in json.loads(rekindle("user", "audit", *where).stdout)]
    assert actions == ["user added", "code issued", "code revoked", "user removed"]


def test_what_a_stranger_typed_does_not_drive_the_terminal(rekindle: Rekindle, state: Path) -> None:
    entries = State(state / ".server")
    entries.audit("\x1b[2Jroot\u202e\n", "192.0.2.1", "login refused", "password")
    entries.close()
    shown = rekindle("user", "audit", "--state", str(state)).stdout
    assert "\\x1b[2Jroot\\u202e\\n" in shown
    assert not set(shown) & {"\x1b", "\u202e"}


@pytest.mark.parametrize(
    ("arguments", "exit_code", "message"),
    [
        (("user", "remove", "nobody"), 3, "no user 'nobody'"),
        (("user", "add", "ann", "--role", "admin"), 2, "no terminal"),
        (("user", "add", "ann", "--role", "admin", "--password-file", "/nonexistent"), 3, "cannot be read"),
        (("code", "issue", "--host", "../x"), 2, "host's name"),
        (("code", "issue", "--host", "pve1", "--valid", "soon"), 2, "not a duration"),
        (("code", "revoke", "nothing"), 3, "no one-time code"),
    ],
)
def test_what_is_wrong_is_said(
    rekindle: Rekindle, state: Path, arguments: tuple[str, ...], exit_code: int, message: str
) -> None:
    done = rekindle(*arguments, "--state", str(state))
    assert (done.returncode, message in done.stderr) == (exit_code, True), done.stderr
    assert "Traceback" not in done.stderr


def test_serve_refuses_what_makes_no_sense(rekindle: Rekindle, tmp_path: Path) -> None:
    for arguments, exit_code, message in (
        ((str(tmp_path),), 3, "no repository"),
        ((str(tmp_path), "--listen", "nonsense"), 2, "not an address and port"),
        ((str(tmp_path), "--plain-http", "--listen", "192.0.2.1:80"), 2, "in the clear"),
    ):
        done = rekindle("serve", *arguments)
        assert (done.returncode, message in done.stderr) == (exit_code, True), done.stderr


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (":8443", ("", 8443)),
        ("0", ("", 0)),
        ("0.0.0.0:1", ("", 1)),
        ("192.0.2.1:8443", ("192.0.2.1", 8443)),
        ("[2001:db8::1]:8443", ("2001:db8::1", 8443)),
    ],
)
def test_listen(text: str, expected: tuple[str, int]) -> None:
    assert parse_listen(text) == expected


@pytest.mark.parametrize("text", ["", ":", "host:1", "1.2.3.4:99999", "1.2.3.4:x"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(UsageError):
        parse_listen(text)


def test_durations() -> None:
    assert [parse_duration(text) for text in ("30m", "24h", "7D")] == [1800, 86400, 604800]


def test_a_new_repository_is_not_for_everybody(rekindle: Rekindle, tmp_path: Path) -> None:
    where = tmp_path / "repository"
    done = rekindle("repo", "init", str(where), "--passphrase-file", "-", stdin="a long passphrase\n")
    assert done.returncode == 0, done.stderr
    assert where.stat().st_mode & 0o007 == 0
