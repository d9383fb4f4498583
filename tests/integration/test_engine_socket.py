"""The engine over its socket: equal clients, clients that die, and the command line."""

from __future__ import annotations

import json
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from recovery.cli.main import main
from recovery.engine.api import Access
from recovery.engine.client import EngineClient
from recovery.engine.engine import Engine
from recovery.engine.server import EngineServer
from recovery.engine.wire import Lines, Request
from recovery.errors import AccessError, BusyError, UnreachableError, UsageError
from recovery.events import Event, Progress, RunFinished, StepFinished, StepStarted
from recovery.plan.model import Choices, RestorePlan
from tests.integration.engine_world import HOST, PASSPHRASE, HoldingStore, World, make_world

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))


@dataclass
class Service:
    engine: Engine
    server: EngineServer
    path: Path

    def client(self) -> EngineClient:
        return EngineClient(self.path)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    engine = Engine(log_directory=tmp_path / "log", look_inside=False)
    path = tmp_path / "engine.sock"
    server = EngineServer(engine, path)
    thread = threading.Thread(target=server.serve)
    thread.start()
    yield Service(engine, server, path)
    server.stop()
    thread.join(30)
    engine.close()
    assert not path.exists()


def prepare(client: EngineClient, world: World, folder: Path) -> tuple[RestorePlan, dict[str, str]]:
    targets = {name: str(folder / f"{name}.raw") for name in world.images}
    plan = client.plan(Choices(host=HOST, point="latest", targets=targets, adapt=False))
    assert plan.allowed
    return plan, {a.target.id: a.target.confirmation for a in plan.assignments}


def hold(service: Service, world: World) -> HoldingStore:
    repository = world.open()
    held = HoldingStore(repository.store)
    repository.store = held
    service.engine.adopt(repository)
    return held


def test_the_whole_path_over_the_socket(world: World, service: Service, tmp_path: Path) -> None:
    assert stat.S_IMODE(service.path.stat().st_mode) == 0o600
    client = service.client()
    assert client.medium().server == ""
    assert client.machine().memory > 0
    with pytest.raises(AccessError) as caught:
        client.connect(Access(path=str(world.location), secret="wrong"))
    assert caught.value.hint
    info = client.connect(Access(path=str(world.location), secret=PASSPHRASE))
    assert info.hosts == (HOST,)
    (summary,) = client.points(HOST)
    assert client.point(HOST, summary.id) == world.point
    assert {s.disk for s in client.suggest(HOST, summary.id)} == {"disk1", "disk2"}
    plan, words = prepare(client, world, tmp_path)
    client.start(plan.id, words)
    events = list(client.events())
    assert isinstance(events[-1], RunFinished)
    state = service.client().state()
    assert (state.phase, state.error) == ("finished", None)
    assert state.plan == plan
    for name, image in world.images.items():
        assert (tmp_path / f"{name}.raw").read_bytes() == image.read_bytes()
    assert any("the run ended well" in line for line in client.log())
    assert Path(client.save_log(str(tmp_path / "kept")), "report.json").exists()
    assert PASSPHRASE not in (tmp_path / "log/engine.log").read_text()


def test_a_client_is_killed_and_another_goes_on_from_there(world: World, service: Service, tmp_path: Path) -> None:
    held = hold(service, world)
    plan, words = prepare(service.client(), world, tmp_path)
    script = (
        "import sys; from recovery.engine.client import EngineClient; client = EngineClient(sys.argv[1])\n"
        "client.start(sys.argv[2], {sys.argv[3]: sys.argv[4], sys.argv[5]: sys.argv[6]})\n"
        "for event in client.events(): print(type(event).__name__, flush=True)"
    )
    flat = [word for pair in words.items() for word in pair]
    # A long-lived child, to be killed in the middle.
    child = subprocess.Popen(
        [sys.executable, "-c", script, str(service.path), plan.id, *flat], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert child.stdout is not None
    heard = [child.stdout.readline().strip() for _ in range(3)]
    assert held.reached.wait(30)
    child.kill()
    child.wait(30)
    child.stdout.close()
    assert heard == ["StepStarted", "StepFinished", "StepStarted"]
    survivor = service.client()
    assert survivor.state().phase == "running"
    rest: list[Event] = []
    follower = threading.Thread(target=lambda: rest.extend(survivor.events(since=3)))
    follower.start()
    held.release.set()
    follower.join(60)
    assert not follower.is_alive()
    assert isinstance(rest[-1], RunFinished)
    assert rest[-1].error is None
    assert [e.step for e in rest if isinstance(e, StepStarted)] == ["stream:disk2", "prove"]
    assert [e.step for e in rest if isinstance(e, StepFinished)] == ["stream:disk1", "stream:disk2", "prove"]
    everything = [e for e in service.client().events() if not isinstance(e, Progress)]
    lasting = [e for e in rest if not isinstance(e, Progress)]
    assert everything[-len(lasting) :] == lasting
    assert len(everything) == len(lasting) + 3
    assert (tmp_path / "disk2.raw").read_bytes() == world.images["disk2"].read_bytes()


def test_all_clients_see_the_same_and_any_may_stop(world: World, service: Service, tmp_path: Path) -> None:
    held = hold(service, world)
    plan, words = prepare(service.client(), world, tmp_path)
    boxes: list[list[Event]] = [[], [], []]
    threads = [threading.Thread(target=lambda box=box: box.extend(service.client().events())) for box in boxes]
    for thread in threads:
        thread.start()
    service.client().start(plan.id, words)
    assert held.reached.wait(30)
    with pytest.raises(BusyError):
        service.client().start(plan.id, words)
    service.client().cancel()
    held.release.set()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    for box in boxes:
        last = box[-1]
        assert isinstance(last, RunFinished)
        assert last.error is not None
        assert last.error.kind == "CancelledError"
    assert service.client().state().phase == "cancelled"


def test_a_broken_connection_is_made_again(world: World, tmp_path: Path) -> None:
    engine = Engine(log_directory=tmp_path / "log", look_inside=False)
    path = tmp_path / "engine.sock"
    held_service = Service(engine, EngineServer(engine, path), path)
    first = threading.Thread(target=held_service.server.serve)
    first.start()
    held = hold(held_service, world)
    client = held_service.client()
    plan, words = prepare(client, world, tmp_path)
    client.start(plan.id, words)
    assert held.reached.wait(30)
    seen: list[Event] = []
    follower = threading.Thread(target=lambda: seen.extend(client.events()))
    follower.start()
    deadline = time.monotonic() + 30
    while len(seen) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    held_service.server.stop()
    first.join(30)
    second_server = EngineServer(engine, path)
    second = threading.Thread(target=second_server.serve)
    second.start()
    held.release.set()
    follower.join(60)
    second_server.stop()
    second.join(30)
    engine.close()
    assert not follower.is_alive()
    assert isinstance(seen[-1], RunFinished)
    assert [e.step for e in seen if isinstance(e, StepStarted)] == ["open", "stream:disk1", "stream:disk2", "prove"]


def test_nonsense_on_the_socket_hurts_nobody(world: World, service: Service) -> None:
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(str(service.path))
        raw.sendall(b"GET / HTTP/1.0\n")
        assert b"UsageError" in raw.recv(4096)
        assert raw.recv(1) == b""
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(str(service.path))
        lines = Lines(raw)
        for method in ("close", "adopt", "__init__", "event_log", "wait"):
            lines.write(Request(id=7, method=method))
            assert b"no method" in (lines.read() or b"")
        lines.write(Request(id=8, method="state"))
        assert b'"idle"' in (lines.read() or b"")
    with pytest.raises(UsageError):
        service.client().points(HOST)
    with pytest.raises(BusyError, match="already"):
        EngineServer(service.engine, service.path)


def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(UnreachableError, match="does not answer"):
        EngineClient(tmp_path / "none.sock", patience=0.0).state()


def test_plan_and_restore_on_the_command_line(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    secret = tmp_path / "secret"
    secret.write_text(PASSPHRASE + "\n")

    def rekindle(command: str, *words: str | Path) -> tuple[int, str, str]:
        access = (str(world.location), "--host", HOST, "--secret-file", str(secret))
        with pytest.raises(SystemExit) as caught:
            main([command, *access, *map(str, words)])
        said = capsys.readouterr()
        return int(caught.value.code or 0), said.out, said.err

    code, out, _ = rekindle("plan", "--target", "disk1=wwn:ffffffffffffffff")
    assert code == 11
    assert "REFUSED target-missing" in out
    machine = ROOT / "tests/machines/full_of_data.json"
    code, out, err = rekindle("plan", "--machine", machine, "--target", "disk1=/dev/sda", "--json")
    assert code == 0, err
    assert json.loads(out)["assignments"][0]["target"]["serial"] == "WD-WMAY04400001"
    to_files = ("--target", "disk1=out.raw", "--target", f"disk2={tmp_path / 'two.raw'}")
    code, out, err = rekindle("restore", *to_files, "--json")
    assert code == 0, err
    lines = [json.loads(line) for line in out.splitlines()]
    assert (lines[0]["type"], lines[-2]["type"], lines[-1]["type"]) == ("plan", "run-finished", "report")
    assert (tmp_path / "out.raw").read_bytes() == world.images["disk1"].read_bytes()
    assert (tmp_path / "two.raw").read_bytes() == world.images["disk2"].read_bytes()
    code, _, err = rekindle("restore", *to_files)
    assert code == 9
    assert "was not confirmed" in err
    code, _, err = rekindle("restore", *to_files, "--confirm", "disk1=1", "--confirm", "disk2=2")
    assert code == 9
    size = world.images["disk1"].stat().st_size
    code, out, err = rekindle("restore", "--target", "disk1=out.raw", "--confirm", f"disk1={size}")
    assert code == 0, err
    assert "read back as a sample" in out
    code, out, _ = rekindle("restore", *to_files, "--adapt")
    assert code == 11
    assert "rekindle adapt" in out


def test_the_service_stops_when_it_is_told(tmp_path: Path) -> None:
    path = tmp_path / "engine.sock"
    words = ["engine", "--socket", str(path), "--log-directory", str(tmp_path / "log"), "--no-look-inside"]
    # A long-lived child: the service itself.
    child = subprocess.Popen([sys.executable, "-m", "recovery.cli.main", *words], cwd=ROOT, stderr=subprocess.PIPE)
    try:
        assert EngineClient(path, patience=30.0).state().phase == "idle"
        child.send_signal(signal.SIGTERM)
        assert child.wait(30) == 0
        assert not path.exists()
    finally:
        child.kill()
        child.communicate()
