"""The door to external programs: failures are classified, secrets stay out of the log, tests can stand in."""

import logging
import time
from pathlib import Path

import pytest

from recovery.commands import Completed, FakeRunner, run, use_runner
from recovery.errors import CommandError


def test_output_and_exit_code_come_back() -> None:
    done = run(["sh", "-c", "echo out; echo err >&2; exit 3"], check=False)
    assert (done.returncode, done.stdout, done.stderr) == (3, "out\n", "err\n")
    assert not done


def test_a_failure_names_the_program_its_code_and_last_words() -> None:
    with pytest.raises(CommandError, match=r"'sh' failed with exit code 3: no such volume") as caught:
        run(["sh", "-c", "echo no such volume >&2; exit 3"])
    assert "exit 3" in caught.value.hint


def test_what_the_kernel_said_of_a_mount_stands_in_the_message() -> None:
    words = "mount: /x: wrong fs type.\n       dmesg(1) may have more information after failed mount system call.\n"
    kernel = "usb 1-1: new device\nBTRFS error: open_ctree failed\n"
    fake = FakeRunner({("mount",): Completed((), 32, "", words), ("dmesg",): Completed((), 0, kernel)})
    with use_runner(fake), pytest.raises(CommandError) as caught:
        run(["mount", "/dev/x", "/x"])
    assert caught.value.message == (
        "'mount' failed with exit code 32: mount: /x: wrong fs type. / kernel: usb 1-1: new device / kernel: BTRFS "
        "error: open_ctree failed"
    )
    # Where the kernel's log may not be read, mount's own words have to do.
    fake.answers[("dmesg",)] = Completed((), 1)
    with use_runner(fake), pytest.raises(CommandError, match="may have more information"):
        run(["mount", "/dev/x", "/x"])


def test_a_killed_program_is_said_to_be_killed() -> None:
    with pytest.raises(CommandError, match="SIGKILL"):
        run(["sh", "-c", "kill -9 $$"])


def test_a_missing_program_says_what_to_install() -> None:
    with pytest.raises(CommandError, match="not installed") as caught:
        run(["no-such-program-here"])
    assert "Debian package" in caught.value.hint


def test_a_program_that_hangs_is_stopped() -> None:
    with pytest.raises(CommandError, match="did not end"):
        run(["sleep", "20"], timeout=0.2)


def test_a_silent_program_that_hangs_is_stopped_while_its_lines_are_followed() -> None:
    with pytest.raises(CommandError, match="did not end"):
        run(["sleep", "20"], timeout=0.2, on_output=lambda line: None)


def test_lines_are_given_as_they_come() -> None:
    lines: list[str] = []
    run(["sh", "-c", "echo one; echo two >&2"], on_output=lines.append)
    assert sorted(lines) == ["one", "two"]


def test_input_is_given_but_never_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    assert run(["cat"], input=b"hunter2").stdout == "hunter2"
    assert "hunter2" not in caplog.text


def test_a_fake_answers_by_the_first_words_and_remembers(tmp_path: Path) -> None:
    fake = FakeRunner({("lsblk", "-J"): Completed((), 0, "{}")})
    with use_runner(fake):
        assert run(["lsblk", "-J", "/dev/sda"]).stdout == "{}"
        assert run(["true", tmp_path]).stdout == ""
    assert fake.calls == [("lsblk", "-J", "/dev/sda"), ("true", str(tmp_path))]


def test_a_program_that_hangs_is_stopped_with_its_children(tmp_path: Path) -> None:
    """A child that lives on would hold the pipe that is read, and a filesystem that is to be unmounted."""
    pid = tmp_path / "pid"
    script = f"sleep 600 & echo $! > {pid}; echo started; wait"
    with pytest.raises(CommandError, match="did not end"):
        run(["sh", "-c", script], timeout=1, on_output=lambda line: None)
    assert not alive(int(pid.read_text()))

    def broken(line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(["sh", "-c", script], on_output=broken)
    assert not alive(int(pid.read_text()))


def alive(pid: int) -> bool:
    """Soon, at least: the signal was sent, and its work may take a moment on a busy machine."""
    for _ in range(200):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return False
        except FileNotFoundError:
            return False
        time.sleep(0.05)
    return True
