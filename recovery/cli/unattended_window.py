"""A terminal on which an unattended restore is watched: plain lines, which every serial line shows, and one key."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import termios
import time
import tty
from collections.abc import Iterator

from recovery.cli.console import printable
from recovery.engine.api import EngineApi, Unattended
from recovery.errors import RekindleError

#: Seconds between two looks, and how long the driver may take to say whether it has anything to do.
_LOOK, _BEGIN = 0.25, 90.0


def watch_unattended(engine: EngineApi) -> None:
    """Show it until it has ended or a person wants the console. A key before the first write stops it."""
    shown = Unattended()
    begin = time.monotonic()
    with _keys():
        while True:
            now = engine.unattended()
            if now != shown:
                _show(now)
                shown = now
            if now.phase == "off" and (now.message or time.monotonic() - begin > _BEGIN):
                return
            if now.phase == "countdown":
                left = max(0, round(now.first_write - time.time()))
                _write(f"\r  The first write is in {left:4} s. Press any key to stop.  ")
            if not _pressed(_LOOK):
                continue
            if now.phase in ("preparing", "countdown"):
                stop(engine)
            elif now.phase != "off":
                return


def stop(engine: EngineApi) -> None:
    """A person steps in: the driver does not go on, and a run that counts down ends."""
    engine.unattended(Unattended(phase="stopped", message="A person stopped the unattended restore."))
    with contextlib.suppress(RekindleError):
        engine.cancel()


def _show(now: Unattended) -> None:
    titles = {
        "preparing": "UNATTENDED RESTORE: preparing. Press any key to stop.",
        "countdown": "UNATTENDED RESTORE",
        "running": "UNATTENDED RESTORE: running. Press any key for the console; the restore goes on.",
        "done": "UNATTENDED RESTORE: done. Press any key for the console.",
        "refused": "UNATTENDED RESTORE: REFUSED. Press any key for the console.",
        "stopped": "UNATTENDED RESTORE: stopped. Press any key for the console.",
        "failed": "UNATTENDED RESTORE: FAILED. Press any key for the console.",
    }
    if now.phase in titles:
        lines = [titles[now.phase], f"  {now.message}", *(f"  - {reason}" for reason in now.reasons)]
        _write("".join(f"\r\n{printable(line)}" for line in lines) + "\r\n")


def _write(text: str) -> None:
    with contextlib.suppress(OSError):
        sys.stdout.write(text)
        sys.stdout.flush()


def _pressed(seconds: float) -> bool:
    ready, _, _ = select.select([0], [], [], seconds)
    return bool(ready) and bool(os.read(0, 1024))


@contextlib.contextmanager
def _keys() -> Iterator[None]:
    """Keys come one by one and are not echoed. What was typed before is forgotten: nobody meant this question."""
    before = termios.tcgetattr(0)
    tty.setcbreak(0)
    termios.tcflush(0, termios.TCIFLUSH)
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)
