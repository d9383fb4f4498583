"""The process that thaws guests, whatever becomes of the agent that quiesced them. Stands alone: no imports of ours.

Run as ``python -I -S guestkeeper.py HOLD LATE COMMANDS``; a socket is descriptor 0. A line ``watch NUMBER...`` on it
says which guests may be frozen, all of them until then; ``left NUMBER...`` that the freeze is over and which may be
frozen still; none: it ends. After ``left``, after HOLD seconds, or when the other end is gone it thaws them. COMMANDS
is a JSON array with the words of each guest's thaw; each is run until it has succeeded later than LATE seconds after
that moment: before, a freeze that was under way may come after the thaw.
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
import threading
import time
from pathlib import Path

#: Seconds: how long it goes on trying (as long as Proxmox lets a guest take to freeze), the pause between two tries,
#: at first and after LATE, and what one may take: the first one, for which other guests wait, and a later one
#: (Proxmox' own thaw: three minutes, for a guest's programs are told).
_UNTIL, _PAUSE, _LONG_PAUSE, _FIRST, _PATIENCE = 3600.0, 2.0, 15.0, 20.0, 180.0
#: At once: each is a process of its host, of Proxmox' a large one.
_AT_ONCE = 4


class Keeper:
    """Which guests are ``left``, and a thread for each of them."""

    def __init__(self, commands: list[list[str]], late: float) -> None:
        self.left = set(range(len(commands)))
        self._commands, self._late = commands, late
        self._slots = threading.Semaphore(_AT_ONCE)

    def start(self) -> list[threading.Thread]:
        """Begin to thaw all that are left."""
        threads = [threading.Thread(target=self._thaw, args=(number,)) for number in sorted(self.left)]
        for thread in threads:
            thread.start()
        return threads

    def _thaw(self, number: int) -> None:
        begun = time.monotonic()
        final, patience = begun + self._late, _FIRST
        while number in self.left and time.monotonic() < begun + _UNTIL:
            with self._slots:
                tried = time.monotonic()
                done = attempt(self._commands[number], patience)
            patience = _PATIENCE
            if done and tried >= final:
                return
            if done:
                time.sleep(max(0.0, final - time.monotonic()))
            else:
                time.sleep(_PAUSE if tried < final else _LONG_PAUSE)


def attempt(words: list[str], seconds: float) -> bool:
    """Whether a guest's agent said that it thawed. ``qm`` ends well with an agent's error, too, which it prints."""
    try:
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    except OSError:
        return False
    with contextlib.suppress(OSError):
        Path(f"/proc/{process.pid}/oom_score_adj").write_text("0")
    try:
        said, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):  # it may wait for a disk: nobody waits for it
            process.communicate(timeout=1.0)
        return False
    return process.returncode == 0 and b'"error"' not in said


def heard(line: socket.socket, seconds: float) -> list[tuple[str, set[int]]]:
    """The lines that came in time: a word and the numbers of guests. Raises EOFError when the other end is gone."""
    if not select.select([line], [], [], max(0.0, seconds))[0]:
        return []
    try:
        data = line.recv(65536)
    except OSError:
        data = b""
    if not data.endswith(b"\n"):
        raise EOFError
    lines = [text.split() for text in data.decode().splitlines()]
    return [(word, set(map(int, numbers))) for word, *numbers in lines]


def main() -> None:
    """Wait for the word, the end of the time, or the end of the agent."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("-1000")
    os.chdir("/proc")
    line, keeper = socket.socket(fileno=0), Keeper(json.loads(sys.argv[3]), float(sys.argv[2]))
    line.sendall(b"ready\n")
    deadline, over = time.monotonic() + float(sys.argv[1]), False
    with contextlib.suppress(EOFError):
        while not over and (left := deadline - time.monotonic()) > 0:
            for word, numbers in heard(line, left):
                keeper.left, over = numbers, word == "left"
    threads = keeper.start()
    # Who holds too long may come to it yet: then what it thawed itself is left alone.
    with contextlib.suppress(EOFError):
        while any(thread.is_alive() for thread in threads):
            for _, numbers in heard(line, 1.0):
                keeper.left &= numbers
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
