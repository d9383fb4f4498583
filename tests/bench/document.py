"""A run as Markdown, and as the figures of ``docs/performance.md``."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from recovery.errors import UsageError
from tests.bench.model import Goal, Measured, Row, Run

DOCS = Path(__file__).parents[2] / "docs"
BEGIN, END = "<!-- figures: written by scripts/bench --write-docs -->", "<!-- end of figures -->"
#: Samples of a contestant in the table; with more of them it would be a table of nothing else.
_MOST_SHOWN = 20
#: Figures that are bytes.
_BYTES = ("transferred", "changed", "remaining", "stored", "peak_rss", "written", "skipped", "frame_bytes", "read",
          "remainder", "tracker_memory", "maps_of_the_kernel", "process_beside_them")  # fmt: skip


def encode(run: Run) -> bytes:
    """The JSON of a run."""
    return msgspec.json.format(msgspec.json.encode(run), indent=1) + b"\n"


def load(path: Path) -> Run:
    """A run from its JSON. Raises UsageError."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Run)
    except (OSError, msgspec.MsgspecError) as error:
        raise UsageError(f"'{path}' has no figures of the bench: {error}.") from error


def table(run: Run) -> str:
    """Everything as Markdown: the machine, the goals, then each row."""
    machine = ", ".join(f"{name} {value}" for name, value in run.machine.items())
    programs = ", ".join(f"{name} {version}" for name, version in run.programs.items())
    lines = [
        f"Measured {run.started} at {run.commit} by `{run.command}`.",
        f"Machine: {machine}.",
        f"Peers: {programs}.",
        "",
        *_goals(run.rows),
    ]
    for row in run.rows:
        lines += ["", *_row(row)]
    return "\n".join(lines) + "\n"


def write_docs(run: Run, docs: Path = DOCS) -> None:
    """Put the run into ``performance.json`` and its table into ``performance.md``. Rows that were not measured now
    keep their figures from before, marked with when those were taken."""
    store = docs / "performance.json"
    if store.exists():
        now = {row.name for row in run.rows}
        before = load(store)
        kept = [row for row in before.rows if row.name not in now]
        for row in kept:
            mark = f"Measured {before.started} at {before.commit}, in another run."
            row.notes = [*row.notes, *([] if any("in another run" in note for note in row.notes) else [mark])]
        order = [row.name for row in before.rows]
        rows = sorted([*run.rows, *kept], key=lambda row: order.index(row.name) if row.name in order else len(order))
        run = msgspec.structs.replace(run, rows=rows)
    page = docs / "performance.md"
    text = page.read_text()
    if BEGIN not in text or END not in text:
        raise UsageError(f"{page} has no place for the figures.", hint=f"It needs the lines '{BEGIN}' and '{END}'.")
    head, tail = text.partition(BEGIN)[0], text.partition(END)[2]
    store.write_bytes(encode(run))
    page.write_text(f"{head}{BEGIN}\n{table(run)}{END}{tail}")


def _goals(rows: Sequence[Row]) -> Iterator[str]:
    yield from ("| row | goal | reached | |", "|---|---|---|---|")
    for row in rows:
        if row.error:
            yield f"| {row.name} | | not measured: {_cell(row.error)} | **NOT MET** |"
        for goal in row.goals:
            yield _goal(row.name, goal)


def _goal(row: str, goal: Goal) -> str:
    sign = "≤" if goal.at_most else "≥"
    reached = "not measured" if goal.measured is None else f"{_figure(goal.measured)}{goal.unit}"
    verdict = "met" if goal.met else "**NOT MET**"
    return f"| {row} | {_cell(goal.what)}: {sign} {goal.wanted:g}{goal.unit} | {reached} | {verdict} |"


def _row(row: Row) -> Iterator[str]:
    yield from (f"### {row.name}: {row.title}", "")
    if row.error:
        yield f"Not measured: {row.error}"
        return
    if row.data:
        yield from (f"{row.data}. The row took {row.seconds:.0f} s.", "")
    reference = next((one for one in row.contestants if one.name.startswith("rekindle") and one.samples), None)
    yield "| | seconds | MB/s | CPU-s | server CPU-s | spread | to ours | every sample, s |"
    yield "|---|---|---|---|---|---|---|---|"
    for one in row.contestants:
        yield _contestant(one, reference)
    yield ""
    yield from _details(row)
    for note in row.notes:
        yield f"- {note}"


def _contestant(one: Measured, reference: Measured | None) -> str:
    if not one.samples:
        return f"| {_cell(one.name)} | | | | | | | {_cell(one.error) or 'nothing'} |"
    rate = f"{one.rate / 1e6:.0f}" if one.work else ""
    server = _figure(one.median("server_cpu")) if one.median("server_cpu") else ""
    ratio = f"{one.seconds / reference.seconds:.2f}" if reference else ""
    every = " ".join(f"{sample.seconds:.2f}" for sample in one.samples)
    if len(one.samples) > _MOST_SHOWN:
        every = f"{len(one.samples)} samples, in the JSON"
    every += f" then: {one.error}" if one.error else ""
    checked = " ✓" if one.checked else ""
    return (
        f"| {_cell(one.name)}{checked} | {_figure(one.seconds)} | {rate} | {_figure(one.median('cpu'))} | {server} | "
        f"{one.spread * 100:.0f} % | {ratio} | {every} |"
    )


def _details(row: Row) -> Iterator[str]:
    for one in row.contestants:
        names = tuple(one.samples[0].figures) if one.samples else ()
        if names:
            told = ", ".join(f"{name.replace('_', ' ')} {_amount(name, one.median(name))}" for name in names)
            yield f"- {one.name}: {told}"
        if one.command and not one.name.startswith(("rekindle", "limit")):
            yield f"- {one.name}: `{one.command}`"
        for command, samples in one.others.items():
            yield f"- slower: `{command}`: {' '.join(f'{sample.seconds:.2f}' for sample in samples)} s"


def _cell(text: str) -> str:
    """Text that does not end its cell."""
    return " ".join(text.split()).replace("|", "\\|")


def _amount(name: str, value: float) -> str:
    return f"{value / 2**20:,.0f} MiB" if name in _BYTES else _figure(value)


def _figure(value: float) -> str:
    """Three significant figures."""
    if math.isnan(value):
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
