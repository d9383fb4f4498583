"""Processes that die with -9 while a restore runs: the death of a window is nobody's matter, that of the engine is
told, and a new one goes on with what is on the disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from recovery.engine.api import Access, RunState
from recovery.engine.client import EngineClient
from recovery.events import Progress, RunFinished
from recovery.plan.model import Choices
from tests.support.fault_world import HOST, FaultWorld, make_fault_world
from tests.support.faults import Fault, Faults
from tests.support.repositories import PASSPHRASE
from tests.support.server import PASSWORD
from tests.support.windows import Console, Service

pytestmark = [pytest.mark.faults, pytest.mark.slow]

_RATE = 400_000


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


def test_a_console_that_is_killed_twice_does_not_touch_the_run_and_a_new_one_shows_it(
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
    second.kill()  # a second time in the same restore
    assert client.state().phase == "running"
    third = Console(service.socket, tmp_path)
    third.wait_for(f"{HOST}: running")
    proxy.script = lambda seen: None
    proxy.hurry.set()
    third.wait_for("The restore is complete")
    third.kill()
    assert client.state().phase == "finished"
    assert out.read_bytes() == world.data
    late = Console(service.socket, tmp_path)  # also one that comes after the end
    late.wait_for("The restore is complete")
    late.kill()


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
