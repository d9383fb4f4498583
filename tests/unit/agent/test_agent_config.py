"""The agent's configuration: every mistake is one error that names file, line and key."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from recovery.agent.config import Window, load_settings, parse_settings
from recovery.errors import UsageError
from recovery.units import MIB

WHOLE = """\
host = "hv1"
disks = ["/dev/sda", "/dev/sdb"]

[repository]
location = "https://backup:8443"
secret_file = "/etc/rekindle/secret"
user = "hv1"
password_file = "/etc/rekindle/password"

[schedule]
keyframe = "1h"
journal = "1m"
pause = ["22:00-23:30", "23:50-00:10"]

[limits]
upload = "20 MiB"
freeze = "500ms"

[alert]
lag = "5m"
command = ["/usr/local/bin/page", "late"]
"""


def test_the_example_is_understood() -> None:
    settings = parse_settings(WHOLE, "agent.toml")
    assert settings.disks == (Path("/dev/sda"), Path("/dev/sdb"))
    assert (settings.keyframe, settings.journal, settings.freeze) == (3600.0, 60.0, 0.5)
    assert (settings.upload, settings.journal_bytes, settings.spool_bytes) == (20 * MIB, 64 * MIB, 256 * MIB)
    assert settings.alert_command == ("/usr/local/bin/page", "late")
    assert settings.metrics is None
    assert (settings.quiesce, settings.guests.answer, settings.guests.hold) == ("keyframe", 5.0, 15.0)
    assert settings.retention is None


def test_the_example_that_is_shipped_is_right() -> None:
    text = Path("packaging/agent.toml").read_text()
    assert parse_settings(text, "agent.toml").host == "hv1"


@pytest.mark.parametrize(
    ("before", "after", "line", "words"),
    [
        ('host = "hv1"', 'host = "h v"', 1, "host: 'h v' cannot"),
        ('host = "hv1"', "", 0, "host: object missing required field"),
        ('host = "hv1"', "host = 5", 1, "host: expected `str`, got `int`"),
        ('["/dev/sda", "/dev/sdb"]', "[]", 2, "disks: it names no disk"),
        ('["/dev/sda", "/dev/sdb"]', '["/dev/sda", "/dev/sda"]', 2, "disks: it names no disk, or one twice"),
        ('["/dev/sda", "/dev/sdb"]', '["sda"]', 2, "absolute path"),
        ('["/dev/sda", "/dev/sdb"]', '["/dev/sda", 7]', 2, "disks: expected `str`"),
        ('keyframe = "1h"', 'keyframe = "1 fortnight"', 11, "schedule.keyframe: '1 fortnight' is not a time"),
        ('journal = "1m"', 'journal = "0s"', 12, "schedule.journal: '0s' is too short"),
        ('journal = "1m"', 'journal = "2h"', 12, "longer than the time between keyframes"),
        ('journal = "1m"', 'jurnal = "1m"', 12, "schedule.jurnal: object contains unknown field"),
        ('"22:00-23:30"', '"22:00"', 13, "schedule.pause: '22:00' is not a window"),
        ('"22:00-23:30"', '"22:00-22:00"', 13, "is not a window"),
        ('"22:00-23:30"', '"22:00-25:00"', 13, "is not a window"),
        ('upload = "20 MiB"', 'upload = "fast"', 16, "limits.upload: 'fast' is not a size"),
        ('freeze = "500ms"', 'freeze = "1m"', 17, "limits.freeze: programs of the host would wait"),
        ('freeze = "500ms"', 'journal = "1 GiB"', 17, "limits.journal: it must lie between"),
        ("[alert]", '[spool]\ndirectory = "spool"\n[alert]', 20, "spool.directory: 'spool' is not an absolute path"),
        ("[alert]", '[retention]\nhours = -3\n[alert]', 20, "retention.hours: it is less than 0"),
        ("[alert]", '[retention]\nyears = 3\n[alert]', 20, "retention.years: object contains unknown field `years`"),
        ("[alert]", '[guests]\nquiesce = "always"\n[alert]', 20, "guests.quiesce: invalid enum value 'always'"),
        ("[alert]", '[guests]\nhold = "2s"\n[alert]', 20, "guests.hold: it must be longer than guests.answer"),
        ("[alert]", "[alarm]", 0, "alarm: object contains unknown field"),
        ('lag = "5m"', "lag = = 5", 0, "this is not TOML"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_line(before: str, after: str, line: int, words: str) -> None:
    text = WHOLE.replace(before, after)
    assert text != WHOLE
    with pytest.raises(UsageError) as caught:
        parse_settings(text, "/etc/rekindle/agent.toml")
    assert caught.value.message.startswith("/etc/rekindle/agent.toml")
    assert words in caught.value.message
    if line:
        assert f"agent.toml, line {line}: " in caught.value.message
    assert "docs/agent.md" in caught.value.hint


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(UsageError, match="/nowhere/agent.toml.*cannot be read: No such file"):
        load_settings(Path("/nowhere/agent.toml"))


def test_windows_of_the_day() -> None:
    day, night = Window(22 * 60, 23 * 60 + 30), Window(23 * 60 + 50, 10)

    def at(hour: int, minute: int) -> datetime.datetime:
        return datetime.datetime(2026, 11, 26, hour, minute)

    assert [day.holds(at(21, 59)), day.holds(at(22, 0)), day.holds(at(23, 30))] == [False, True, False]
    assert [night.holds(at(23, 49)), night.holds(at(23, 50)), night.holds(at(0, 9)), night.holds(at(0, 10))] == [
        False, True, True, False,
    ]  # fmt: skip
