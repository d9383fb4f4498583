"""How the agent is doing: kept, written as JSON for ``rekindle agent status`` and as text for Prometheus.

Lag is the age of the newest point that is *in the repository*: what would be lost if the host died now. The RPO
achieved is the largest lag of the last 24 hours: just before each point came in, and now.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from recovery.errors import NotFoundError, RekindleError

FILE = "status.json"
DAY = 24 * 3600.0
#: The agent writes at least so often; an older file means that it does not run (seconds).
BEAT = 10.0


class PointRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A point in the repository: ``moment`` is the time its content is of, ``committed`` when it came in (seconds
    since the epoch), ``freeze`` milliseconds that programs waited."""

    id: str
    kind: str
    moment: float
    committed: float
    changed: int = 0
    sent: int = 0
    freeze: float = 0.0


class AgentStatus(msgspec.Struct, kw_only=True):
    """What is written. ``points``: those of the last 24 hours, oldest first. Times are seconds since the epoch."""

    host: str
    pid: int = 0
    started: float = 0.0
    written: float = 0.0
    state: str = "starting"
    problem: str = ""
    server_online: bool = False
    next_is_full_compare: str = ""
    tracker: str = ""
    spool_used: int = 0
    spool_limit: int = 0
    spool_objects: int = 0
    alert_lag: float = 0.0
    alerting: bool = False
    keyframes: int = 0
    journals: int = 0
    failures: int = 0
    full_compares: int = 0
    changed_bytes: int = 0
    sent_bytes: int = 0
    points: list[PointRecord] = []

    @property
    def last(self) -> PointRecord | None:
        """The newest point in the repository."""
        return self.points[-1] if self.points else None

    def lag(self, now: float) -> float | None:
        """Seconds since the moment of the newest point; None when there is none."""
        return max(0.0, now - self.points[-1].moment) if self.points else None


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """What people and scripts are told; seconds, bytes, milliseconds."""

    host: str
    running: bool
    healthy: bool
    state: str
    problem: str
    last_point: str
    last_moment: float | None
    lag: float | None
    rpo_24h: float | None
    points_24h: int
    changed_24h: int
    sent_24h: int
    freeze_last: float | None
    freeze_p99: float | None
    freeze_max: float | None
    server_online: bool
    next_is_full_compare: str
    tracker: str
    spool_used: int
    spool_limit: int
    spool_objects: int
    keyframes: int
    journals: int
    failures: int
    full_compares: int


def achieved_rpo(points: Sequence[PointRecord], now: float) -> float | None:
    """The largest lag within the last 24 hours; ``points`` are in order of their coming in. Pure."""
    lags = [after.committed - before.moment for before, after in zip(points, points[1:], strict=False)
            if after.committed >= now - DAY]  # fmt: skip
    if points:
        lags.append(now - points[-1].moment)
    return max(lags, default=None)


def summarize(status: AgentStatus, now: float) -> Summary:
    """What to tell of a status at ``now``. Pure."""
    recent = [point for point in status.points if point.committed >= now - DAY]
    freezes = sorted(point.freeze for point in recent)
    running = now - status.written < 6 * BEAT and status.state != "stopped"
    lag = status.lag(now)
    late = lag is None or bool(status.alert_lag and lag > status.alert_lag)
    return Summary(
        host=status.host, running=running, healthy=running and not late,
        state=status.state if running else "not running", problem=status.problem,
        last_point=status.last.id if status.last else "", last_moment=status.last.moment if status.last else None,
        lag=lag, rpo_24h=achieved_rpo(status.points, now), points_24h=len(recent),
        changed_24h=sum(point.changed for point in recent), sent_24h=sum(point.sent for point in recent),
        freeze_last=status.last.freeze if status.last else None,
        freeze_p99=freezes[min(len(freezes) - 1, len(freezes) * 99 // 100)] if freezes else None,
        freeze_max=freezes[-1] if freezes else None, server_online=status.server_online,
        next_is_full_compare=status.next_is_full_compare, tracker=status.tracker, spool_used=status.spool_used,
        spool_limit=status.spool_limit, spool_objects=status.spool_objects, keyframes=status.keyframes,
        journals=status.journals, failures=status.failures, full_compares=status.full_compares,
    )  # fmt: skip


def metrics(status: AgentStatus, now: float) -> str:
    """The text for Prometheus (exposition format 0.0.4). Pure."""
    told = summarize(status, now)
    gauges: list[tuple[str, str, float | None]] = [
        ("lag_seconds", "Age of the newest point in the repository.", told.lag),
        ("last_point_timestamp_seconds", "The time that the newest point is of.", told.last_moment),
        ("rpo_24h_seconds", "The largest lag of the last 24 hours.", told.rpo_24h),
        ("freeze_last_seconds", "How long the last point froze filesystems.", _seconds(told.freeze_last)),
        ("freeze_max_24h_seconds", "The longest freeze of 24 hours.", _seconds(told.freeze_max)),
        ("spool_bytes", "Bytes that wait for the server.", told.spool_used),
        ("spool_limit_bytes", "Bytes that may wait.", told.spool_limit),
        ("server_up", "Whether the server answered last.", float(told.server_online)),
        ("full_compare_due", "Whether the next point is a full compare.", float(bool(told.next_is_full_compare))),
    ]
    counters: list[tuple[str, str, float]] = [
        ("changed_bytes_total", "Logical bytes that changed.", status.changed_bytes),
        ("sent_bytes_total", "Bytes sent.", status.sent_bytes),
        ("keyframes_total", "Points of chunks.", status.keyframes),
        ("journals_total", "Points of journals.", status.journals),
        ("full_compares_total", "Points for which all of the disks was read.", status.full_compares),
        ("failures_total", "Attempts to make a point that came to nothing.", status.failures),
    ]
    label = f'{{host="{status.host}"}}'
    return "".join(_lines(gauges, "gauge", label)) + "".join(_lines(counters, "counter", label))


def _seconds(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000


def _lines(values: Sequence[tuple[str, str, float | None]], kind: str, label: str) -> Iterator[str]:
    for name, help, value in values:
        if value is not None:
            full = f"rekindle_agent_{name}"
            yield f"# HELP {full} {help}\n# TYPE {full} {kind}\n{full}{label} {value:.15g}\n"


class StatusKeeper:
    """The status of a running agent; threads tell it, ``write`` puts it down."""

    def __init__(self, status: AgentStatus, directory: Path, metrics_file: Path | None) -> None:
        self._lock = threading.Lock()
        self.status = status
        self._directory, self._metrics_file = directory, metrics_file

    def recall(self, now: float) -> None:
        """Take over what an agent before us wrote of this host, as far as it counts still."""
        try:
            before = read_status(self._directory)
        except RekindleError:
            return
        if before.host == self.status.host:
            for name in ("keyframes", "journals", "failures", "full_compares", "changed_bytes", "sent_bytes"):
                setattr(self.status, name, getattr(before, name))
            self.status.points = _recent(before.points, now)

    def tell(self, **values: object) -> None:
        """Set fields."""
        with self._lock:
            for name, value in values.items():
                setattr(self.status, name, value)

    def count(self, **values: int) -> None:
        """Add to counters."""
        with self._lock:
            for name, value in values.items():
                setattr(self.status, name, getattr(self.status, name) + value)

    def committed(self, point: PointRecord) -> None:
        """A point came into the repository."""
        with self._lock:
            self.status.points = _recent([*self.status.points, point], point.committed)
            self.status.changed_bytes += point.changed
            self.status.sent_bytes += point.sent

    def write(self, now: float) -> None:
        """Put the status and the metrics down; readers see the old or the new one. Raises OSError."""
        with self._lock:
            self.status.written = now
            encoded = msgspec.json.encode(self.status)
            text = metrics(self.status, now)
        _replace(self._directory / FILE, encoded, 0o644)
        if self._metrics_file is not None:
            _replace(self._metrics_file, text.encode(), 0o644)


def _recent(points: Sequence[PointRecord], now: float) -> list[PointRecord]:
    """The last 24 hours, and the one before: its lag counts until the next came in."""
    kept = deque(points)
    while len(kept) > 1 and kept[1].committed < now - DAY:
        kept.popleft()
    return list(kept)


def _replace(path: Path, data: bytes, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.writing")
    temporary.write_bytes(data)
    temporary.chmod(mode)
    temporary.replace(path)


def read_status(directory: Path) -> AgentStatus:
    """What an agent wrote. Raises NotFoundError, RekindleError."""
    path = directory / FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=AgentStatus)
    except FileNotFoundError as error:
        raise NotFoundError(
            f"No agent has written its status to '{path}' yet.",
            hint="Is the agent running ('systemctl status rekindle-agent')? Is this its configuration (--config)?",
        ) from error
    except (OSError, msgspec.MsgspecError) as error:
        raise RekindleError(f"'{path}' cannot be read: {error}.") from error
