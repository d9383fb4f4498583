"""``scripts/matrix``: run cells of the hardware matrix, and write what became of them."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click

from recovery.errors import RekindleError, UsageError
from recovery.units import format_duration
from tests.e2e.lab.accel import best_acceleration
from tests.e2e.lab.medium_shell import CACHE, medium_files
from tests.e2e.lab.qemu import LabError
from tests.e2e.lab.server import CHECKOUT
from tests.e2e.matrix import catalogue, report, results
from tests.e2e.matrix.model import Cell
from tests.e2e.matrix.ready import ready
from tests.e2e.matrix.results import PROMISES_BROKEN, Result, Store
from tests.e2e.matrix.runner import World, run_cell

PAGE = CHECKOUT / "docs/hardware-matrix.md"
PUBLISHED = CHECKOUT / "docs/hardware-matrix.json"


@click.command()
@click.option("--list", "only_list", is_flag=True, help="Name the cells and what became of them.")
@click.option("--all", "everything", is_flag=True, help="The product of all axes instead of pairwise (thousands).")
@click.option("--cell", "names", multiple=True, metavar="NAME", help="This cell; any that --list could name.")
@click.option("--source", "sources", multiple=True, metavar="NAME", help="Only cells of this source.")
@click.option("--shard", default="1/1", metavar="I/N", help="The I-th of N parts of the cells.")
@click.option("--most", type=click.IntRange(1), help="Stop after so many cells.")
@click.option("--jobs", type=click.IntRange(1), help="Cells at once; the cores are the default and the most.")
@click.option("--again", is_flag=True, help="Also cells that have a result with this code.")
@click.option("--inside", is_flag=True, help="Restore on the medium in QEMU, not outside onto the image file.")
@click.option("--prepare", is_flag=True, help="Only build, boot and capture the sources.")
@click.option("--keep", is_flag=True, help="Keep the folder of a cell that does not boot.")
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="All results, as JSON.")
@click.option("--write-docs", is_flag=True, help=f"Write docs/{PAGE.name} and {PUBLISHED.name} from all results.")
def main(
    only_list: bool,
    everything: bool,
    names: tuple[str, ...],
    sources: tuple[str, ...],
    shard: str,
    most: int | None,
    jobs: int | None,
    again: bool,
    inside: bool,
    prepare: bool,
    keep: bool,
    json_file: Path | None,
    write_docs: bool,
) -> None:
    """Boot captured systems on machines they did not come from: every pair of axes once (--list counts the cells).

    Results accumulate in the cache, by the content of the code that decides them: run it again and it goes on. Root.
    Exit code 1: a cell that was planned fine did not boot.
    """
    try:
        store = Store(CACHE, PUBLISHED)
        chosen = choose(everything=everything, names=names, sources=sources, shard=shard)
        if only_list:
            _list(chosen, store)
            return
        made: list[Result] = []
        if not (write_docs or json_file) or names or most or prepare:
            made = _work(chosen, store, prepare=prepare, most=most, jobs=jobs, again=again, inside=inside, keep=keep)
        if json_file:
            results.write(json_file, store.all().values())
        if write_docs:
            write_pages(store)
    except (RekindleError, LabError) as error:
        raise SystemExit(f"matrix: {getattr(error, 'message', error)} {getattr(error, 'hint', '')}".rstrip()) from None
    if any(result.status in (*PROMISES_BROKEN, "lab-failed") for result in made):
        raise SystemExit(1)


def choose(
    *, everything: bool = False, names: Sequence[str] = (), sources: Sequence[str] = (), shard: str = "1/1"
) -> list[Cell]:
    """The cells that are meant. Raises UsageError."""
    if names:
        cells = []
        for name in names:
            cell = catalogue.parse_name(name)
            if cell is None:
                raise UsageError(f"There is no cell '{name}'.", hint="'scripts/matrix --list' names them.")
            cells.append(cell)
    else:
        cells = list(catalogue.cells(everything=everything).values())
    if unknown := sorted(set(sources) - set(catalogue.SOURCES)):
        raise UsageError(f"There is no source '{unknown[0]}'.", hint=f"There are {', '.join(catalogue.SOURCES)}.")
    match = re.fullmatch(r"(\d+)/(\d+)", shard)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise UsageError(f"'{shard}' is no shard.", hint="Write --shard 2/5 for the second of five.")
    # Dealt out like cards: each shard has cells of every source.
    dealt = cells[int(match[1]) - 1 :: int(match[2])]
    return [cell for cell in dealt if not sources or cell.source in sources]


def _list(cells: Sequence[Cell], store: Store) -> None:
    code, found = results.code_key(), store.all()
    for cell in cells:
        result = found.get(cell.name)
        state = "" if result is None else result.status + ("" if result.code == code else " (earlier code)")
        click.echo(f"{cell.name:75} {state}".rstrip())
    click.echo(f"{len(cells)} cells", err=True)


def _work(
    cells: Sequence[Cell], store: Store, *, prepare: bool, most: int | None, jobs: int | None, again: bool,
    inside: bool, keep: bool,
) -> list[Result]:  # fmt: skip
    if os.geteuid() != 0:
        raise UsageError("Building systems needs root.", hint="Run it with sudo.")
    code = results.code_key()
    waiting = [cell for cell in cells if again or store.done(cell, code) is None][:most]
    say(f"{len(cells)} cells, {len(waiting)} of them to do")
    if not waiting:
        return []
    files = medium_files(_quiet)
    accel = best_acceleration(files.kernel)
    scratch = CACHE / "matrix/run"
    world = World(CACHE, scratch, files, accel, keep=keep, inside=inside)
    at_once = min(jobs or os.cpu_count() or 1, os.cpu_count() or 1)
    if prepare:
        with ThreadPoolExecutor(at_once) as pool:
            names = dict.fromkeys(cell.source for cell in waiting)
            list(pool.map(lambda name: ready(catalogue.SOURCES[name], CACHE, accel, say), names))
        return []

    try:
        made = run_cells(waiting, world, store, jobs=at_once)
    finally:
        # Each cell has cleared its folder; another run's may be there.
        with contextlib.suppress(OSError):
            scratch.rmdir()
    count = report.counts(made)
    broken = sum(count[status] for status in PROMISES_BROKEN)
    say(f"{count['booted']} booted, {count['refused']} refused by the plan, planned fine but did not boot: {broken}")
    return made


def run_cells(cells: Sequence[Cell], world: World, store: Store, *, jobs: int) -> list[Result]:
    """Run cells, ``jobs`` at once, and keep each result as soon as it is there."""

    def one(cell: Cell) -> Result:
        result = run_cell(cell, world, say)
        store.put(result)
        say(f"{cell.name}: {result.status} in {format_duration(result.total)} {result.reason[:300]}".rstrip())
        return result

    with ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(one, cells))


def write_pages(store: Store) -> None:
    """The table in docs/, and all results beside it."""
    found = store.all()
    PAGE.write_text(report.markdown(found, catalogue.cells(), results.code_key()))
    results.write(PUBLISHED, found.values())
    say(f"{PAGE} and {PUBLISHED}: {len(found)} results")


_START = time.monotonic()
_LOCK = threading.Lock()


def say(text: str) -> None:
    """A line with the time since the start."""
    with _LOCK:
        sys.stderr.write(f"{format_duration(time.monotonic() - _START):>8}  {text}\n")


def _quiet(text: str) -> None:
    if not text.startswith("{"):
        say(text)


if __name__ == "__main__":
    main()
