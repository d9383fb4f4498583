"""A bug that ends the console: its report, what the next console says, and no secret anywhere."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from recovery.engine import report
from recovery.engine.api import RunState
from recovery.machine.model import Machine
from recovery.tui import crash
from recovery.tui.app import ConsoleApp
from tests.unit.tui.console import Console, run
from tests.unit.tui.fake_engine import FakeEngine
from tests.unit.tui.test_tui_terminal import Serial

PROGRAM = "tests/unit/tui/broken_console.py"
SECRETS = ("Tr0ub4dor-local", "c0rrect-h0rse-words")


def start(monkeypatch: pytest.MonkeyPatch, plant: str, log: Path) -> Serial:
    """A console with a bug planted, or without."""
    monkeypatch.setenv("PLANT", plant)
    return Serial(PROGRAM, "--log-directory", str(log), term="linux")


@pytest.mark.parametrize(("plant", "key"), [("worker", "\r"), ("handler", "\x1b[[A")])
def test_a_bug_is_reported_told_once_and_betrays_nothing(
    plant: str, key: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SECRET_LOCAL", SECRETS[0])
    monkeypatch.setenv("SECRET_TEXT", SECRETS[1])
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    log = tmp_path / "log"
    output = b""
    for number, told in ((1, False), (2, True), (3, False)):
        console = start(monkeypatch, plant if number == 1 else "", log)
        try:
            console.read_until("F10 power")
            console.read_until("Restore some disks")
            assert ("The console ended by a bug at " in console.output.decode()) == told
            output += console.output
            if number == 1:
                console.send(key)
                console.read_until("A report is in")
                assert console.process.wait(60) == 1
                console.read_until("A running restore goes on.")
                assert "The console stopped: ValueError." in console.output.decode()
                assert "Traceback" not in console.output.decode()
                output += console.output
        finally:
            console.close()
    (kept,) = log.glob("console-*.txt")
    assert kept.stat().st_mode & 0o777 == 0o600
    text = kept.read_text()
    assert "builtins.ValueError\n" in text
    assert "Caused by:\n\nrecovery.errors.AccessError\n" in text
    assert re.search(rf"{re.escape(PROGRAM)}:\d+ bug\n", text)
    files = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    for secret in SECRETS:
        assert not [content for content in (output, *files) if secret.encode() in content]


def failure() -> BaseException:
    """A caught one."""
    try:
        raise ValueError("what was typed")
    except ValueError as error:
        return error


def test_the_first_screen_says_it(tmp_path: Path) -> None:
    path = crash.keep_report(failure(), tmp_path)

    async def test() -> None:
        app = ConsoleApp(FakeEngine(address=True))
        app.session.crash = crash.take_notice(tmp_path)
        words = f"was started again; the report is {path}. A restore was not touched by it."
        async with app.run_test(size=(80, 24)):
            c = Console(app)
            bare = re.sub(r"\s", "", words)  # however the line was broken
            await c.until(lambda: bare in re.sub(r"\s", "", c.text), words)

    run(test)
    assert crash.take_notice(tmp_path) == ""


def test_a_console_that_ends_at_every_start_does_not_fill_the_medium(tmp_path: Path) -> None:
    for number in range(12):
        (tmp_path / f"console-20200101-0000{number:02}-7.txt").write_text("old")
    newest = crash.keep_report(failure(), tmp_path)
    kept = sorted(path.name for path in tmp_path.glob("console-*.txt"))
    assert len(kept) == 10
    assert kept[-1] == newest.name
    assert kept[0] == "console-20200101-000003-7.txt"


def test_where_the_log_cannot_be_written_the_report_is_elsewhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "file").write_text("not a folder")
    path = crash.keep_report(failure(), tmp_path / "file" / "log")
    assert path.is_relative_to(tmp_path)
    assert "ValueError" in path.read_text()
    assert crash.take_notice(None) == crash.take_notice(tmp_path / "file" / "log") == ""


def test_root_keeps_it_beside_the_log_of_the_engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert crash.log_folder(None) == Path("/var/log/rekindle")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert crash.log_folder(None) is None
    assert crash.log_folder(tmp_path) == tmp_path


def test_save_log_takes_it_along(tmp_path: Path) -> None:
    path = crash.keep_report(failure(), tmp_path / "log")
    (tmp_path / "log/engine.log").write_text("started\n")
    kept = Path(report.save(tmp_path / "log", str(tmp_path / "kept"), RunState(), None, Machine()))
    assert {file.name for file in kept.iterdir()} == {"engine.log", path.name}
