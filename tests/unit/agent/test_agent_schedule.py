"""What is due: keyframes when the server is there, journals all the time, nothing in a pause."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from recovery.agent.config import parse_settings
from recovery.agent.schedule import Standing, what_is_due

SETTINGS = parse_settings(
    'host = "hv1"\ndisks = ["/dev/sda"]\n[repository]\nlocation = "/r"\nsecret_file = "/s"\n'
    '[schedule]\npause = ["22:00-23:00"]\n', "agent.toml",
)  # fmt: skip
NOON, NIGHT = datetime.datetime(2026, 11, 26, 12), datetime.datetime(2026, 11, 26, 22, 30)


def due(now: float, local: datetime.datetime = NOON, **other: Any) -> str:
    fields: dict[str, Any] = {
        "keyframe": 1000.0, "attempted": 1000.0, "failed": 0, "ready": True, "online": True, "waiting": 0,
        "room": True,
    }  # fmt: skip
    return what_is_due(SETTINGS, Standing(**(fields | other)), now, local)[0]


@pytest.mark.parametrize(
    ("wanted", "now", "other"),
    [
        ("nothing", 1059.0, {}),
        ("journal", 1060.0, {}),
        ("keyframe", 4600.0, {"attempted": 4540.0}),
        ("nothing", 4599.0, {"attempted": 4540.0}),
        ("keyframe", 0.0, {"keyframe": None, "attempted": None, "ready": False}),
        ("keyframe", 1060.0, {"ready": False}),  # missed events: a full compare
        ("journal", 9000.0, {"online": False}),  # the keyframe waits, minutes do not
        ("nothing", 9000.0, {"online": False, "room": False}),
        ("nothing", 9000.0, {"online": False, "ready": False}),
        ("keyframe", 9000.0, {"room": False}),
        ("nothing", 9000.0, {"waiting": 1000}),  # it is sent in a moment, then the keyframe
        ("journal", 9000.0, {"waiting": 2**28}),  # that takes a while: minutes go on
        ("nothing", 9000.0, {"waiting": 2**28, "ready": False}),
        ("nothing", 9000.0, {"local": NIGHT}),
        ("nothing", 1119.0, {"failed": 2}),  # after failures: more rarely
        ("journal", 1120.0, {"failed": 2}),
        ("journal", 1480.0, {"failed": 99}),
    ],
)
def test_what_is_due(wanted: str, now: float, other: dict[str, Any]) -> None:
    assert due(now, **other) == wanted


def test_it_never_waits_for_nothing_and_never_spins() -> None:
    for attempted in (None, 1000.0):
        for now in (1000.0, 1030.0, 1059.9):
            standing = Standing(
                keyframe=1000.0, attempted=attempted, failed=0, ready=True, online=True, waiting=0, room=False
            )
            what, wait = what_is_due(SETTINGS, standing, now, NOON)
            assert (what == "nothing") == (0 < wait <= 5.0)
