"""EngineApi over the unix socket. A call is a connection, so an engine that was restarted is simply met again."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from recovery.engine.api import (
    SOCKET,
    Access,
    FoundAnswers,
    LocalRepository,
    Medium,
    NetworkConfig,
    Notice,
    RemoteAccess,
    RepositoryInfo,
    RunState,
    ServerIdentity,
    Unattended,
)
from recovery.engine.wire import Answer, Lines, Request, encode_arguments, methods
from recovery.errors import UnreachableError, from_report
from recovery.events import Event, RunFinished
from recovery.format.point import Point, PointSummary
from recovery.machine.model import Machine
from recovery.machine.place import Place
from recovery.plan.model import Choices, RestorePlan, Suggestion
from recovery.plan.vm import VmChoices, VmPlan
from recovery.repository.mdns import DiscoveredServer


class EngineClient:
    """The same interface as the engine. Safe to use from several threads."""

    def __init__(self, path: Path | str = SOCKET, *, patience: float = 10.0) -> None:
        """``patience``: seconds to keep trying to reach an engine that does not listen (it may be starting)."""
        self._path = str(path)
        self._patience = patience

    def _connect(self) -> socket.socket:
        deadline = time.monotonic() + self._patience
        while True:
            connection = socket.socket(socket.AF_UNIX)
            try:
                connection.connect(self._path)
                return connection
            except OSError as error:
                connection.close()
                if isinstance(error, PermissionError) or time.monotonic() >= deadline:
                    raise UnreachableError(
                        f"The engine does not answer on '{self._path}': {error.strerror}.",
                        hint="On the medium: 'systemctl status rekindle-engine'. Elsewhere: start 'rekindle engine'.",
                    ) from error
                time.sleep(0.1)

    def _call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        with self._connect() as connection:
            lines = Lines(connection)
            try:
                lines.write(Request(id=1, method=method, params=encode_arguments(method, args, kwargs)))
                line = lines.read()
            except OSError:
                line = None
        if line is None:
            raise UnreachableError(
                f"The engine went away during '{method}'.", hint="Look at the state: what was started may still run."
            )
        answer = msgspec.json.decode(line, type=Answer)
        if answer.error is not None:
            raise from_report(answer.error)
        return msgspec.convert(answer.result, type=methods()[method][1])

    def medium(self) -> Medium:
        """See EngineApi."""
        found: Medium = self._call("medium")
        return found

    def machine(self, refresh: bool = False) -> Machine:
        """See EngineApi."""
        found: Machine = self._call("machine", refresh)
        return found

    def configure_network(self, config: NetworkConfig) -> Machine:
        """See EngineApi."""
        found: Machine = self._call("configure_network", config)
        return found

    def identify(self, url: str) -> ServerIdentity:
        """See EngineApi."""
        found: ServerIdentity = self._call("identify", url)
        return found

    def discover(self) -> list[DiscoveredServer]:
        """See EngineApi."""
        found: list[DiscoveredServer] = self._call("discover")
        return found

    def local_repositories(self) -> list[LocalRepository]:
        """See EngineApi."""
        found: list[LocalRepository] = self._call("local_repositories")
        return found

    def connect(self, access: Access) -> RepositoryInfo:
        """See EngineApi."""
        found: RepositoryInfo = self._call("connect", access)
        return found

    def add_copy(self, access: Access) -> tuple[str, ...]:
        """See EngineApi."""
        found: tuple[str, ...] = self._call("add_copy", access)
        return found

    def points(self, host: str) -> list[PointSummary]:
        """See EngineApi."""
        found: list[PointSummary] = self._call("points", host)
        return found

    def point(self, host: str, point: str) -> Point:
        """See EngineApi."""
        found: Point = self._call("point", host, point)
        return found

    def suggest(self, host: str, point: str) -> list[Suggestion]:
        """See EngineApi."""
        found: list[Suggestion] = self._call("suggest", host, point)
        return found

    def luks_secret(self, secret: str) -> int:
        """See EngineApi."""
        found: int = self._call("luks_secret", secret)
        return found

    def plan(self, choices: Choices) -> RestorePlan:
        """See EngineApi."""
        found: RestorePlan = self._call("plan", choices)
        return found

    def plan_repair(self, disks: tuple[str, ...], grow: bool = True) -> RestorePlan:
        """See EngineApi."""
        found: RestorePlan = self._call("plan_repair", disks, grow)
        return found

    def places(self) -> list[Place]:
        """See EngineApi."""
        found: list[Place] = self._call("places")
        return found

    def plan_vm(self, choices: VmChoices) -> VmPlan:
        """See EngineApi."""
        found: VmPlan = self._call("plan_vm", choices)
        return found

    def start(self, plan_id: str, confirmations: dict[str, str], countdown: int = 0) -> None:
        """See EngineApi."""
        self._call("start", plan_id, confirmations, countdown)

    def cancel(self) -> None:
        """See EngineApi."""
        self._call("cancel")

    def state(self) -> RunState:
        """See EngineApi."""
        found: RunState = self._call("state")
        return found

    def events(self, since: int = 0) -> Iterator[Event]:
        """See EngineApi. A connection that breaks is made again, and goes on with the event that comes next."""
        while True:
            with self._connect() as connection:
                lines = Lines(connection)
                try:
                    lines.write(Request(id=1, method="events", params=encode_arguments("events", (since,), {})))
                    while (line := lines.read()) is not None:
                        answer = msgspec.json.decode(line, type=Answer)
                        if answer.error is not None:
                            raise from_report(answer.error)
                        if answer.event is None or answer.number is None:
                            return
                        since = answer.number + 1
                        yield answer.event
                        if isinstance(answer.event, RunFinished):
                            return
                except OSError:
                    pass
            time.sleep(0.2)

    def log(self, lines: int = 200) -> list[str]:
        """See EngineApi."""
        found: list[str] = self._call("log", lines)
        return found

    def save_log(self, directory: str = "") -> str:
        """See EngineApi."""
        found: str = self._call("save_log", directory)
        return found

    def reboot(self, power_off: bool = False) -> None:
        """See EngineApi."""
        self._call("reboot", power_off)

    def answers(self) -> FoundAnswers:
        """See EngineApi."""
        found: FoundAnswers = self._call("answers")
        return found

    def unattended(self, update: Unattended | None = None) -> Unattended:
        """See EngineApi."""
        found: Unattended = self._call("unattended", update)
        return found

    def tell_server(self, notice: Notice) -> bool:
        """See EngineApi."""
        found: bool = self._call("tell_server", notice)
        return found

    def remote_access(self, ssh: bool | None = None, status: bool | None = None) -> RemoteAccess:
        """See EngineApi."""
        found: RemoteAccess = self._call("remote_access", ssh, status)
        return found
