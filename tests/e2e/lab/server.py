"""The command line as a person types it, and a real ``rekindle serve`` with TLS on our loopback."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recovery.commands import Completed, failure, run
from tests.e2e.lab.qemu import LabError

CHECKOUT = Path(__file__).parents[3]


def rekindle_argv(*words: str | Path) -> list[str]:
    """The command line as a person would type it, run by this Python from this checkout."""
    return [sys.executable, "-m", "recovery.cli.main", *map(str, words)]


def rekindle(
    *words: str | Path, say: Callable[[str], None] | None = None, timeout: float = 3600
) -> list[dict[str, Any]]:
    """Run ``rekindle WORDS --json`` and return its JSON lines. Raises CommandError with its last words."""
    lines: list[str] = []

    def hear(line: str) -> None:
        lines.append(line)
        if say is not None:
            say(line)

    argv = rekindle_argv(*words, "--json")
    done = run(argv, check=False, timeout=timeout, env=_environment(), cwd=CHECKOUT, on_output=hear)
    if done.returncode:
        last = next((line for line in reversed(lines) if '"error"' in line), done.stdout[-1000:])
        raise failure(Completed(tuple(argv), done.returncode, "", last))
    return [json.loads(line) for line in lines if line.startswith("{")]


def _environment() -> dict[str, str]:
    path = os.pathsep.join(str(CHECKOUT / part) for part in ("", "server-stub", "image-build"))
    return {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}


@dataclass(frozen=True)
class Serving:
    """A server that runs. ``port`` is on our loopback."""

    port: int
    ca_fingerprint: str
    state: Path
    log: Path


@contextlib.contextmanager
def serving(repository: Path, log: Path, port: int, *, names: tuple[str, ...] = ()) -> Iterator[Serving]:
    """Run ``rekindle serve`` until the block ends. Raises LabError when it does not start."""
    state = repository.with_name(repository.name + "-server")
    words: list[str | Path] = ["serve", repository, "--listen", f"127.0.0.1:{port}", "--state", state, "--json"]
    for name in names:
        words += ["--name", name]
    # A long-lived child: it serves while the story goes on.
    with log.open("ab") as errors:
        process = subprocess.Popen(
            rekindle_argv(*words), stdout=subprocess.PIPE, stderr=errors, stdin=subprocess.DEVNULL, cwd=CHECKOUT,
            env={**os.environ, **_environment()},
        )  # fmt: skip
    try:
        yield Serving(port, _ready(process, log)["ca_fingerprint"], state, log)
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _ready(process: subprocess.Popen[bytes], log: Path, timeout: float = 60) -> dict[str, Any]:
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline and process.poll() is None and process.stdout is not None:
        if select.select([process.stdout], [], [], 0.5)[0]:
            line = process.stdout.readline()
            if line.startswith(b"{"):
                ready: dict[str, Any] = json.loads(line)
                return ready
    raise LabError(f"The server did not start: {log.read_text(errors='replace')[-1000:]}")
