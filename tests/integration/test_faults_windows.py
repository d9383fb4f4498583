"""Processes that die with -9 while a restore runs: the death of a window is nobody's matter, that of the engine is
told, and a new one goes on with what is on the disk."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from recovery.engine.api import Access, RunState
from recovery.engine.client import EngineClient
from recovery.events import Progress, RunFinished
from recovery.plan.model import Choices
from tests.support.fault_world import HOST, FaultWorld, make_fault_world
from tests.support.faults import Fault, Faults
from tests.support.processes import environment, rekindle
from tests.support.repositories import PASSPHRASE
from tests.support.server import PASSWORD

pytestmark = pytest.mark.faults

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][0-9A-Z]|\x1b.")
_RATE = 400_000


class Console:
    """``rekindle tui`` on a terminal of its own; ``text`` is everything it drew, without colours and positions."""

    def __init__(self, socket: Path, folder: Path) -> None:
        self._master, follower = pty.openpty()
        fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 25, 80, 0, 0))
        self.process = subprocess.Popen(
            rekindle("tui", "--socket", str(socket)), stdin=follower, stdout=follower, stderr=follower,
            start_new_session=True, env=environment(folder) | {"TERM": "linux"},
            # As a login does it: when this test ends before its time, the hangup ends the console too.
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        os.close(follower)
        self._drawn = bytearray()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        while True:
            try:
                self._drawn += os.read(self._master, 65536)
            except OSError:
                return

    @property
    def text(self) -> str:
        return _CONTROL.sub(" ", bytes(self._drawn).decode(errors="replace"))

    def wait_for(self, pattern: str, seconds: float = 60.0) -> str:
        """Until it has drawn that; ``pattern`` may be separated by any white space."""
        deadline = time.monotonic() + seconds
        while not re.search(pattern.replace(" ", r"\s+"), self.text):
            assert self.process.poll() is None, f"the console ended: {self.text[-2000:]}"
            assert time.monotonic() < deadline, f"no {pattern!r} in: {self.text[-3000:]}"
            time.sleep(0.05)
        return self.text

    def forget(self) -> None:
        """Look only at what is drawn from now on."""
        self._drawn.clear()

    def kill(self) -> None:
        """-9."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)
        self._thread.join(10)
        os.close(self._master)


class Service:
    """``rekindle engine`` as a process."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.socket = folder, folder / "engine.sock"
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        words = [
            "engine",
            "--socket",
            str(self.socket),
            "--log-directory",
            str(self.folder / "log"),
            "--no-look-inside",
        ]
        with (self.folder / "engine.txt").open("ab") as log:
            process = subprocess.Popen(rekindle(*words), stdout=log, stderr=log, env=environment(self.folder))
        deadline = time.monotonic() + 60
        while True:
            try:
                EngineClient(self.socket).state()
                return process
            except Exception:
                assert process.poll() is None and time.monotonic() < deadline, (self.folder / "engine.txt").read_text()
                time.sleep(0.05)

    def kill(self) -> None:
        """-9."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)

    def start_again(self) -> None:
        """As systemd does."""
        self.process = self._start()

    def client(self) -> EngineClient:
        return EngineClient(self.socket)

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(30)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[FaultWorld]:
    made = make_fault_world(tmp_path)
    made.rig.session("restore")  # makes the user
    yield made
    made.close()


@pytest.fixture
def proxy(world: FaultWorld) -> Iterator[Faults]:
    found = Faults(world.rig.server.listener.port)
    found.always(Fault(rate=_RATE))
    yield found
    found.close()


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    made = Service(tmp_path)
    yield made
    made.close()


def begin(service: Service, proxy: Faults, out: Path) -> EngineClient:
    """Connect, plan and start a restore through the service; it runs."""
    client = service.client()
    client.connect(Access(url=proxy.url, user="restore", password=PASSWORD, secret=PASSPHRASE))
    plan = client.plan(Choices(host=HOST, point="latest", targets={"disk1": str(out)}, adapt=False))
    client.start(plan.id, {a.target.id: a.target.confirmation for a in plan.assignments})
    return client


def wait_until_written(client: EngineClient, part: int) -> RunState:
    """Until so many bytes are on the disk."""
    for event in client.events():
        if isinstance(event, Progress) and event.written >= part:
            return client.state()
        assert not isinstance(event, RunFinished), event
    raise AssertionError("the events ended")


def test_a_console_that_is_killed_does_not_touch_the_run_and_a_new_one_shows_it(
    world: FaultWorld, proxy: Faults, service: Service, tmp_path: Path
) -> None:
    out = tmp_path / "out.img"
    client = begin(service, proxy, out)
    first = Console(service.socket, tmp_path)
    first.wait_for("Restore")
    first.wait_for(f"{HOST}: running")
    wait_until_written(client, 1)
    first.kill()
    before = client.state()
    assert before.phase == "running"
    wait_until_written(client, 3_000_000)  # it goes on without a window
    proxy.always(Fault(rate=1000))  # and is not over before another one has come
    second = Console(service.socket, tmp_path)
    second.wait_for(f"{HOST}: running")
    second.wait_for(r"disk1 → out\.img")
    second.wait_for(r"written [\d.]+ MiB")
    state = client.state()
    assert state.plan == before.plan
    proxy.script = lambda seen: None
    proxy.hurry.set()
    second.wait_for("The restore is complete")
    second.kill()
    assert client.state().phase == "finished"
    assert out.read_bytes() == world.data
    third = Console(service.socket, tmp_path)  # also one that comes after the end
    third.wait_for("The restore is complete")
    third.kill()


def test_an_outage_stands_in_the_console_with_its_attempt(
    world: FaultWorld, proxy: Faults, service: Service, tmp_path: Path
) -> None:
    out = tmp_path / "out.img"
    client = begin(service, proxy, out)
    console = Console(service.socket, tmp_path)
    console.wait_for(f"{HOST}: running")
    wait_until_written(client, 1)
    proxy.refuse()
    console.wait_for(r"reconnecting, attempt \d+, next in \d+ s")
    console.wait_for(r"refuses connections: nothing li")
    proxy.script = lambda seen: None
    proxy.accept()
    console.wait_for("The restore is complete", 90)
    console.kill()
    assert out.read_bytes() == world.data


def test_an_engine_that_is_killed_is_missed_by_the_console_and_a_new_one_goes_on(
    world: FaultWorld, proxy: Faults, service: Service, tmp_path: Path
) -> None:
    out = tmp_path / "out.img"
    client = begin(service, proxy, out)
    console = Console(service.socket, tmp_path)
    console.wait_for(f"{HOST}: running")
    wait_until_written(client, 4_000_000)
    service.kill()
    console.wait_for("Trying again")
    assert not any(out.read_bytes()[:4096]), "it must not boot"
    console.forget()
    service.start_again()
    console.wait_for(r"Rekindle · (?!Restore)")  # it knows of no run: the way begins anew
    console.kill()
    proxy.script = lambda seen: None
    client = begin(service, proxy, out)
    *_, last = client.events()
    assert isinstance(last, RunFinished) and last.error is None
    report = client.state().report
    assert report is not None
    assert report.disks[0].skipped >= 3_000_000
    assert out.read_bytes() == world.data
