"""What the agent says of itself: lag, RPO, figures, metrics, the alert."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from recovery.agent.alert import Alert
from recovery.agent.paced import PacedStore, Pacer
from recovery.agent.status import (
    DAY,
    AgentStatus,
    PointRecord,
    StatusKeeper,
    achieved_rpo,
    metrics,
    read_status,
    summarize,
)
from recovery.cli.agent import status_lines
from recovery.errors import NotFoundError
from recovery.repository.store import open_local


def point(moment: float, delay: float = 2.0, **other: float) -> PointRecord:
    return PointRecord(id=f"{moment}", kind="journal", moment=moment, committed=moment + delay, changed=4096,
                       sent=100, freeze=other.get("freeze", 10.0))  # fmt: skip


def test_the_rpo_is_what_would_have_been_lost_at_the_worst_moment() -> None:
    points = [point(0), point(60), point(120, delay=30), point(180)]
    assert achieved_rpo(points[:1], 10) == 10
    assert achieved_rpo(points, 185) == 150 - 60  # just before the late one came in
    assert achieved_rpo(points, 380) == 200  # now it is worse
    assert achieved_rpo([], 5) is None
    assert achieved_rpo(points, DAY + 400) == DAY + 220  # what is older than a day does not count any more


def test_summary_and_text() -> None:
    status = AgentStatus(host="hv1", written=1000.0, state="running", alert_lag=300, spool_limit=2**20,
                         points=[point(900, freeze=30.0), point(960, freeze=12.0)], tracker="ebpf",
                         server_online=True)  # fmt: skip
    told = summarize(status, 1001.0)
    assert (told.running, told.healthy, told.lag, told.rpo_24h) == (True, True, 41.0, 62.0)
    assert (told.freeze_last, told.freeze_max, told.changed_24h, told.sent_24h) == (12.0, 30.0, 8192, 200)
    assert not summarize(status, 1300.0).healthy  # too old, and nobody writes any more
    assert summarize(status, 1300.0).state == "not running"
    text = "\n".join(status_lines(told))
    assert "lag 0:41" in text and "last 12 ms" in text and "tracked by ebpf" in text
    empty = summarize(AgentStatus(host="hv1", written=1000.0), 1001.0)
    assert not empty.healthy and "none" in "\n".join(status_lines(empty))


def test_metrics_are_what_prometheus_reads() -> None:
    status = AgentStatus(host="hv1", points=[point(1_700_000_000.5)], sent_bytes=12345678901)
    lines = metrics(status, 1_700_000_060.5).splitlines()
    assert 'rekindle_agent_lag_seconds{host="hv1"} 60' in lines
    assert 'rekindle_agent_sent_bytes_total{host="hv1"} 12345678901' in lines
    names = {line.split("{")[0] for line in lines if not line.startswith("#")}
    assert {line.split()[2] for line in lines if line.startswith("# TYPE")} == names
    assert not [
        line for line in metrics(AgentStatus(host="h"), 0).splitlines() if line.startswith("rekindle_agent_lag")
    ]


def test_the_status_outlives_the_agent(tmp_path: Path) -> None:
    keeper = StatusKeeper(AgentStatus(host="hv1"), tmp_path / "s", tmp_path / "m" / "rekindle.prom")
    for moment in (0, 60, DAY + 30):
        keeper.committed(point(moment))
    keeper.count(journals=3)
    keeper.write(DAY + 33)
    assert [record.moment for record in read_status(tmp_path / "s").points] == [0, 60, DAY + 30]
    assert "rekindle_agent_journals_total" in (tmp_path / "m" / "rekindle.prom").read_text()
    again = StatusKeeper(AgentStatus(host="hv1"), tmp_path / "s", None)
    again.recall(DAY + 100)
    # One before the day is kept: its lag counts until the next came in.
    assert [record.moment for record in again.status.points] == [60, DAY + 30]
    assert again.status.journals == 3
    other = StatusKeeper(AgentStatus(host="hv2"), tmp_path / "s", None)
    other.recall(DAY + 100)
    assert not other.status.points
    with pytest.raises(NotFoundError):
        read_status(tmp_path / "nowhere")


def test_the_alert_calls_once_each_way(tmp_path: Path) -> None:
    log = tmp_path / "log"
    alert = Alert(["sh", "-c", f'echo "$REKINDLE_ALERT $REKINDLE_HOST $REKINDLE_LAG" >> {log}'], 300, "hv1")
    for lag in (10.0, 301.0, 400.0, 10.0, 5.0):
        alert.look(lag)
        alert.wait()
    assert log.read_text().splitlines() == ["late hv1 301", "recovered hv1 10"]
    failing = Alert(["/nowhere/page"], 1, "hv1")
    assert failing.look(2) is True
    failing.wait()


def test_pacing_keeps_to_the_rate_and_lets_go_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    stop = threading.Event()
    monkeypatch.setattr(stop, "wait", waits.append)
    store = PacedStore(open_local(tmp_path / "r", create=True), Pacer(1000, stop, lambda: 7.0))
    for number in range(3):
        store.put_if_absent(f"packs/aa/aa{number:062x}", bytes(500))
    # Nothing was really waited for, so the debt adds up.
    assert [round(wait, 1) for wait in waits] == [0.5, 1.0, 1.5]
    assert store.location == str(tmp_path / "r") and store.size(f"packs/aa/aa{0:062x}") == 500
