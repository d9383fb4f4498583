"""Registry hives, made here, read and changed by hivex: what is in them, and what is told of files that are none."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from recovery.errors import CommandError, IntegrityError
from recovery.windows.hives import BINARY, Hive, control_sets, is_whole
from tests.support.hives import empty_hive, make_hive


def test_values_are_read_and_changed_whatever_the_case_of_their_names(tmp_path: Path) -> None:
    path = make_hive(tmp_path / "SYSTEM", {
        "Select": {"Current": 2, "Default": 1}, "ControlSet001": {}, "ControlSet002/Services/x": {"Start": 3},
        "ControlSet002/Services/x/StartOverride": {"0": 3}, "MountedDevices": {"A": b"abc", "B": "text"},
    })  # fmt: skip
    hive = Hive(path, write=True)
    assert control_sets(hive) == ["ControlSet002", "ControlSet001"]
    service = "controlset002/services/X"
    assert (hive.dword(service, "START"), hive.children(service)) == (3, ["StartOverride"])
    hive.set_dword(service, "Start", 0)
    hive.delete(f"{service}/startoverride")
    hive.set_value("MountedDevices", "A", BINARY, b"longer than it was")
    hive.save(tmp_path / "new")
    new = Hive(tmp_path / "new")
    assert (new.dword(service, "Start"), new.children(service), is_whole(tmp_path / "new")) == (0, [], True)
    assert new.values("MountedDevices")["A"] == (BINARY, b"longer than it was")
    assert new.text("MountedDevices", "b") == "text"
    assert Hive(path).dword(service, "Start") == 3  # what was opened stays as it was


@pytest.mark.parametrize("content", [b"", b"no hive at all" * 400, b"regf" + bytes(5000)])
def test_what_is_no_hive_is_told(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "SYSTEM"
    path.write_bytes(content)
    with pytest.raises(IntegrityError, match="is damaged"):
        Hive(path)


def test_an_empty_hive_has_nothing_and_takes_nothing(tmp_path: Path) -> None:
    hive = Hive(empty_hive(tmp_path / "hive"), write=True)
    assert control_sets(hive) == [] and hive.dword("Select", "Current") is None and hive.text("A/B", "C") == ""
    with pytest.raises(IntegrityError, match="no key"):
        hive.set_dword("A", "Start", 0)


def test_without_hivex_there_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_hive(tmp_path / "SYSTEM", {"Select": {"Current": 1}})
    monkeypatch.setitem(sys.modules, "hivex", None)
    with pytest.raises(CommandError, match="hivex is not installed") as caught:
        Hive(path)
    assert "python3-hivex" in caught.value.hint
