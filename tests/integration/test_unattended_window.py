"""The plain window of an unattended restore on a real terminal: what a person sees, and the key that stops it."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from recovery.engine.api import Unattended
from recovery.engine.unattended import NOT_ASKED
from tests.integration.unattended_scene import Scene, rig, scene, wait_for

__all__ = ["rig", "scene"]
COMMAND = [sys.executable, "-c", "from recovery.cli.main import main; main()", "unattended", "--watch", "--socket"]


class Window:
    """``rekindle unattended --watch`` on a terminal of its own."""

    def __init__(self, scene: Scene) -> None:
        self.terminal, inner = pty.openpty()
        argv = [*COMMAND, str(scene.folder / "engine.sock")]
        self.process = subprocess.Popen(argv, stdin=inner, stdout=inner, stderr=inner, start_new_session=True)
        os.close(inner)
        self.text = ""

    def sees(self, words: str, seconds: float = 60) -> bool:
        deadline = time.monotonic() + seconds
        while words not in self.text and time.monotonic() < deadline:
            if select.select([self.terminal], [], [], 0.2)[0]:
                try:
                    self.text += os.read(self.terminal, 65536).decode(errors="replace")
                except OSError:
                    break
        return words in self.text

    def press(self, key: bytes = b"x") -> None:
        os.write(self.terminal, key)


@pytest.fixture
def window(scene: Scene) -> Iterator[Window]:
    made = Window(scene)
    yield made
    made.process.kill()
    made.process.wait()
    os.close(made.terminal)


def driven(scene: Scene) -> tuple[threading.Thread, list[Unattended]]:
    ended: list[Unattended] = []
    thread = threading.Thread(target=lambda: ended.append(scene.drive()))
    thread.start()
    return thread, ended


def test_a_key_in_the_countdown_stops_it(scene: Scene, window: Window) -> None:
    scene.answers(countdown="120")
    thread, ended = driven(scene)
    assert window.sees("Press any key to stop"), window.text
    assert window.sees("The first write is in"), window.text
    wait_for(lambda: scene.client.state().phase == "running")
    window.press()
    assert window.sees("stopped. Press any key for the console"), window.text
    thread.join(30)
    assert ended[0].phase == "stopped"
    assert not scene.target.exists()
    window.press(b"\r")
    assert window.process.wait(20) == 0


@pytest.mark.slow
def test_two_windows_see_the_same(scene: Scene, window: Window) -> None:
    second = Window(scene)
    scene.answers(countdown="8")
    thread, ended = driven(scene)
    for each in (window, second):
        assert each.sees("The first write is in"), each.text
    for each in (window, second):
        assert each.sees("done. Press any key for the console"), each.text
        assert each.sees("pve1 was restored")
        each.press()
        assert each.process.wait(20) == 0
    thread.join(30)
    assert ended[0].phase == "done"
    os.close(second.terminal)


def test_a_refusal_says_why(scene: Scene, window: Window) -> None:
    scene.answers(disks='{disk1 = "serial:none-such"}')
    driven(scene)[0].join(60)
    assert window.sees("REFUSED"), window.text
    assert window.sees("No disks match the rule")
    assert window.sees("Nothing was written")


def test_it_gives_way_when_there_is_nothing_to_do(scene: Scene, window: Window) -> None:
    scene.answers(unattended="")
    driven(scene)[0].join(60)
    assert window.process.wait(20) == 0
    assert not window.sees("UNATTENDED", 0.5)
    assert scene.client.unattended().message == NOT_ASKED
