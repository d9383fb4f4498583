"""The storyboard's own judgement: a shell's answers, the console's title, and when a report is good."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.e2e.lab.qemu import LabError
from tests.e2e.lab.storyboard.operator import _title, restore_figures, restored_part
from tests.e2e.lab.storyboard.report import DemoReport, Phase
from tests.e2e.lab.storyboard.restored import Shell


class Line:
    """A bash on a pseudo terminal, with the part of a Machine that a Shell uses."""

    def __init__(self) -> None:
        self.master, follower = pty.openpty()
        self.process = subprocess.Popen(
            ["bash", "--norc", "-i"], stdin=follower, stdout=follower, stderr=follower, start_new_session=True
        )
        os.close(follower)
        self.said = b""
        self.more = threading.Condition()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while True:
            try:
                data = os.read(self.master, 4096)
            except OSError:
                return
            with self.more:
                self.said += data
                self.more.notify_all()

    def serial_text(self) -> str:
        return self.said.decode()

    def serial_send(self, text: str) -> None:
        os.write(self.master, text.encode())

    def wait_for_serial(self, pattern: str, timeout: float, *, since: int = 0) -> int:
        with self.more:
            if not self.more.wait_for(lambda: re.search(pattern, self.serial_text()[since:]), timeout):
                raise LabError(self.serial_text())
        found = re.compile(pattern).search(self.serial_text(), since)
        assert found
        return found.end()


@pytest.fixture
def shell() -> Iterator[Shell]:
    line: Any = Line()
    yield Shell(line)
    line.process.kill()
    line.process.wait()


def test_a_shell_tells_code_and_output(shell: Shell) -> None:
    assert shell.run("stty -echo; PS1=", 20)[0] == 0
    assert shell.run("echo one; echo two", 20) == (0, "one\ntwo")
    assert shell.run("true", 20) == (0, "")
    assert shell.run("(exit 7)", 20) == (7, "")
    assert shell.run("printf 'no newline'", 20) == (0, "no newline")
    assert shell.run("printf '\\033[31mred\\033[0m 5\\n'; false", 20) == (1, "red 5")


def test_a_shell_with_echo_is_not_fooled_by_its_own_command(shell: Shell) -> None:
    code, output = shell.run("echo answer; (exit 3)", 20)
    assert code == 3
    assert "answer" in output


def test_a_silent_shell_is_an_error(shell: Shell) -> None:
    with pytest.raises(LabError):
        shell.run("sleep 60", 0.3)


@pytest.mark.parametrize(
    ("screen", "title"),
    [
        (" Rekindle · Target disks                    step 5 of 8\nmore", "Target disks"),
        ("Rekindle · Result", "Result"),
        ("", ""),
        ("Debian GNU/Linux 13 tty1\n Rekindle · Plan", ""),
    ],
)
def test_the_title_is_read_off_the_first_line(screen: str, title: str) -> None:
    assert _title(screen) == title


def test_a_report_is_good_only_when_everything_held(tmp_path: Path) -> None:
    report = DemoReport("bios", phases=[], checks=[])
    assert not report.judge(), "nothing was done and nothing was checked"
    report.phases.append(Phase("restore", "Restore", ok=True))
    assert not report.judge(), "nothing was checked"
    report.check("login", "root logs in", True)
    assert report.judge()
    report.check("data", "checksums", False, "one differs")
    assert not report.judge()
    report.write(tmp_path / "report.json")
    assert msgspec.json.decode((tmp_path / "report.json").read_bytes(), type=DemoReport) == report
    report.checks.pop()
    report.phases.append(Phase("boot", "Boot", ok=False))
    assert not report.judge()
    report.phases.pop()
    report.error = "stopped"
    assert not report.judge()


def test_figures_are_read_off_the_result_screen() -> None:
    text = (
        "The restore is complete.\nvhost1 as of 2026-11-23, in 2:12\n\ndisk1 → nvme0n1: 8.00 GiB, 93 MB/s\n"
        "  transferred 321 MiB, written 603 MiB, zeroed 7.41 GiB, skipped 0 B\n  read back and verified\n"
    )
    assert restore_figures(text) == {
        "target": "nvme0n1", "logical": "8.00 GiB", "rate": "93 MB/s", "transferred": "321 MiB",
        "written": "603 MiB", "zeroed": "7.41 GiB", "skipped": "0 B",
    }  # fmt: skip
    assert restore_figures("something else") == {}


def test_how_much_is_restored_is_read_off_the_restore_screen() -> None:
    text = "All data  ███\n1.50 GiB of 8.00 GiB   93 MB/s   time left 1:02   retries 0\ntransferred 321 MiB"
    assert restored_part(text) == 1.5 / 8
    assert restored_part("800 MiB of 8.00 GiB   0 B/s") == 800 / 8192
    assert restored_part("not begun") == 0
