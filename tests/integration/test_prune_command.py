"""``rekindle repo prune``: what it tells, what it refuses."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from recovery.errors import BusyError
from recovery.format.point import Retention
from recovery.repository.prune import _only_one
from tests.support.history import HOST, History, listing
from tests.support.processes import environment, rekindle
from tests.support.repositories import PASSPHRASE


def command(folder: Path, *words: str, expect: int = 0) -> str:
    done = subprocess.run(
        rekindle("repo", "prune", *words), env=environment(folder), capture_output=True, text=True, check=False
    )
    assert done.returncode == expect, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_command_tells_what_it_does(tmp_path: Path) -> None:
    history = History(tmp_path / "r", days=3)
    root, config, secret = str(tmp_path / "r"), tmp_path / "agent.toml", tmp_path / "secret"
    secret.write_text(PASSPHRASE)
    config.write_text('host = "hv1"\n[retention]\ndays = 1\n')
    dry = [
        json.loads(line)
        for line in command(tmp_path, root, "--config", str(config), "--dry-run", "--json").splitlines()
    ]
    report = dry[-1]
    assert report["type"] == "prune-report" and report["dry_run"] and report["dead"] is None
    assert len(report["hosts"][0]["keep"]) == 2 and report["points"] == 7
    assert len(history.repository.points(HOST)) == 9
    said = command(tmp_path, root, "--keep-days", "1", "--exact", "--secret-file", str(secret))
    assert "hv1: 2 points kept (1 as newest, 1 as day), 7 were removed" in said
    assert "packs go only as a whole" in said and "dead: " in said
    assert len(history.repository.points(HOST)) == 2


def test_the_wish_of_an_agent_counts_only_when_asked(tmp_path: Path) -> None:
    history = History(tmp_path / "r", days=3)
    assert "keeps all" not in command(tmp_path, str(tmp_path / "r"), "--as-captured")
    assert len(history.repository.points(HOST)) == 9, "its points say nothing"
    newest = history.repository.point(HOST, "latest")
    header = type(newest.header)(
        version=newest.header.version, repository=history.repository.id, host=HOST, created=newest.header.created + 60,
        parent=newest.id, maps=newest.header.maps, journals=newest.header.journals, retention=Retention(days=1),
    )  # fmt: skip
    wished = history.repository.commit(header, newest.body)
    assert history.repository.point(HOST, wished.id).header.retention == Retention(days=1)
    command(tmp_path, str(tmp_path / "r"), "--as-captured")
    assert len(history.repository.points(HOST)) == 2


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        ([], 2, "Which points are to be kept?"),
        (["--keep-days", "1", "--as-captured"], 2, "Which points are to be kept?"),
        (["--keep-days", "1", "--grace", "5m"], 2, "is too short"),
        (["--keep-days", "1", "--host", "other"], 3, "Hosts: hv1"),
        (["--config", "/nowhere"], 2, "cannot be read"),
    ],
)
def test_refusals(tmp_path: Path, words: list[str], code: int, text: str) -> None:
    History(tmp_path / "r", days=1)
    before = listing(tmp_path / "r")
    said = command(tmp_path, str(tmp_path / "r"), *words, expect=code)
    assert text in said and "Traceback" not in said
    assert listing(tmp_path / "r") == before


def test_two_at_once_and_a_server(tmp_path: Path) -> None:
    history = History(tmp_path / "r", days=2)
    assert "on the server" in command(tmp_path, "https://backup:8443", "--keep-days", "1", expect=2)
    with _only_one(tmp_path / "r"), pytest.raises(BusyError, match="being pruned already"):
        history.prune()
    history.prune()
