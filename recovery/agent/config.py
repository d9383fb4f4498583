"""``/etc/rekindle/agent.toml``: strict; an error names file, line and key. Pure but for reading the file."""

from __future__ import annotations

import datetime
import re
import tomllib
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from recovery.capture.live.guests import GuestLimits
from recovery.errors import RekindleError, UsageError
from recovery.format.journal import MAX_DATA
from recovery.format.names import check_host
from recovery.format.point import Retention
from recovery.units import MIB, parse_size

T = TypeVar("T")
DEFAULT_PATH = Path("/etc/rekindle/agent.toml")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_HINT = "See docs/agent.md for every key."
#: Seconds: below this the agent would do nothing but freeze and thaw.
_SHORTEST = 0.2


class RepositoryConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where points go, and how to get in; secrets are files that only root can read."""

    location: str
    secret_file: str
    user: str = ""
    password_file: str = ""
    ca: str = ""


class ScheduleConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``pause``: windows of the day, this machine's time, in which no point is made: ``"22:00-23:30"``."""

    keyframe: str = "1h"
    journal: str = "1m"
    pause: tuple[str, ...] = ()


class LimitsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``upload``: bytes a second on average, ``"0"`` for no limit; ``freeze``: the longest one; ``journal``: what
    changes more in a minute becomes a keyframe."""

    upload: str = "0"
    freeze: str = "500ms"
    journal: str = "64 MiB"


class GuestsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """For which points VMs are quiesced by their guest agents, how long these have for it, and after how long all are
    thawed in any case."""

    quiesce: Literal["every", "keyframe", "never"] = "keyframe"
    answer: str = "5s"
    hold: str = "15s"


class SpoolConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where points wait for a server that is away: memory by default, since no tracked disk may hold them."""

    directory: str = "/run/rekindle-agent/spool"
    size: str = "256 MiB"


class StatusConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the agent says how it is doing. ``metrics_file``: for Prometheus' textfile collector, empty for none."""

    directory: str = "/run/rekindle-agent"
    metrics_file: str = ""


class AlertConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``command`` is run when the newest point is older than ``lag``, and again when it is not any more."""

    lag: str = "5m"
    command: tuple[str, ...] = ()


class AgentConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole file. ``disks`` are whole disks, in the order of their names ``disk1`` ...."""

    host: str
    disks: tuple[str, ...]
    repository: RepositoryConfig
    schedule: ScheduleConfig = ScheduleConfig()
    limits: LimitsConfig = LimitsConfig()
    guests: GuestsConfig = GuestsConfig()
    spool: SpoolConfig = SpoolConfig()
    status: StatusConfig = StatusConfig()
    alert: AlertConfig = AlertConfig()
    retention: Retention = Retention()
    """A wish: points carry it, and whoever prunes the repository decides whether it counts."""


class _RetentionOnly(msgspec.Struct, frozen=True, kw_only=True):
    retention: Retention


class Window(msgspec.Struct, frozen=True):
    """From ``start`` to ``end``, minutes of the day; over midnight when it ends before it starts."""

    start: int
    end: int

    def holds(self, moment: datetime.datetime) -> bool:
        """Whether the moment (local time) lies in it."""
        minute = moment.hour * 60 + moment.minute
        return self.start <= minute < self.end if self.start < self.end else not self.end <= minute < self.start


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The configuration understood: seconds, bytes, paths."""

    host: str
    disks: tuple[Path, ...]
    repository: RepositoryConfig
    keyframe: float
    journal: float
    pause: tuple[Window, ...]
    upload: int
    freeze: float
    journal_bytes: int
    spool: Path
    spool_bytes: int
    status: Path
    metrics: Path | None
    alert_lag: float
    alert_command: tuple[str, ...]
    retention: Retention | None = None
    quiesce: Literal["every", "keyframe", "never"] = "keyframe"
    guests: GuestLimits = GuestLimits()


def load_settings(path: Path) -> Settings:
    """Read and understand the file. Raises UsageError, which names file, line and key."""
    return parse_settings(_read(path), str(path))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        raise UsageError(f"'{path}' cannot be read: {why}.", hint=_HINT) from error


def _parse(text: str, name: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{name}: this is not TOML: {error}.", hint=_HINT) from None


def parse_settings(text: str, name: str) -> Settings:
    """Understand the file's text; ``name`` is the file's, for errors. Raises UsageError. Pure."""
    given = _parse(text, name)
    return _Reader(text, name).settings(_convert(given, AgentConfig, text, name))


def load_retention(path: Path) -> Retention:
    """The table ``[retention]`` of a file, whatever else is in it. Raises UsageError."""
    text = _read(path)
    given = _parse(text, str(path))
    retention = _convert({"retention": given.get("retention", {})}, _RetentionOnly, text, str(path)).retention
    _Reader(text, str(path)).retention(retention)
    if retention == Retention():
        raise _wrong(text, str(path), "retention", "it keeps nothing: give minutes, hours, days or weeks")
    return retention


def _convert(given: dict[str, Any], kind: type[T], text: str, name: str) -> T:
    try:
        return msgspec.convert(given, kind)
    except msgspec.ValidationError as error:
        message, _, place = str(error).partition(" - at `$")
        key = re.sub(r"\[.*?\]", "", place.rstrip("`")).lstrip(".")
        unknown = re.search(r"unknown field `(.+?)`", message) or re.search(r"required field `(.+?)`", message)
        key = ".".join(part for part in (key, unknown[1] if unknown else "") if part)
        raise _wrong(text, name, key, message[:1].lower() + message[1:]) from None


class _Reader:
    def __init__(self, text: str, name: str) -> None:
        self._text, self._name = text, name

    def settings(self, config: AgentConfig) -> Settings:
        if not config.disks or len(set(config.disks)) != len(config.disks):
            raise self._wrong("disks", "it names no disk, or one twice")
        if any(not disk.startswith("/") for disk in config.disks):
            raise self._wrong("disks", "a disk is an absolute path, such as /dev/sda")
        try:
            check_host(config.host)
        except RekindleError as error:
            raise self._wrong("host", error.message) from None
        schedule, limits = config.schedule, config.limits
        keyframe = self._seconds("schedule.keyframe", schedule.keyframe)
        journal = self._seconds("schedule.journal", schedule.journal)
        if journal > keyframe:
            raise self._wrong("schedule.journal", "it is longer than the time between keyframes")
        journal_bytes = self._bytes("limits.journal", limits.journal)
        if not MIB <= journal_bytes <= MAX_DATA:
            raise self._wrong("limits.journal", "it must lie between 1 MiB and 256 MiB")
        self.retention(config.retention)
        freeze = self._seconds("limits.freeze", limits.freeze, least=0.01)
        if freeze > 10:
            raise self._wrong("limits.freeze", "programs of the host would wait for more than 10 s")
        return Settings(
            host=config.host, disks=tuple(Path(disk) for disk in config.disks), repository=config.repository,
            keyframe=keyframe, journal=journal, pause=tuple(self._window(text) for text in schedule.pause),
            upload=self._bytes("limits.upload", limits.upload), freeze=freeze, journal_bytes=journal_bytes,
            spool=self._path("spool.directory", config.spool.directory),
            spool_bytes=self._bytes("spool.size", config.spool.size),
            status=self._path("status.directory", config.status.directory),
            metrics=self._path("status.metrics_file", config.status.metrics_file)
            if config.status.metrics_file else None,
            alert_lag=self._seconds("alert.lag", config.alert.lag), alert_command=config.alert.command,
            quiesce=config.guests.quiesce, guests=self._guests(config.guests),
            retention=config.retention if config.retention != Retention() else None,
        )  # fmt: skip

    def _guests(self, given: GuestsConfig) -> GuestLimits:
        answer, hold = self._seconds("guests.answer", given.answer), self._seconds("guests.hold", given.hold)
        if not answer < hold <= 120:
            raise self._wrong("guests.hold", "it must be longer than guests.answer, and 2m at most")
        return GuestLimits(answer=answer, hold=hold)

    def retention(self, given: Retention) -> None:
        """Raises UsageError for a number below 0."""
        for tier in Retention.__struct_fields__:
            if getattr(given, tier) < 0:
                raise self._wrong(f"retention.{tier}", "it is less than 0")

    def _seconds(self, key: str, text: str, least: float = _SHORTEST) -> float:
        match = re.fullmatch(r"(\d+(?:\.\d+)?) ?(ms|s|m|h|d)", text.strip())
        if not match:
            raise self._wrong(key, f"'{text}' is not a time, such as 500ms, 30s, 1m or 1h")
        seconds = float(match[1]) * _UNITS[match[2]]
        if seconds < least:
            raise self._wrong(key, f"'{text}' is too short")
        return seconds

    def _bytes(self, key: str, text: str) -> int:
        try:
            return parse_size(text)
        except UsageError:
            raise self._wrong(key, f"'{text}' is not a size, such as 64 MiB") from None

    def _path(self, key: str, text: str) -> Path:
        if not text.startswith("/"):
            raise self._wrong(key, f"'{text}' is not an absolute path")
        return Path(text)

    def _window(self, text: str) -> Window:
        match = re.fullmatch(r"(\d{1,2}):(\d{2})-(\d{1,2}):(\d{2})", text.replace(" ", ""))
        start, end = (int(match[n]) * 60 + int(match[n + 1]) for n in (1, 3)) if match else (0, 0)
        if not match or start == end or max(start, end) > 24 * 60 or int(match[2]) > 59 or int(match[4]) > 59:
            raise self._wrong("schedule.pause", f"'{text}' is not a window of the day, such as 22:00-23:30")
        return Window(start, end)

    def _wrong(self, key: str, why: str) -> UsageError:
        return _wrong(self._text, self._name, key, why)


def _wrong(text: str, name: str, key: str, why: str) -> UsageError:
    line = line_of(text, key)
    place = f"{name}, line {line}" if line else name
    return UsageError(f"{place}: {key or 'the file'}: {why.rstrip('.')}.", hint=_HINT)


def line_of(text: str, key: str) -> int:
    """The line (from 1) in which ``table.key`` or its table stands; 0 when neither does. Pure."""
    table, found = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        header = re.match(r"\s*\[+\s*([^\]]+?)\s*\]+", line)
        if header:
            table = header[1].replace('"', "").replace(" ", "")
            if key == table or key.startswith(table + "."):
                found = number
        else:
            word = re.match(r"""\s*["']?([A-Za-z0-9_.-]+)["']?\s*=""", line)
            if word and key == f"{table}.{word[1]}".lstrip("."):
                return number
    return found
