"""The process that thaws guests, whatever becomes of the agent that quiesced them. Stands alone: no imports of ours.

Run as ``python -I -S guestkeeper.py SECONDS COMMANDS``; a socket is descriptor 0. A line ``done`` on it says that all
is thawed. Without it, after SECONDS, or when the other end is gone, the commands are run until each has succeeded: the
words of one for each guest that may be frozen, a JSON array of arrays.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

#: Seconds: how long it goes on trying, since an agent that hangs may freeze its guest when it wakes up; the pause
#: between two tries, and what one may take.
_UNTIL, _PAUSE, _PATIENCE = 600.0, 2.0, 10.0


def thaw(commands: list[list[str]]) -> None:
    """Thaw all guests at once, each until its agent said that it did."""
    left, give_up = list(commands), time.monotonic() + _UNTIL
    while left and time.monotonic() < give_up:
        running: list[tuple[list[str], subprocess.Popen[bytes]]] = []
        for words in left:
            with contextlib.suppress(OSError):
                quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
                running.append((words, subprocess.Popen(words, **quiet)))  # type: ignore[call-overload]
        end = time.monotonic() + _PATIENCE
        for words, process in running:
            try:
                if process.wait(max(0.0, end - time.monotonic())) == 0:
                    left.remove(words)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if left:
            time.sleep(_PAUSE)


def main() -> None:
    """Wait for the word, the end of the time, or the end of the agent."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("-1000")
    os.chdir("/proc")
    line, deadline = socket.socket(fileno=0), time.monotonic() + float(sys.argv[1])
    line.sendall(b"ready\n")
    readable, _, _ = select.select([line], [], [], max(0.0, deadline - time.monotonic()))
    heard = b""
    if readable:
        with contextlib.suppress(OSError):
            heard = line.recv(64)
    if heard != b"done\n":
        thaw(json.loads(sys.argv[2]))


if __name__ == "__main__":
    main()
