"""This project as a contestant: its server, its restore in a process of its own, its commands."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from recovery.commands import run
from tests.bench.data import HOST
from tests.bench.measure import children_cpu, process_cpu
from tests.bench.model import Sample
from tests.bench.worker import Source, Task
from tests.e2e.lab.server import CHECKOUT, rekindle, rekindle_argv

ENVIRONMENT = {"PYTHONPATH": os.pathsep.join(str(CHECKOUT / part) for part in ("", "server-stub", "image-build"))}
_PASSWORD = "a password for the bench\n"
_LONGEST = 1800.0


@dataclass(frozen=True)
class Served:
    """A server that runs, and how to get in."""

    pid: int
    source: Source


@contextlib.contextmanager
def serving(
    secret: Path, repository: Path, scratch: Path, *, tls: bool, address: str = "127.0.0.1"
) -> Iterator[Served]:
    """``rekindle serve`` until the block ends, with a user of role restore."""
    # On the repository's filesystem, for its objects are linked.
    state, password = Path(tempfile.mkdtemp(prefix="server-", dir=repository.parent)), scratch / "password"
    password.write_text(_PASSWORD)
    password.chmod(0o600)
    root = _linked(repository, state / "served")
    words: list[str | Path] = ["serve", root, "--listen", f"{address}:0", "--state", state, "--json"]
    words += ["--plain-packs", f"{address}:0"] if tls else ["--plain-http", "--insecure-network"]
    with (scratch / "server.log").open("ab") as log:
        process = subprocess.Popen(
            rekindle_argv(*words), stdout=subprocess.PIPE, stderr=log, stdin=subprocess.DEVNULL, cwd=CHECKOUT,
            env={**os.environ, **ENVIRONMENT},
        )  # fmt: skip
    try:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline() or "{}")
        if "port" not in ready:
            raise OSError(f"the server did not start: {(scratch / 'server.log').read_text()[-500:]}")
        rekindle("user", "add", HOST, "--role", "restore", "--state", state, "--password-file", password)
        url = f"{'https' if tls else 'http'}://{address}:{ready['port']}"
        yield Served(
            process.pid,
            Source(location=url, secret=str(secret), password=str(password), fingerprint=ready["ca_fingerprint"]),
        )
    finally:
        process.terminate()
        process.wait(30)
        shutil.rmtree(state)


def _linked(repository: Path, root: Path) -> Path:
    """The same objects in another place, since a repository is served once; what is made there does not stay."""
    for path in repository.rglob("*"):
        inside = path.relative_to(repository)
        if path.is_file() and not inside.parts[0].startswith("."):
            (root / inside).parent.mkdir(parents=True, exist_ok=True)
            (root / inside).hardlink_to(path)
    return root


def worker(kind: str, task: Task) -> Sample:
    """One sample by ``tests.bench.worker``. Raises CommandError."""
    argv = [sys.executable, "-m", "tests.bench.worker", kind, msgspec.json.encode(task).decode()]
    done = run(argv, env=ENVIRONMENT, cwd=CHECKOUT, timeout=_LONGEST)
    return msgspec.json.decode(done.stdout.splitlines()[-1], type=Sample)


def with_server(pid: int, sample: Callable[[], Sample]) -> Sample:
    """The sample with the CPU-seconds of the server meanwhile."""
    before = process_cpu(pid)
    found = sample()
    return msgspec.structs.replace(found, server_cpu=process_cpu(pid) - before)


def command(*words: str | Path) -> Sample:
    """A whole ``rekindle`` command, from the shell's point of view. Raises CommandError."""
    begin, before = time.monotonic(), children_cpu()
    rekindle(*words)
    return Sample(seconds=time.monotonic() - begin, cpu=children_cpu() - before)


def restore_command(source: Source, target: Path, size: int) -> list[str | Path]:
    """The words of ``rekindle restore`` from a source to an image file."""
    words: list[str | Path] = ["restore", source.location, "--host", HOST, "--target", f"disk1={target}",
                               "--confirm", f"disk1={size}", "--secret-file", source.secret]  # fmt: skip
    if source.password:
        words += ["--user", HOST, "--password-file", source.password]
    if source.fingerprint:
        words += ["--ca", source.fingerprint]
    return words
