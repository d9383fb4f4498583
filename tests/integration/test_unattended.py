"""Unattended restores with the real server, the real engine behind its socket, and answers on a real volume."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import recovery.engine.answers as answers_module
import recovery.engine.run as run_module
from recovery.cli.unattended_window import stop
from recovery.commands import run
from recovery.engine.api import FoundAnswers, LocalRepository, Unattended
from recovery.engine.client import EngineClient
from recovery.engine.engine import Engine
from recovery.engine.runner import Runner
from recovery.engine.unattended import NOT_ASKED, Driver
from recovery.errors import UsageError
from recovery.events import Message, RunFinished, StepStarted
from recovery.repository.mdns import DiscoveredServer
from recovery.restore.disk import restore_disk
from recovery.units import MIB
from tests.integration.unattended_scene import HOST, Scene, rig, scene, wait_for
from tests.support.repositories import PASSPHRASE
from tests.support.server import PASSWORD

__all__ = ["rig", "scene"]


def test_a_host_comes_back_without_anybody(scene: Scene) -> None:
    scene.answers(after='"reboot"', verify="true")
    started = time.time()
    ended = scene.drive()
    assert ended.phase == "done", (ended, scene.said)
    assert time.time() - started > 5
    assert scene.target.read_bytes() == scene.image.read_bytes()
    assert scene.rebooted == [False]
    assert scene.reports()[-1][0] == "finished"
    assert scene.engine.unattended() == ended
    # The same engine, the same events: any window could have shown the countdown and the run.
    events = list(scene.client.events())
    steps = [event.step for event in events if isinstance(event, StepStarted)]
    assert steps[:3] == ["countdown", "open", "stream:disk1"]
    assert any(isinstance(event, Message) and "3 s" in event.text for event in events)
    assert isinstance(events[-1], RunFinished)
    log = (scene.folder / "log/engine.log").read_text()
    secrets = [PASSPHRASE, *(line.split('"')[1] for line in scene.text.splitlines() if line.startswith("code"))]
    for where in (log, "\n".join(scene.said)):
        assert not any(secret in where for secret in secrets)


@pytest.mark.slow
def test_a_second_start_from_the_medium_does_not_restore_again(scene: Scene) -> None:
    scene.answers(after='"poweroff"')
    assert scene.drive().phase == "done"
    assert scene.rebooted == [True]
    before = scene.target.stat().st_mtime_ns
    other = Engine(log_directory=scene.folder / "log2", look_inside=False)
    # The session of a code lives in the process that used it; a machine that starts again has none.
    import recovery.repository.http_session as sessions

    sessions._code_sessions.clear()
    driver = Driver(other, server_patience=1, disk_patience=0, pause=0.1)
    other.answers = lambda: FoundAnswers(text=scene.text)  # type: ignore[method-assign]
    ended = driver.run()
    assert ended.phase == "refused"
    assert "used already" in ended.message
    assert scene.target.stat().st_mtime_ns == before
    other.close()


def test_a_key_in_the_countdown_leaves_everything_as_it_is(scene: Scene) -> None:
    scene.answers(countdown="60", after='"poweroff"')
    scene.target.write_bytes(b"precious")
    scene.answers(countdown="60", overwrite="true")
    results: list[Unattended] = []
    thread = threading.Thread(target=lambda: results.append(scene.drive()))
    thread.start()
    wait_for(lambda: scene.client.state().phase == "running")
    stop(EngineClient(scene.folder / "engine.sock"))
    thread.join(20)
    assert results[0].phase == "stopped"
    assert scene.target.read_bytes() == b"precious"
    assert scene.rebooted == []
    assert scene.reports()[-1][0] == "cancelled"


@pytest.mark.slow
def test_a_key_after_the_first_write_does_not_claim_that_nothing_was_written(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The window's look is a moment old: the countdown may have ended when the key is pressed."""
    scene.answers(countdown="5")
    held = threading.Event()

    def slow(*words: Any, **named: Any) -> Any:
        held.set()
        stop(EngineClient(scene.folder / "engine.sock"))
        return restore_disk(*words, **named)

    monkeypatch.setattr(run_module, "restore_disk", slow)
    ended = scene.drive()
    assert held.is_set()
    assert ended.phase == "failed"
    assert "Nothing was written" not in ended.message
    assert scene.reports()[-1][0] == "failed"


def test_a_key_just_before_there_is_a_run(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the driver's last look and the start of the run there is nothing yet that could be cancelled."""
    scene.answers(countdown="60")
    start = scene.engine.start

    def late(plan_id: str, confirmations: dict[str, str], countdown: int = 0) -> None:
        stop(EngineClient(scene.folder / "engine.sock"))
        start(plan_id, confirmations, countdown)

    monkeypatch.setattr(scene.engine, "start", late)
    ended = scene.drive()
    assert ended.phase == "stopped"
    assert not scene.target.exists()


@pytest.mark.slow
def test_an_engine_that_was_restarted_in_the_middle_is_told(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """The new engine knows of no run: nobody may wait for its end for ever, or call it a success."""
    scene.answers(countdown="60", after='"poweroff"')
    begin = scene.engine._runner.begin

    def crash(*words: Any, **named: Any) -> None:
        begin(*words, **named)
        scene.engine._runner.cancel()
        scene.engine.wait()
        scene.engine._runner = Runner(scene.engine._journal)

    monkeypatch.setattr(scene.engine._runner, "begin", crash)
    ended = scene.drive()
    assert ended.phase == "failed"
    assert "restarted in the middle" in ended.message
    assert scene.rebooted == []


def test_stopped_while_it_waits_for_the_server(scene: Scene) -> None:
    scene.answers(server='"https://127.0.0.1:1"')
    results: list[Unattended] = []
    thread = threading.Thread(target=lambda: results.append(scene.drive(server_patience=60)))
    thread.start()
    wait_for(lambda: "Waiting for the repository" in scene.client.unattended().message)
    scene.client.unattended(Unattended(phase="stopped"))
    thread.join(20)
    assert results[0].phase == "stopped"
    assert not scene.target.exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"hots": '"x"'}, "unknown field `hots`"),
        ({"secret": '"not the passphrase"'}, "passphrase"),
        ({"code": '"AAAA-BBBB-CCCC"'}, "one-time code"),
        ({"fingerprint": '"' + "00" * 32 + '"'}, "not the one expected"),
        ({"server": '"https://127.0.0.1:1"'}, "refuses connections"),
        ({"host": '"pve9"'}, "not for pve9"),
        ({"point": '"2001-01-01T00:00Z"'}, "at or before"),
        ({"disks": '{disk1 = "serial:none-such"}'}, "No disks match"),
        ({"disks": '{disk7 = "serial:none-such"}'}, "no disk 'disk7'"),
        ({"disks": '{disk1 = "file:/no/such/folder/x.raw"}'}, "does not exist"),
        ({"adapt": "true"}, "adapt-needs-device"),
    ],
)  # fmt: skip
def test_every_doubt_is_a_refusal_that_is_told(scene: Scene, changes: dict[str, str], said: str) -> None:
    scene.answers(after='"poweroff"', **changes)
    ended = scene.drive(server_patience=0.0)
    assert ended.phase == "refused"
    assert said in " ".join((ended.message, *ended.reasons)), ended
    assert "Nothing was written" in ended.message
    assert any(said in line for line in scene.said)
    assert not scene.target.exists()
    assert scene.client.state().phase == "idle"
    assert scene.rebooted == []


def test_a_refusal_after_the_login_reaches_the_server(scene: Scene) -> None:
    scene.answers(disks='{disk1 = "serial:none-such"}')
    scene.drive()
    kept = scene.rig.server.app.reports.list(HOST)[-1]
    assert kept.report.outcome == "refused"
    assert "No disks match the rule" in kept.report.reasons[0]
    assert kept.actor.startswith("#code-")


@pytest.mark.slow
def test_with_a_password_and_secrets_only_on_the_volume(scene: Scene) -> None:
    scene.rig.session("restore", HOST)  # makes the user
    scene.text = f'user = "restore-{HOST}"\npassword = "{PASSWORD}"\nsecret = "{PASSPHRASE}"\n'
    scene.line = (
        f"quiet rekindle.unattended rekindle.server={scene.rig.url} rekindle.host={HOST} rekindle.adapt=no "
        f"rekindle.fingerprint={scene.rig.trust.fingerprint} rekindle.countdown=5 "
        f"rekindle.point={scene.point.id[:12]} rekindle.disks.disk1=file:{scene.target}"
    )
    assert scene.drive().phase == "done"
    assert scene.target.read_bytes() == scene.image.read_bytes()
    assert scene.rebooted == []


@pytest.mark.slow
def test_the_server_is_found_by_its_fingerprint(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two announce themselves; the one that claims the pin is taken, and has to prove it as ever."""
    pin = scene.rig.trust.fingerprint.replace(":", "").lower()
    liar = DiscoveredServer(url="https://127.0.0.1:1", name="x", fingerprint="00" * 32)
    true = DiscoveredServer(url=scene.rig.url, name="y", fingerprint=pin)
    monkeypatch.setattr(scene.engine, "discover", lambda: [liar, true])
    scene.answers(server="")
    assert scene.drive().phase == "done"
    monkeypatch.setattr(scene.engine, "discover", lambda: [liar])
    scene.answers(server="")
    ended = scene.drive(server_patience=0.2)
    assert ended.phase == "refused"
    assert "No server on the local network" in ended.message


@pytest.mark.slow
def test_a_repository_on_a_disk_of_the_machine(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    here = LocalRepository(id=scene.rig.local.id, path=str(scene.rig.root), device="/dev/sdx1", size=1)
    monkeypatch.setattr(scene.engine, "local_repositories", lambda: [here])
    scene.answers(server="", fingerprint="", code="", repository=f'"{scene.rig.local.id[:8]}"')
    assert scene.drive().phase == "done"
    assert scene.target.read_bytes() == scene.image.read_bytes()
    assert "There is no server to tell." in scene.said
    monkeypatch.setattr(scene.engine, "local_repositories", lambda: [here, here])
    assert "2 repositories" in scene.drive().message


def test_a_bug_leaves_no_window_waiting(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.answers()

    def bug(*words: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("recovery.engine.unattended.choose_point", bug)
    with pytest.raises(ZeroDivisionError):
        scene.drive()
    assert scene.client.unattended().phase == "failed"
    assert scene.client.state().phase == "idle"


def test_not_asked_for(scene: Scene) -> None:
    scene.answers(unattended="")
    assert scene.drive() == Unattended(phase="off", message=NOT_ASKED)


@pytest.mark.slow
@pytest.mark.root
def test_answers_on_a_volume_and_a_disk_by_size(scene: Scene, loop: Callable[[Path], str]) -> None:
    """rekindle.toml is read from a real filesystem by its label; a loop device is found by its size and restored."""
    disk = scene.folder / "disk.raw"
    with disk.open("wb") as file:
        file.truncate(16 * MIB + 3 * MIB)
    device = loop(disk)
    size = disk.stat().st_size
    scene.answers(disks=f'{{disk1 = "size:{size},blank"}}', accept='["firmware-differs", "firmware-unknown"]')
    volume(scene.folder / "stick.raw", {"rekindle.toml": scene.text}, loop)
    found = answers_module.find_answers(loops=True, mounts=scene.folder / "mnt", procfs=scene.folder)
    assert found.text == scene.text
    assert not found.problems
    ended = scene.drive()
    if scene.engine.machine().firmware == "uefi":
        assert ended.phase == "refused"  # a BIOS host on a UEFI machine: an error that nobody may accept
        return
    assert ended.phase == "done", ended
    with open(device, "rb") as restored:
        assert restored.read(16 * MIB) == scene.image.read_bytes()


@pytest.mark.root
def test_two_volumes_with_answers_are_a_doubt(scene: Scene, loop: Callable[[Path], str]) -> None:
    for name in ("one", "two"):
        volume(scene.folder / f"{name}.raw", {"rekindle.toml": "unattended = true\n"}, loop)
    found = answers_module.find_answers(loops=True, mounts=scene.folder / "mnt", procfs=scene.folder)
    assert "several volumes" in found.problems[0]
    scene.engine.answers = lambda: found  # type: ignore[method-assign]
    assert scene.drive().phase == "refused"


def volume(image: Path, files: dict[str, str], loop: Callable[[Path], str]) -> str:
    """An ext4 volume labelled REKINDLE."""
    folder = image.with_suffix(".d")
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)
    with image.open("wb") as file:
        file.truncate(8 * MIB)
    run(["mkfs.ext4", "-q", "-L", "REKINDLE", "-d", folder, image])
    return loop(image)


@pytest.fixture
def loop() -> Iterator[Callable[[Path], str]]:
    devices: list[str] = []

    def attach(image: Path) -> str:
        devices.append(run(["losetup", "-f", "--show", image]).stdout.strip())
        return devices[-1]

    yield attach
    for device in devices:
        run(["losetup", "-d", device], check=False)


def test_a_file_is_checked_on_a_workstation(tmp_path: Path) -> None:
    from click.testing import CliRunner

    from recovery.cli.unattended import unattended

    file = tmp_path / "rekindle.toml"
    file.write_text('host = "x"\n')
    done = CliRunner().invoke(unattended, ["--check", str(file)])
    assert isinstance(done.exception, UsageError)
