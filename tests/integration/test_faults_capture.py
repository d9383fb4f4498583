"""Captures to a server that comes and goes: told, gone on with, and stopped at once when the operator wants it."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from recovery.capture.pipeline import capture
from recovery.capture.request import CaptureRequest
from recovery.errors import CancelledError, NotFoundError
from recovery.events import Event, Message, Progress, ignore
from recovery.repository.http import HttpChunkIndex, HttpStore
from recovery.repository.repository import Repository
from recovery.restore.disk import restore_disk
from tests.support.faults import Fault, Faults
from tests.support.server import ServerRig

pytestmark = pytest.mark.faults

MIB = 2**20


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[ServerRig]:
    made = ServerRig(tmp_path, tls=False)
    yield made
    made.close()


@pytest.fixture
def proxy(rig: ServerRig) -> Iterator[Faults]:
    found = Faults(rig.server.listener.port)
    yield found
    found.close()


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A disk whose content fills more than one pack."""
    path = tmp_path / "disk.raw"
    path.write_bytes(os.urandom(70 * MIB) + bytes(MIB))
    return path


def opened(rig: ServerRig, proxy: Faults) -> tuple[Repository, HttpChunkIndex]:
    store = HttpStore(proxy.url, trust=rig.trust, tokens=rig.session("capture"), patience=60)
    return Repository(store, rig.local.file, rig.local.keys), HttpChunkIndex(store.transport)


def test_an_outage_in_a_capture_is_told_and_survived(
    rig: ServerRig, proxy: Faults, disk: Path, tmp_path: Path
) -> None:
    repository, index = opened(rig, proxy)
    proxy.next(*(Fault(status=503),) * 3, Fault(reset=True), Fault(status=429))
    events: list[Event] = []
    point = capture(repository, index, CaptureRequest(host="hv1", disks=(disk,)), events.append, threading.Event())
    assert len(proxy.dealt) >= 4
    assert any(isinstance(event, Message) and "Trying again in" in event.text for event in events)
    assert max(event.retries for event in events if isinstance(event, Progress)) >= 3
    restore_disk(rig.local, point, "disk1", str(tmp_path / "out.img"), ignore, threading.Event())
    assert (tmp_path / "out.img").read_bytes() == disk.read_bytes()


@pytest.mark.parametrize("fault", [Fault(stall=True), Fault(status=503)], ids=["stalled", "away"])
def test_a_capture_stops_at_once_in_an_outage(rig: ServerRig, proxy: Faults, disk: Path, fault: Fault) -> None:
    repository, index = opened(rig, proxy)
    proxy.always(fault)
    cancel, errors = threading.Event(), list[BaseException]()

    def run() -> None:
        try:
            capture(repository, index, CaptureRequest(host="hv1", disks=(disk,)), ignore, cancel)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    while not proxy.dealt:
        threading.Event().wait(0.02)
        assert thread.is_alive(), errors
    cancel.set()
    thread.join(4)
    assert not thread.is_alive()
    assert isinstance(errors[0], CancelledError)
    assert "nothing of it is visible" in errors[0].message
    assert errors[0].hint
    with pytest.raises(NotFoundError):
        rig.local.points("hv1")
