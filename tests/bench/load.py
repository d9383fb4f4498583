"""``python -m tests.bench.load FOLDER SPEED TABLE``: a web server and a database write into FOLDER until killed.

SPEED 1 is real time, 10 a minute's writes in six seconds; TABLE is the database's size in bytes. Says ``ready`` when
the table is there, and begins when it is told to by a line on stdin.
"""

from __future__ import annotations

import contextlib
import itertools
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.bench.trace import MINUTE, Player, Trace


@contextlib.contextmanager
def loaded(folder: Path, speed: float, table: int) -> Iterator[Callable[[], None]]:
    """The load, in a process of its own, for the time of the block; what is given begins it. Raises OSError."""
    words = [sys.executable, "-m", "tests.bench.load", str(folder), str(speed), str(table)]
    with subprocess.Popen(
        words, cwd=Path(__file__).parents[2], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        try:
            assert process.stdin is not None and process.stdout is not None
            told = process.stdin
            if process.stdout.readline() != b"ready\n":
                raise OSError("the load did not start")

            def begin() -> None:
                told.write(b"\n")
                told.flush()

            yield begin
            if process.poll() is not None:
                raise OSError(f"the load ended with {process.returncode} while it was needed")
        finally:
            process.kill()


def main() -> None:
    """Write until killed."""
    player = Player(Path(sys.argv[1]), Trace(table=int(sys.argv[3])))
    player.prepare()
    print("ready", flush=True)
    sys.stdin.readline()
    for number in itertools.count():
        player.play(number, seconds=MINUTE / float(sys.argv[2]))


if __name__ == "__main__":
    main()
