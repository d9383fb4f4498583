"""The report of a run as the Result screen shows it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.text import Text

from recovery.engine.api import DiskReport, Report, VmReport
from recovery.plan.model import Problem
from recovery.tui.describe import hang, moment, short_name
from recovery.tui.glyphs import DONE, FAILED
from recovery.units import format_count, format_duration, format_rate, format_size

#: Warnings of the plan that are about the host's start, by code; the others were about what the restore would do.
_STARTING = frozenset({
    "duplicate-uuid", "firmware-unknown", "secure-boot-on", "md-degraded", "md-incomplete", "luks-not-adapted",
    "windows-driver-missing", "windows-usb", "windows-registry", "windows-firmware", "windows-bitlocker",
    "vm-virtualization", "vm-processor", "vm-memory", "vm-pinned", "vm-passthrough",
})  # fmt: skip


def before_start(problems: Iterable[Problem]) -> list[str]:
    """What the plan's warnings want done before or when the restored host starts, a sentence or two each."""
    wanted = [problem for problem in problems if problem.severity == "warning" and problem.code in _STARTING]
    return [f"{problem.what} {problem.todo}" for problem in wanted]


def report_text(report: Report, titles: dict[str, str], width: int, todo: Sequence[str] = ()) -> Text:
    """Warnings first, and what is ``todo`` before the host starts; then what came back, changes and times. ``titles``:
    step -> its title."""
    text = Text()
    if todo:
        text.append("Before the host is started\n", style="bold yellow")
        for number, sentence in enumerate(todo, 1):
            text.append(hang(f"  {number}. {sentence}", width, 3) + "\n", style="yellow")
    for warning in report.warnings:
        text.append(hang(f"Warning: {warning}", width) + "\n", style="yellow")
    took = f"in {format_duration(report.finished - report.started)}, ended {moment(report.finished)}"
    text.append(hang(f"{_subject(report)}, {took}", width) + "\n")
    if report.vm is not None:
        _files(text, report.vm, width)
    if len(report.disks) > 1:
        sums = [sum(getattr(disk, name) for disk in report.disks) for name in ("logical", "transferred", "written")]
        whole, transferred, written = map(format_size, sums)
        text.append(f"{len(report.disks)} disks, {whole}: transferred {transferred}, written {written}\n")
    for disk in report.disks:
        _disk(text, disk, width)
    if report.changes:
        text.append("\nChanged so that it boots here\n", style="bold")
        for change in report.changes:
            text.append(hang(f"  {change}", width) + "\n")
    if report.steps:
        text.append("\nSteps\n", style="bold")
        for step, seconds in report.steps:
            text.append(f"  {format_duration(seconds):>7}  {titles.get(step, step)}\n")
    if report.log_path:
        text.append(f"\nLog: {report.log_path}\n")
    return text


def _subject(report: Report) -> str:
    if not report.point:
        return "Boot of this machine's disks"
    vm = f"{report.vm.name} of " if report.vm else ""
    return f"{vm}{report.host} as of {moment(report.point_created)}"


def _disk(text: Text, disk: DiskReport, width: int) -> None:
    rate = format_rate(disk.logical / disk.seconds) if disk.seconds > 0 else "-"
    text.append(f"\n{disk.disk} → {short_name(disk.target)}: {format_size(disk.logical)}, {rate}\n", style="bold")
    text.append(
        f"  transferred {format_size(disk.transferred)}, written {format_size(disk.written)}, "
        f"zeroed {format_size(disk.zeroed)}, skipped {format_size(disk.skipped)}\n"
    )
    good = disk.verified and not disk.damaged
    text.append(hang(f"  {disk.verdict()}", width) + "\n", style="green" if good else "yellow")
    for damage in disk.damaged:
        text.append(hang(f"  lost: {damage.place()}", width) + "\n", style="red")
    if disk.root and not disk.root_matched and not disk.damaged:
        text.append(f"  every byte was checked as it came, by the signed root {disk.root[:16]}...\n")


def _files(text: Text, vm: VmReport, width: int) -> None:
    text.append(hang(f"In {vm.place}:", width) + "\n")
    for file in vm.files:
        rate = format_rate(file.size / file.seconds) if file.seconds > 0 else "-"
        text.append(f"\n{file.target} → {file.path}\n", style="bold")
        text.append(
            f"  {format_size(file.size)} {file.format}, of which content {format_size(file.written)}, {rate}\n"
        )
        text.append(hang(f"  was {file.source}", width) + "\n")
        for offset, length in file.damaged:
            text.append(f"  lost: byte {offset}: {format_count(length, 'byte')}\n", style="red")
    if vm.definition:
        text.append(f"\ndefinition → {vm.definition}\n", style="bold")
    text.append("\nWhat to do next\n", style="bold")
    for number, sentence in enumerate(next_steps(vm), 1):
        text.append(hang(f"  {number}. {sentence}", width, 3) + "\n")


def next_steps(vm: VmReport) -> list[str]:
    """How the files become a running VM again, one sentence each."""
    steps = []
    if vm.device:
        steps.append(
            f"{vm.place.rpartition(' on ')[2]} is unmounted: take its disk to the host that shall run the VM."
        )
    copied = [file for file in vm.files if not file.source.startswith("/dev/")]
    volumes = [file for file in vm.files if file.source.startswith("/dev/")]
    if copied:
        there = ", ".join(f"{short_name(file.path)} as {file.source}" for file in copied)
        steps.append(f"Put {there}, or anywhere, with that path in the definition.")
    for file in volumes:
        name = short_name(file.path)
        steps.append(f"For a volume as before: qemu-img convert -n -O raw {name} {file.source}; or use the file.")
    if vm.definition:
        name = short_name(vm.definition)
        steps.append(f"virsh define {name}, then virsh start {vm.name}. The same VM must not run elsewhere.")
    else:
        steps.append("Define a VM with these disks (virt-install --import): its definition is not in the point.")
    return steps


def verdict(report: Report, todo: int = 0) -> str:
    """One sentence: complete or not, how many warnings, and how much is to do before the host starts."""
    what = "restore" if report.point else "repair"
    but = " except for what was lost" if report.damaged else ""
    count = len(report.warnings)
    warnings = f", with {format_count(count, 'warning')}" if count else ""
    first = f"; {format_count(todo, 'thing')} to do first" if todo else ""
    return f"{FAILED if but else DONE} The {what} is complete{but}{warnings}{first}."
