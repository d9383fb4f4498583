"""The scene of unattended restores: the real server with a point, the real engine behind its socket, answers."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from recovery.capture.pipeline import capture
from recovery.capture.request import CaptureRequest
from recovery.commands import run
from recovery.engine.api import FoundAnswers, Unattended
from recovery.engine.client import EngineClient
from recovery.engine.engine import Engine
from recovery.engine.server import EngineServer
from recovery.engine.unattended import Driver
from recovery.events import ignore
from recovery.format.point import Point
from recovery.repository.location import open_index
from recovery.units import MIB
from tests.support.repositories import PASSPHRASE
from tests.support.server import ServerRig

HOST = "pve1"


@dataclass
class Scene:
    """A server with a point, an engine as a service, and answers that a test gives it."""

    rig: ServerRig
    point: Point
    image: Path
    folder: Path
    engine: Engine
    client: EngineClient
    text: str = ""
    line: str = ""
    said: list[str] = field(default_factory=list)
    rebooted: list[bool] = field(default_factory=list)

    @property
    def target(self) -> Path:
        return self.folder / "target.raw"

    def code(self) -> str:
        return self.rig.server.app.codes.issue(HOST, 3600)[1]

    def answers(self, **changes: str) -> None:
        """A file of answers; ``changes`` are further TOML values."""
        keys = {
            "unattended": "true", "server": f'"{self.rig.url}"', "fingerprint": f'"{self.rig.trust.fingerprint}"',
            "code": f'"{self.code()}"', "secret": f'"{PASSPHRASE}"', "host": f'"{HOST}"', "adapt": "false",
            "countdown": "5", "disks": f'{{disk1 = "file:{self.target}"}}', **changes,
        }  # fmt: skip
        self.text = "".join(f"{key} = {value}\n" for key, value in keys.items() if value)

    def drive(self, **patience: float) -> Unattended:
        given = {"server_patience": 5.0, "disk_patience": 0.0, "pause": 0.1, "look": 0.1, **patience}
        return Driver(self.client, tell=self.said.append, **given).run()  # type: ignore[arg-type]

    def reports(self) -> list[tuple[str, str]]:
        return [(kept.report.outcome, kept.report.message) for kept in self.rig.server.app.reports.list(HOST)]


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ServerRig, Point, Path]]:
    folder = tmp_path_factory.mktemp("unattended")
    rig = ServerRig(folder)
    image = folder / "host.raw"
    with image.open("wb") as file:
        file.truncate(16 * MIB)
        for place in range(0, 16, 4):
            file.seek(place * MIB)
            file.write(os.urandom(MIB))
    run(["sfdisk", "-q", image], input=b"label: gpt\nstart=2048, size=24576, type=L\n")
    request = CaptureRequest(host=HOST, disks=(image,), firmware="bios")
    repository = rig.local
    point = capture(repository, open_index(repository), request, ignore, threading.Event())
    yield rig, point, image
    rig.close()


@pytest.fixture
def scene(rig: tuple[ServerRig, Point, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    engine = Engine(log_directory=tmp_path / "log", look_inside=False, loops=True)
    server = EngineServer(engine, tmp_path / "engine.sock")
    thread = threading.Thread(target=server.serve)
    thread.start()
    made = Scene(*rig, folder=tmp_path, engine=engine, client=EngineClient(tmp_path / "engine.sock"))
    monkeypatch.setattr(
        engine, "answers", lambda: FoundAnswers(text=made.text, command_line=made.line, source="/dev/stick")
    )
    monkeypatch.setattr(engine, "reboot", lambda power_off=False: made.rebooted.append(power_off))
    yield made
    server.stop()
    engine.close()
    thread.join(30)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
