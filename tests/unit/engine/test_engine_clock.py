"""Whose clock is set by the server's: the medium's, and nobody else's."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import pytest

from recovery.engine import access

YEARS = 10 * 365.2425 * 86400


@pytest.fixture
def moved(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """By how much the clock was set, each time; the machine's own stays as it is."""
    found: list[float] = []
    monkeypatch.setattr(time, "clock_settime", lambda which, to: found.append(round(to - time.time())))
    return found


def test_on_the_medium_it_is_set_and_said(
    tmp_path: Path, moved: list[float], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "medium.json").write_text("{}")
    monkeypatch.setattr(access, "MEDIUM", tmp_path / "medium.json")
    with caplog.at_level(logging.INFO, "rekindle.engine"):
        access._set_clock(YEARS)
        access._set_clock(0.0)
    assert moved == [round(YEARS)]
    assert "10.0 years behind the server's, and was set" in caplog.text


def test_elsewhere_it_is_left_alone(tmp_path: Path, moved: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "MEDIUM", tmp_path / "none.json")
    access._set_clock(YEARS)
    assert moved == []


def test_a_clock_that_cannot_be_set_is_no_reason_to_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(which: int, to: float) -> None:
        raise PermissionError(1, "Operation not permitted")

    (tmp_path / "medium.json").write_text("{}")
    monkeypatch.setattr(access, "MEDIUM", tmp_path / "medium.json")
    monkeypatch.setattr(time, "clock_settime", refuse)
    access._set_clock(-YEARS)
    assert "could not be set" in caplog.text
