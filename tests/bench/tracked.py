"""A loop disk with a filesystem, and the agent as a host has it: a process of its own that stores its points at our
server over TLS."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from recovery.agent.status import AgentStatus, read_status
from recovery.commands import run
from recovery.errors import RekindleError
from recovery.format.point import LiveFigures
from recovery.repository.repository import Repository
from recovery.repository.store import open_local
from tests.bench.data import HOST, PASSPHRASE
from tests.bench.measure import fresh
from tests.bench.ours import ENVIRONMENT
from tests.e2e.lab.hardware import free_port
from tests.e2e.lab.server import CHECKOUT, rekindle, rekindle_argv, serving

Kind = Literal["ext4", "xfs", "btrfs"]
#: Without discards: they would make holes of the blocks that the disk's file has already.
_MAKE = {"ext4": ("-q", "-F", "-E", "nodiscard"), "xfs": ("-q", "-f", "-K"), "btrfs": ("-q", "-f", "-K")}
_PASSWORD = "a password for the bench\n"
#: Seconds that the agent has for its first point, and a filesystem to be let go.
_FIRST, _BUSY = 300.0, 20.0


@dataclass(frozen=True)
class LoopDisk:
    """``image`` is the disk's content, ``device`` the whole disk, ``mount`` its filesystem."""

    image: Path
    device: str
    mount: Path


@contextlib.contextmanager
def loop_disk(folder: Path, size: int, kind: Kind = "ext4", *, direct: bool = True) -> Iterator[LoopDisk]:
    """A disk for the time of the block. ``direct``: it is as fast as the disk below it; else as the page cache.

    Raises CommandError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    image, mount = folder / "disk.img", folder / "mount"
    fresh(image, size)
    mount.mkdir(exist_ok=True)
    words = ["losetup", "--find", "--show", f"--direct-io={'on' if direct else 'off'}"]
    device = run([*words, str(image)]).stdout.strip()
    try:
        run([f"mkfs.{kind}", *_MAKE[kind], device])
        run(["mount", device, mount])
        try:
            yield LoopDisk(image, device, mount)
        finally:
            _let_go(mount)
    finally:
        run(["losetup", "--detach", device], check=False)
        image.unlink(missing_ok=True)


def _let_go(mount: Path) -> None:
    end = time.monotonic() + _BUSY
    while not run(["umount", mount], check=False) and time.monotonic() < end:
        time.sleep(0.2)


class Agent:
    """The agent's process, which has made its first point. ``pid`` may be asked for its CPU-seconds."""

    def __init__(self, site: Site, process: subprocess.Popen[bytes]) -> None:
        self._site, self._process = site, process
        self.pid = process.pid

    @property
    def status(self) -> AgentStatus:
        """What it writes of itself. Raises RekindleError."""
        return read_status(self._site.folder / "status")

    def wait_for(self, done: Callable[[], bool], seconds: float, what: str) -> None:
        """Raises OSError when the agent ends, or ``seconds`` pass before ``done``."""
        end = time.monotonic() + seconds
        while not done():
            if self._process.poll() is not None or time.monotonic() > end:
                said = (self._site.folder / "agent.log").read_text(errors="replace")[-1500:]
                raise OSError(f"The agent did not come to {what}: {said}")
            time.sleep(0.05)


class Site:
    """A repository behind a server, and the agent of one disk. Use as a context manager."""

    def __init__(self, folder: Path, disk: LoopDisk) -> None:
        self.folder, self._disk = folder, disk
        self._stack = contextlib.ExitStack()
        self.repository = folder / "repository"

    def __enter__(self) -> Site:
        folder = self.folder
        folder.mkdir(parents=True, exist_ok=True)
        Repository.create(open_local(self.repository, create=True), PASSPHRASE)
        for name, text in (("secret", PASSPHRASE + "\n"), ("password", _PASSWORD)):
            (folder / name).touch(0o600)
            (folder / name).write_text(text)
        self._port = free_port()[0]
        server = self._stack.enter_context(serving(self.repository, folder / "server.log", self._port))
        self._fingerprint = server.ca_fingerprint
        role = ("--role", "capture", "--host", HOST, "--password-file", folder / "password")
        rekindle("user", "add", "agent", *role, "--state", server.state)
        return self

    def __exit__(self, *ignored: object) -> None:
        self._stack.close()

    def points(self) -> int:
        """How many there are."""
        return len(list((self.repository / "points" / HOST).glob("*")))

    def figures(self, first: int = 0) -> list[LiveFigures]:
        """How the points came about, oldest first, without the ``first`` ones."""
        repository = Repository.open(open_local(self.repository), PASSPHRASE)
        made = (repository.point(HOST, summary.id).body.live for summary in repository.points(HOST)[first:])
        return [live for live in made if live is not None]

    @contextlib.contextmanager
    def agent(self, *, journal: str, keyframe: str = "24h", freeze: str = "500ms") -> Iterator[Agent]:
        """The agent for the time of the block, from its first point on. Raises OSError when that does not come."""
        config = self.folder / "agent.toml"
        config.write_text(self._config(journal, keyframe, freeze))
        before = self.points()
        with (self.folder / "agent.log").open("ab") as log:
            process = subprocess.Popen(
                rekindle_argv("agent", "--config", config), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                cwd=CHECKOUT, env={**os.environ, **ENVIRONMENT},
            )  # fmt: skip
        try:
            agent = Agent(self, process)
            agent.wait_for(lambda: self.points() > before and self._counted(agent), _FIRST, "its first point")
            yield agent
        finally:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _counted(self, agent: Agent) -> bool:
        try:
            return agent.status.pid == agent.pid and agent.status.last is not None
        except RekindleError:
            return False

    def _config(self, journal: str, keyframe: str, freeze: str) -> str:
        return f"""
host = "{HOST}"
disks = ["{self._disk.device}"]
[repository]
location = "https://127.0.0.1:{self._port}"
ca = "{self._fingerprint}"
user = "agent"
password_file = "{self.folder}/password"
secret_file = "{self.folder}/secret"
[schedule]
keyframe = "{keyframe}"
journal = "{journal}"
[limits]
freeze = "{freeze}"
[spool]
directory = "{self.folder}/spool"
[status]
directory = "{self.folder}/status"
"""
