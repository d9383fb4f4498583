"""``scripts/bench``: measure, side by side in one run, and put the goals beside what was reached."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from recovery.errors import RekindleError
from tests.bench import document, place
from tests.bench.bench import Bench
from tests.bench.data import cache_folder
from tests.bench.live_scale import TINY, LiveScale
from tests.bench.model import Row, Run
from tests.bench.peers import PACKAGES, missing
from tests.bench.rows_capture import capture, unchanged
from tests.bench.rows_live import capture_live
from tests.bench.rows_network import network
from tests.bench.rows_partial import delta, resume
from tests.bench.rows_restore import incompressible, restore, restore_host
from tests.bench.rows_scale import fragmented, scale

ROWS: dict[str, Callable[[Bench], Row]] = {
    "restore": restore,
    "restore-host": restore_host,
    "network": network,
    "incompressible": incompressible,
    "delta": delta,
    "resume": resume,
    "scale": scale,
    "fragmented": fragmented,
    "capture": capture,
    "unchanged": unchanged,
    "capture-live": capture_live,
}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="scripts/bench", formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Measure, side by side in one run: contestants take turns, and every sample is kept.",
        epilog="rows: " + ", ".join(ROWS) + "\n'scripts/bench table FILE' prints the table of a run's JSON again.",
    )  # fmt: skip
    made.add_argument("rows", nargs="*", metavar="ROW", help="which rows (default: all)")
    made.add_argument("--json", metavar="FILE", help="write every sample to this file ('-': stdout)")
    made.add_argument("--write-docs", action="store_true", help="put the figures into docs/performance.md and .json")
    made.add_argument("--samples", type=int, default=3, help="turns (default 3)")
    made.add_argument("--data", type=Path, default=cache_folder(), help="prepared data (default: %(default)s)")
    made.add_argument(
        "--results", type=Path, metavar="DIR",
        help="where everybody writes (default: beside the data); a tmpfs takes the disk's speed out of the figures",
    )  # fmt: skip
    made.add_argument("--from", dest="source", type=Path, default=Path("/usr"), help="whose files fill the disk")
    made.add_argument("--ours", action="store_true", help="without the other programs: quick, while working on speed")
    made.add_argument("--install", action="store_true", help="install the other programs from Debian, and end")
    made.add_argument("--smoke", action="store_true", help="64 MiB: only to see that the bench itself works")
    live, usual = made.add_argument_group("capture-live"), LiveScale()
    live.add_argument("--pairs", type=int, default=usual.pairs, help="turns of fio (default %(default)s)")
    live.add_argument("--seconds", type=float, default=usual.seconds, help="of each of them (default %(default)s)")
    live.add_argument("--interval", type=float, default=usual.interval,
                      help="seconds between points under fio (default %(default)s)")  # fmt: skip
    live.add_argument("--freezes", type=int, default=usual.freezes,
                      help="points of each busy filesystem (default %(default)s)")  # fmt: skip
    live.add_argument("--points", type=int, default=usual.points,
                      help="points that must be prefixes (default %(default)s)")  # fmt: skip
    return made


def live_scale(arguments: argparse.Namespace) -> LiveScale:
    """How much of everything the row capture-live takes."""
    if arguments.smoke:
        return TINY
    return LiveScale(
        pairs=arguments.pairs, seconds=arguments.seconds, interval=arguments.interval, freezes=arguments.freezes,
        points=arguments.points,
    )  # fmt: skip


def main() -> None:
    """Run the rows; exit code 1 when one of them could not be measured."""
    if sys.argv[1:2] == ["table"]:
        for path in sys.argv[2:]:
            print(document.table(document.load(Path(path))))
        return
    arguments = parser().parse_args()
    if unknown := [name for name in arguments.rows if name not in ROWS]:
        sys.exit(f"There is no row {', '.join(unknown)}. Rows: {', '.join(ROWS)}.")
    if arguments.install:
        install()
        return
    if lacking := missing(*PACKAGES):
        say(f"Not installed, so not measured: {' '.join(lacking)}. 'scripts/bench --install' installs them.")
    # So that servers, loop devices and what was written go when the bench is stopped.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    bench = Bench(
        arguments.data,
        arguments.samples,
        say,
        arguments.smoke,
        not arguments.ours,
        arguments.source,
        arguments.results,
        live_scale(arguments),
    )
    run = place.begin(sys.argv[1:], arguments.results or arguments.data)
    for name in arguments.rows or ROWS:
        run.rows.append(measured(name, bench))
        write(run, arguments)
    # Where the JSON goes to stdout, people read on stderr.
    print(document.table(run), file=sys.stderr if arguments.json == "-" else sys.stdout)
    if any(row.error for row in run.rows):
        sys.exit(1)


def measured(name: str, bench: Bench) -> Row:
    """The row, or why there is none: one that fails must not cost the others."""
    say(f"{name}")
    begin = time.monotonic()
    try:
        row = ROWS[name](bench)
    except (RekindleError, OSError, subprocess.SubprocessError, ValueError) as error:
        traceback.print_exc()
        row = Row(name=name, title=name, error=getattr(error, "message", "") or repr(error))
    row.seconds = time.monotonic() - begin
    return row


def write(run: Run, arguments: argparse.Namespace) -> None:
    """The JSON, after each row: what was measured is not lost when a later one is stopped."""
    if arguments.write_docs:
        document.write_docs(run)
    if arguments.json == "-":
        if len(run.rows) == len(arguments.rows or ROWS):
            sys.stdout.write(document.encode(run).decode())
    elif arguments.json:
        Path(arguments.json).write_bytes(document.encode(run))


def install() -> None:
    """The other programs, from the machine's own Debian mirror."""
    lacking = missing(*PACKAGES)
    if lacking:
        sudo = [] if os.geteuid() == 0 else ["sudo"]
        apt = [*sudo, "apt-get", "-o", "DPkg::Lock::Timeout=300"]
        for words in (["update", "-q"], ["install", "-q", "-y", "--no-install-recommends", *lacking]):
            if subprocess.run([*apt, *words]).returncode:
                sys.exit("apt-get failed, see above: is this machine's Debian mirror reachable?")
    say("Everything is installed." if all(map(shutil.which, PACKAGES.values())) else "Something is still missing.")


def say(text: str) -> None:
    """Progress, for people."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
