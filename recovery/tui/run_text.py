"""The texts of the Restore screen, from the run's model. Pure."""

from __future__ import annotations

from datetime import datetime

from rich.text import Text

from recovery.events import Progress
from recovery.plan.model import RestorePlan
from recovery.plan.vm import VmPlan
from recovery.tui.describe import short_name
from recovery.tui.glyphs import DONE, FAILED, RUNNING, WAITING
from recovery.tui.graph import bars, rates
from recovery.tui.run_model import RunModel
from recovery.units import format_duration, format_rate, format_size

MARKS = {"waiting": WAITING, "running": RUNNING, "done": DONE, "failed": FAILED}
COLOURS = {"waiting": "", "running": "cyan", "done": "green", "failed": "red"}

#: Columns of the name of one disk, and of its figures (``console.tcss``).
_LABEL = 21
_FIGURES = 26


def cut(line: str, width: int) -> str:
    """One line that fits; what is cut off is marked."""
    return line[: width - 1] + "…" if 3 < width < len(line) else line


def steps_text(model: RunModel, room: int, width: int) -> Text:
    """The steps with their marks; when there are more than ``room`` lines, those around the running one."""
    steps = list(model.steps.values())
    now = next((i for i, step in enumerate(steps) if step.state in ("running", "failed")), None)
    if now is None:
        now = sum(step.state == "done" for step in steps)
    first = max(0, min(now - room // 2, len(steps) - room))
    text = Text()
    for step in steps[first : first + room]:
        took = f"  {format_duration(step.seconds)}" if step.state == "done" else ""
        text.append(cut(f"{MARKS[step.state]} {step.title}{took}", width) + "\n", style=COLOURS[step.state])
    text.rstrip()
    return text


def whole_text(model: RunModel) -> str:
    """Two lines: how far, and what is in the way; where the bytes went. Rate and time left stand beside the bar."""
    total = model.total()
    if total is None:
        return "not begun\n"
    note = total.note if total.done < total.total else model.unfinished
    return (
        f"{format_size(total.done)} of {format_size(total.total)}   retries {total.retries}   {note}".rstrip() + "\n"
        f"transferred {format_size(total.transferred)}   written {format_size(total.written)}   "
        f"skipped {format_size(total.skipped)}"
    )


def now_text(model: RunModel, width: int, now: float) -> Text:
    """What is happening now, and for how long the step has run where that is long; trouble stands out."""
    waited = model.waited(now)
    words = model.now() + (f" (this step: {format_duration(waited)})" if waited else "")
    trouble = words.startswith(("reconnecting", "nothing arrived")) or model.error is not None
    return Text(cut(f"Now: {words}", width), style="yellow" if trouble else "")


def graph_lines(model: RunModel, rows: int, width: int, label: int) -> list[str]:
    """The rate over the whole run so far: its figures at the left (``label`` cells), the graph beside them."""
    found = rates(model.history, width - label)
    if not found:
        return ["Rate"] + [""] * (rows - 1)
    total = model.total()
    now = total.rate if total else 0.0
    # A column of a long run is an average: what is now may be more.
    heads = [f"Rate   {format_rate(now) if total else '-'}", f"most   {format_rate(max(now, *found))}"]
    heads = [head.ljust(label)[:label] for head in heads] + [" " * label] * rows
    return [head + line for head, line in zip(heads, bars(found, rows), strict=False)]


def disk_labels(plan: RestorePlan | VmPlan | None) -> list[tuple[str, str]]:
    """(the disk as its progress calls it, ``disk1 → nvme0n1``) for each bar."""
    if isinstance(plan, VmPlan):
        return [(file.target, cut(f"{file.target} → {file.name}", _LABEL)) for file in plan.files]
    assignments = plan.assignments if plan else ()
    return [(a.source.name, f"{a.source.name} → {short_name(a.target.path)}") for a in assignments]


def disk_figures(progress: Progress | None) -> str:
    """Rate and time left of one disk, or of all."""
    if progress is None:
        return "waiting"
    if progress.done >= progress.total:
        return progress.note or "complete"
    if progress.note:
        return cut(progress.note, _FIGURES)  # all of it stands above, with the whole
    left = f"left {format_duration(progress.eta)}" if progress.eta is not None else ""
    return f"{format_rate(progress.rate)}  {left}"


def log_text(model: RunModel, lines: int, width: int) -> Text:
    """The newest ``lines`` of the log, one line each, warnings and errors coloured."""
    text = Text()
    colours = {"warning": "yellow", "error": "red"}
    for at, level, message in model.log[-lines:]:
        clock = datetime.fromtimestamp(at).strftime("%H:%M:%S")
        line = f"{clock} {message.splitlines()[0] if message else ''}"
        text.append(cut(line, width) + "\n", style=colours.get(level, ""))
    text.rstrip()
    return text
