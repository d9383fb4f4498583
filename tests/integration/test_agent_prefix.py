"""The claim of continuous capture: a writer stamps numbered records with fsync, agent, server and network are killed
at random, and every point that comes back holds the records up to some number, without a hole, and none that was
acknowledged before the point's moment is missing.

``REKINDLE_POINTS=200`` for more points than the few of every run; ``REKINDLE_SEED`` for other moments;
``REKINDLE_PREFIX_REPORT=FILE`` for what happened, as JSON (``scripts/bench capture-live``).
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from recovery.capture.tracking.choose import open_tracker
from recovery.capture.tracking.witness import tracked_disk
from recovery.repository.check import check
from recovery.repository.repository import Repository
from tests.e2e.lab.hardware import free_port
from tests.support.prefix import WrittenDisk, check_prefix, restored
from tests.support.processes import environment, rekindle
from tests.support.relay import Relay
from tests.support.repositories import PASSPHRASE, commit, store_disk
from tests.support.server import PASSWORD, ServerRig

pytestmark = pytest.mark.root

_POINTS = int(os.environ.get("REKINDLE_POINTS", "14"))
_SEED = int(os.environ.get("REKINDLE_SEED", "1"))
_REPORT = os.environ.get("REKINDLE_PREFIX_REPORT", "")
_INTERVAL = 0.5
_MANY = 40
#: Of many points the writer must not come to its end before they do, nor fill the disk.
_SIZE = (80 if _POINTS > _MANY else 48) * 2**20
_PAUSE, _MOST = (0.1, 12_000) if _POINTS > _MANY else (0.02, 5000)


class World:
    """A loop disk with a filesystem that is written to, a server and an agent, both processes that can be killed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.disk = WrittenDisk(folder, _SIZE)
        rig = ServerRig(folder)
        rig.session("capture", "hv1")
        self.local: Repository = rig.local
        certificate = rig.server.certificate
        fingerprint = certificate.fingerprint if certificate else ""
        rig.close()
        self.port, port = free_port(2)
        self.network = Relay(port, self.port)
        for name, secret in (("secret", PASSPHRASE), ("password", PASSWORD)):
            (folder / name).write_text(secret)
            (folder / name).chmod(0o600)
        self.config = folder / "agent.toml"
        # A loaded machine freezes slowly: the time limit of a freeze is not what this is about.
        self.config.write_text(f"""
host = "hv1"
disks = ["{self.disk.device}"]
[repository]
location = "https://127.0.0.1:{self.network.port}"
ca = "{fingerprint}"
user = "capture-hv1"
password_file = "{folder}/password"
secret_file = "{folder}/secret"
[schedule]
keyframe = "10m"
journal = "{_INTERVAL}s"
[limits]
freeze = "8s"
[spool]
directory = "{folder}/spool"
[status]
directory = "{folder}/status"
""")
        self.server: subprocess.Popen[bytes] | None = None
        self.agent: subprocess.Popen[bytes] | None = None

    def start_server(self) -> None:
        """It listens where it did before."""
        self.server = self._process("serve", str(self.local.store.location), "--listen", f"127.0.0.1:{self.port}")  # type: ignore[attr-defined]

    def start_agent(self) -> None:
        """The real command."""
        self.agent = self._process("agent", "--config", str(self.config))

    def _process(self, *words: str) -> subprocess.Popen[bytes]:
        log = (self.folder / f"{words[0]}.log").open("ab")
        return subprocess.Popen(rekindle(*words), env=environment(self.folder), stdin=subprocess.DEVNULL,
                                stdout=log, stderr=log)  # fmt: skip

    def points(self) -> list[str]:
        """Ids of what is in the repository, oldest first."""
        return [name.split("-")[1] for name in self._names()]

    def _names(self) -> list[str]:
        return sorted(path.name for path in (self.folder / "repository" / "points" / "hv1").glob("*"))

    def lag(self) -> float:
        """Seconds of what would be lost if the host died now; there is a point."""
        return time.time() - int(self._names()[-1].split("-")[0]) / 1e6

    def close(self) -> None:
        """Nothing stays: no process, no mount, no loop device."""
        self.disk.stop_writer()
        for process in (self.agent, self.server):
            if process is not None and process.poll() is None:
                process.kill()
                process.wait()
        self.network.close()
        self.disk.close()


def kill(process: subprocess.Popen[bytes] | None) -> None:
    assert process is not None
    process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    if os.geteuid() != 0:
        pytest.skip("loop devices and freezing need root")
    made = World(tmp_path)
    try:
        told: list[str] = []
        tracker = open_tracker([tracked_disk("disk1", Path(made.disk.device))], told.append)
        if tracker is None:
            pytest.skip(f"changed blocks cannot be tracked here: {told}")
        tracker.close()
        yield made
    finally:
        made.close()


def wait_until(what: str, done: object, world: World, *, seconds: float = 900.0) -> None:
    """A limit that only a hang meets."""
    end = time.monotonic() + seconds
    while not done():  # type: ignore[operator]
        assert time.monotonic() < end, f"{what}\n{(world.folder / 'agent.log').read_text()[-3000:]}"
        time.sleep(0.1)


@pytest.mark.slow
def test_every_point_is_a_prefix_whatever_is_killed(world: World, tmp_path: Path) -> None:
    chance = random.Random(_SEED)
    world.start_server()
    world.start_agent()
    wait_until("the first keyframe", world.points, world)
    world.disk.start_writer(_PAUSE, _MOST)
    begun, kills = time.monotonic(), 0
    lags, at_kills = [0.0], list[float]()

    def more(wanted: int) -> bool:
        lags.append(world.lag())
        return len(world.points()) >= wanted

    # All are killed at least once: what waited in the spool comes in as many points at a time.
    while len(world.points()) < _POINTS or kills < 3:
        wait_until("more points", partial(more, len(world.points()) + chance.randint(3, 6)), world)
        kills += 1
        time.sleep(chance.uniform(0.0, 1.0))  # anywhere: between points, in a pass, in a freeze, in a request
        at_kills.append(world.lag())
        if kills % 3 == 1:
            kill(world.server)
            time.sleep(chance.uniform(0.0, 3.0))  # points wait in the spool meanwhile
            world.start_server()
        elif kills % 3 == 2:
            kill(world.agent)
            world.start_agent()
        else:
            world.network.cut()
            time.sleep(chance.uniform(0.0, 3.0))
            world.network.mend()
    last, took = len(world.points()), time.monotonic() - begun
    wait_until("a point after the last kill", lambda: len(world.points()) > last, world)
    # What killed it left nothing frozen: the writer goes on.
    records = len(world.disk.acknowledged())
    wait_until("the writer", lambda: len(world.disk.acknowledged()) > records + 2, world)
    assert world.agent is not None
    world.agent.terminate()
    assert world.agent.wait(120) == 0
    world.disk.stop_writer()
    acknowledged = world.disk.acknowledged()
    summaries = world.local.points("hv1")
    counts = []
    journals = 0
    for summary in summaries:
        point = world.local.point("hv1", summary.id)
        journals += point.disk("disk1").journals > 0
        with restored(world.local, point, tmp_path) as mount:
            counts.append(check_prefix(mount, point.header.created, acknowledged))
    assert counts == sorted(counts) and counts[-1] > counts[0]
    assert journals >= len(summaries) // 3 and kills >= 3
    report = check(world.local, read_data=True)
    assert report.ok, report.damages
    status = json.loads((world.folder / "status" / "status.json").read_text())
    assert status["state"] == "stopped" and status["points"][-1]["id"] == summaries[-1].id
    if _REPORT:
        report_figures = {
            "points": len(counts), "journals": journals, "kills": kills, "records": counts[-1], "seconds": took,
            "interval": _INTERVAL, "longest_lag": max(lags), "lag_at_kills": max(at_kills),
        }  # fmt: skip
        Path(_REPORT).write_text(json.dumps(report_figures))


@pytest.mark.slow
def test_a_second_capture_between_two_points_is_found_out_and_nothing_is_lost(world: World, tmp_path: Path) -> None:
    """Somebody else's point comes between: what waits is thrown away, and the agent begins anew by a full compare."""
    world.start_server()
    world.start_agent()
    wait_until("a journal", lambda: len(world.points()) >= 2, world)
    commit(world.local, "hv1", {"disk1": store_disk(world.local, bytes(_SIZE))})
    between = len(world.points())
    (world.disk.mount / "after").write_bytes(b"written after the other capture")
    os.sync()
    wait_until("points after it", lambda: len(world.points()) >= between + 2, world)
    assert world.agent is not None
    world.agent.terminate()
    assert world.agent.wait(120) == 0
    point = world.local.point("hv1", "latest")
    with restored(world.local, point, tmp_path) as mount:
        assert (mount / "after").read_bytes() == b"written after the other capture"
    assert "full compare" in (world.folder / "agent.log").read_text()
