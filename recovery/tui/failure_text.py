"""The report of a run that did not come to its end: why, what the disks are like, and how to go on. Pure."""

from __future__ import annotations

from rich.text import Text

from recovery.engine.api import Report
from recovery.plan.vm import VmPlan
from recovery.tui.describe import hang, short_name
from recovery.tui.glyphs import FAILED
from recovery.tui.run_model import RunModel
from recovery.tui.run_text import log_text, steps_text
from recovery.units import format_size

#: Lines of the log at the end.
_LOG = 12


def damaged(model: RunModel) -> bool:
    """It stopped because no copy of the repository that was asked has some content right."""
    return model.error is not None and model.error.kind == "IntegrityError"


def failure_verdict(model: RunModel) -> str:
    """One sentence."""
    stopped = model.error is not None and model.error.kind == "CancelledError"
    return f"{FAILED} The {model.noun} {'was stopped' if stopped else 'failed'}. Nothing else will be written."


def failure_text(model: RunModel, report: Report | None, width: int) -> Text:
    """All of it, wrapped to ``width``; ``report`` is that of the run, where there is one."""
    text = Text()
    if model.error is not None:
        text.append(hang(model.error.message, width, 0) + "\n", style="bold red")
        if model.error.hint:
            text.append(hang(f"To do: {model.error.hint}", width) + "\n")
    if report is not None:
        _state(text, model, report, width)
    text.append("\nHow to go on\n", style="bold")
    for name, words in _ways(model):
        text.append(hang(f"  {name:<15} {words}", width, 16) + "\n")
    if report is not None and report.go_on:
        text.append(hang("  In a shell (F2), with how you sign in:", width) + "\n")
        text.append(hang(f"    {report.go_on}", width, 2) + "\n", style="cyan")
    text.append("\nSteps\n", style="bold")
    text.append(steps_text(model, max(1, len(model.steps)), width))
    text.append("\n\nLog\n", style="bold")
    text.append(log_text(model, _LOG, width))
    if report is not None and report.log_path:
        text.append(f"\n\nAll of it: {report.log_path}\n")
    return text


def _state(text: Text, model: RunModel, report: Report, width: int) -> None:
    if isinstance(model.plan, VmPlan):
        made = bool(report.vm and report.vm.files)
        what = f"The files are in {report.vm.place}." if made and report.vm else "No file was left behind."
        text.append(f"\n{what}\n")
        return
    if not report.incomplete and not report.disks:
        text.append("\nNo disk was written to.\n")
    for path in report.incomplete:
        line = f"{short_name(path)} is not complete: without partition table and boot sector, it does not boot."
        text.append("\n" + hang(line, width) + "\n", style="yellow")
    for disk in report.disks:
        line = f"{disk.disk} → {short_name(disk.target)} is restored: {format_size(disk.logical)}, {disk.verdict()}"
        text.append("\n" + hang(line, width) + "\n", style="green")


def _ways(model: RunModel) -> list[tuple[str, str]]:
    files = isinstance(model.plan, VmPlan)
    again = "plans again and begins anew." if files else "plans again and goes on: what is right already stays."
    ways = [("Retry", again)]
    if damaged(model):
        ways += [
            ("Another copy", "a second copy of the repository, on a disk or a server, is asked for what is damaged."),
            ("Skip damaged", "puts zeros where no copy has the content, and lists those places. Only if you say so."),
        ]
    ways.append(("Change the plan", "choose differently."))
    return ways
