"""The command line as a process of this checkout."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support.fault_world import HOST, SIZE, FaultWorld
from tests.support.repositories import PASSPHRASE
from tests.support.server import PASSWORD

ROOT = Path(__file__).resolve().parents[2]


def environment(folder: Path) -> dict[str, str]:
    """Variables that make ``python -m recovery.cli.main`` run this checkout and keep its state in ``folder``."""
    places = os.pathsep.join(str(ROOT / part) for part in ("", "server-stub", "image-build"))
    return {**os.environ, "PYTHONPATH": places, "XDG_STATE_HOME": str(folder / "state")}


def rekindle(*words: str) -> list[str]:
    """The arguments of a process that does ``rekindle WORDS``."""
    return [sys.executable, "-m", "recovery.cli.main", *words]


def restore_arguments(world: FaultWorld, folder: Path, url: str, out: Path, *more: str) -> list[str]:
    """``rekindle restore`` of disk1 from ``url`` onto ``out``, with the secrets in files of ``folder``."""
    world.rig.session("restore")  # makes the user
    for name, secret in (("secret", PASSPHRASE), ("password", PASSWORD)):
        (folder / name).write_text(secret)
    return rekindle(
        "restore", url, "--host", HOST, "--target", f"disk1={out}", "--confirm", f"disk1={SIZE}", "--user", "restore",
        "--password-file", str(folder / "password"), "--secret-file", str(folder / "secret"), *more,
    )  # fmt: skip


def restore_process(
    world: FaultWorld, folder: Path, url: str, out: Path, *more: str, env: dict[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """That, running; its JSON lines go to ``folder / "told"``, what it says for people to ``folder / "errors"``."""
    arguments = restore_arguments(world, folder, url, out, "--json", *more)
    with (folder / "told").open("wb") as told, (folder / "errors").open("wb") as errors:
        return subprocess.Popen(
            arguments, env=environment(folder) | (env or {}), stdin=subprocess.DEVNULL, stdout=told, stderr=errors,
            cwd=folder,
        )  # fmt: skip
