"""Reports of runs at the real server: who may leave one, for which host, and who reads them."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from click.testing import CliRunner
from rekindle_server import reports

from recovery.cli.reports import reports as command
from recovery.errors import AccessError, UsageError
from tests.support.server import ServerRig


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerRig]:
    made = ServerRig(tmp_path_factory.mktemp("reports"))
    yield made
    made.close()


def report(**changes: object) -> bytes:
    facts = {"host": "pve1", "outcome": "refused", "message": "In doubt.", "reasons": ["2 disks match \x1b[2J"]}
    return json.dumps({**facts, **changes}).encode()


def test_a_medium_leaves_one_and_the_administrator_reads_it(rig: ServerRig) -> None:
    rig.store("restore", "pve1").leave_report(report(machine="Dell R740xd", point="ab" * 32, seconds=75.0))
    (kept,) = rig.server.app.reports.list("pve1")
    assert (kept.actor, kept.address, kept.report.outcome) == ("restore-pve1", "127.0.0.1", "refused")
    said = CliRunner().invoke(command, ["--state", str(rig.server.config.state)]).output
    assert "refused   pve1 after 1:15: In doubt." in said
    assert "Dell R740xd point abababababab" in said
    assert "\x1b" not in said  # what a medium says does not drive a terminal
    assert "2 disks match" in said


def test_only_for_ones_own_host(rig: ServerRig) -> None:
    with pytest.raises(AccessError, match="may not report for pve2"):
        rig.store("restore", "pve1").leave_report(report(host="pve2"))
    with pytest.raises(AccessError, match="capture"):
        rig.store("capture", "pve1").leave_report(report())
    rig.store("admin", "*").leave_report(report(host="pve2"))
    assert len(rig.server.app.reports.list("pve2")) == 1


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[]", report(outcome="perfect"), report(host="../x"), report(message=7), b"\xff"]
)
def test_what_is_no_report_is_refused(rig: ServerRig, body: bytes) -> None:
    before = len(rig.server.app.reports.list())
    with pytest.raises(UsageError):
        rig.store("restore", "pve1").leave_report(body)
    assert len(rig.server.app.reports.list()) == before


def test_neither_large_nor_many(rig: ServerRig, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="At most"):
        rig.store("restore", "pve1").leave_report(report(message="x" * reports.LARGEST))
    monkeypatch.setattr(reports, "KEPT", 3)
    for number in range(5):
        rig.store("restore", "pve1").leave_report(report(message=str(number)))
    assert [kept.report.message for kept in rig.server.app.reports.list()] == ["2", "3", "4"]
