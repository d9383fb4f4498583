"""One run of a plan: its steps in order, each told as events, and an honest report at the end."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import msgspec

from recovery.adapt.land import converted, extents, landed, moved
from recovery.adapt.luks import Passphrases
from recovery.adapt.run import AdaptRequest, adapt
from recovery.adapt.stack import NOTHING
from recovery.engine import targets
from recovery.engine.again import command
from recovery.engine.api import Report
from recovery.engine.claims import Claims
from recovery.engine.landing import land
from recovery.errors import BusyError, CancelledError, DeviceError, UsageError
from recovery.events import Event, Listener, Message, StepFinished, StepStarted
from recovery.format.point import Point
from recovery.machine.model import Machine
from recovery.plan.growth import places_of
from recovery.plan.model import DiskAssignment, RestorePlan
from recovery.repository.failover import copies_of, location_of
from recovery.repository.repository import Repository
from recovery.restore.disk import RestoreOptions, restore_disk
from recovery.restore.report import DiskReport
from recovery.units import format_count, format_duration, format_rate, format_size

#: The step before the first, when there is time for a person to stop the run.
COUNTDOWN = "countdown"


@dataclass
class Run:
    """Everything a run needs; a repair needs no ``repository``.

    ``probe`` looks at the machine anew; ``listener`` hears every event but RunFinished.
    """

    plan: RestorePlan
    point: Point
    repository: Repository | None
    probe: Callable[[], Machine]
    listener: Listener
    cancel: threading.Event
    log_path: str = ""
    countdown: int = 0
    passphrases: Passphrases = NOTHING
    started: float = field(default_factory=time.time)
    begun: list[str] = field(default_factory=list)
    disks: list[DiskReport] = field(default_factory=list)
    ended: bool = False
    steps: list[tuple[str, float]] = field(default_factory=list)
    changes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def execute(self) -> Report:
        """Run all steps. Raises what stops it; nothing is written before the targets were looked at once more."""
        try:
            return self._execute()
        except BaseException:
            self._tell_how_to_go_on()
            raise

    def _execute(self) -> Report:
        if self.countdown:
            self._count_down()
        with Claims(self.plan) as claims:
            machine = self._open(claims)
            for assignment in self.plan.assignments if self.plan.choices.restore else ():
                self._stop_if_cancelled()
                self._restore(assignment, claims)
            self._stop_if_cancelled()
            claims.release_all()
            self._make_it_boot(machine)
        with self._step("prove") as done:
            done(self._proof())
        self.ended = True
        return self.report()

    def _tell_how_to_go_on(self) -> None:
        """For the log only: windows show it from the report, each with what it knows of the way to sign in, and said
        to them here as well it would stand there twice. A listener that fails must not hide why the run did."""
        found = self.report()
        if not found.go_on:
            return
        left = ", ".join(found.incomplete)
        state = f"{left}: not complete, without partition table and boot sector. " if left else ""
        text = f"{state}To go on: {found.go_on}"
        with contextlib.suppress(Exception):
            self.listener(Message(level="debug", text=text))

    def _count_down(self) -> None:
        """Time for a person to step in, seen in every window."""
        title = f"The first write is in {self.countdown} seconds; stopping the run now leaves everything as it is"
        self.listener(StepStarted(step=COUNTDOWN, title=title))
        for left in range(self.countdown, 0, -1):
            if left != self.countdown and (left % 10 == 0 or left <= 5):
                self.listener(Message(text=f"The first write is in {left} s.", level="warning", step=COUNTDOWN))
            if self.cancel.wait(1.0):
                raise CancelledError("The run was stopped before the first write. Nothing was written.")
        self.listener(StepFinished(step=COUNTDOWN, summary="Nobody stopped it.", seconds=float(self.countdown)))

    def _make_it_boot(self, machine: Machine) -> None:
        if self.plan.choices.adapt:
            self._adapt(machine)
        elif any(assignment.target.bus != "file" for assignment in self.plan.assignments):
            with self._step("settle") as done:
                done(targets.settle(self.plan))

    def report(self) -> Report:
        """What was done so far."""
        return Report(
            host=self.plan.choices.host,
            point=self.point.id,
            point_created=self.point.header.created,
            started=self.started,
            finished=time.time(),
            disks=tuple(self.disks),
            steps=tuple(self.steps),
            changes=tuple(self.changes),
            warnings=tuple(self.warnings),
            incomplete=tuple(path for path in self.begun if path not in {disk.target for disk in self.disks}),
            go_on=self._go_on() if self.begun and not self.ended else "",
            log_path=self.log_path,
        )

    def _go_on(self) -> str:
        if self.repository is None:
            return ""
        return command(self.plan.choices, [location_of(copy) for copy in copies_of(self.repository.store)])

    def _open(self, claims: Claims) -> Machine:
        with self._step("open") as done:
            machine = self.probe()
            targets.check_unchanged(self.plan, machine)
            stopped = targets.let_go(self.plan)
            for sentence in stopped:
                self.listener(Message(text=sentence, step="open"))
            claims.take_all()
            done("Every target is the disk that was confirmed.")
        return machine

    def _restore(self, assignment: DiskAssignment, claims: Claims) -> None:
        name, path = assignment.source.name, assignment.target.path
        with self._step(f"stream:{name}") as done:
            claims.release(path)
            choices = self.plan.choices
            options = RestoreOptions(
                verify_all=choices.verify,
                skip_damaged=choices.skip_damaged,
                compare="always" if choices.compare else "auto",
            )
            if self.repository is None:
                raise UsageError("No repository is open.", hint="Connect to one first.")
            self.begun.append(path)
            report = restore_disk(
                self.repository, self.point, name, path, self.listener, self.cancel, options,
                extents=extents(assignment.source, assignment.landing) if assignment.landing else None,
            )  # fmt: skip
            if assignment.landing:
                self.changes += land(self.repository, self.point, assignment, self.listener, self.cancel, options)
            if name != self.plan.assignments[-1].source.name:
                # Until all are restored: RAID started with half of its disks would go on without the others.
                with contextlib.suppress(BusyError, DeviceError):
                    claims.take(path)
            self.disks.append(report)
            rate = format_rate(report.logical / report.seconds) if report.seconds > 0 else "no time"
            done(
                f"{format_size(report.logical)} in {format_duration(report.seconds)} ({rate}): "
                f"{format_size(report.transferred)} transferred, {format_size(report.written)} written, "
                f"{format_size(report.zeroed)} zeroed, {format_size(report.skipped)} skipped; "
                f"{report.verdict()}."
            )

    def _adapt(self, machine: Machine) -> None:
        assigned = {assignment.source.name: assignment.target for assignment in self.plan.assignments}
        choices = self.plan.choices
        landings = {a.source.name: a.landing for a in self.plan.assignments if a.landing}
        point = landed(self.point, landings)
        request = AdaptRequest(
            point=point, targets=assigned, machine=machine, grow=choices.grow, grow_to=places_of(self.plan.growth),
            to_gpt=converted(self.point, landings), moved=moved(landings), use_swap=choices.use_swap,
            drop_hibernation=choices.drop_hibernation,
        )  # fmt: skip
        found = adapt(request, self._renumbered, self.passphrases)
        self.changes += found.changes
        self.warnings += found.warnings

    def _renumbered(self, event: Event) -> None:
        """Steps of the adaptation count among those of the plan. Between two of them it may be stopped: what it has
        mounted and started is let go as after any failure."""
        if isinstance(event, StepStarted):
            if self.cancel.is_set():
                raise CancelledError(
                    "The run was stopped before the restored host was made to boot on this machine.",
                    hint="Its disks are complete: 'rekindle adapt' does the rest.",
                )
            event = msgspec.structs.replace(event, number=self._number(event.step), of=len(self.plan.steps))
        elif isinstance(event, StepFinished):
            self.steps.append((event.step, event.seconds))
        self.listener(event)

    def _proof(self) -> str:
        if not self.plan.choices.restore:
            return "The host on these disks starts on this machine; what lies on them was not restored."
        unverified = [disk.disk for disk in self.disks if not disk.verified]
        if unverified:
            self.warnings.append(f"Not read back from the disk: {', '.join(unverified)}.")
        for disk in self.disks:
            if disk.damaged:
                self.warnings.append(
                    f"{format_size(disk.lost)} of {disk.disk} were in no copy of the repository and are zeros now, in "
                    f"{format_count(len(disk.damaged), 'place')}, which the report lists. "
                    "Check the filesystems before using them."
                )
        left_out = {d.name for d in self.point.body.disks} - {disk.disk for disk in self.disks}
        if left_out:
            self.warnings.append(f"Not restored, because no target was chosen: {', '.join(sorted(left_out))}.")
        if not self.plan.choices.adapt:
            self.warnings.append(
                "The host was not adapted to this machine. If it is not the one that it came from: 'Repair boot' of "
                "the console, or 'rekindle adapt'."
            )
        total = sum(disk.logical for disk in self.disks)
        return f"{format_count(len(self.disks), 'disk')}, {format_size(total)} restored to point {self.point.id[:12]}."

    def _number(self, step: str) -> int:
        return next((n for n, planned in enumerate(self.plan.steps, 1) if planned.id == step), 0)

    @contextmanager
    def _step(self, id: str) -> Iterator[Callable[[str], None]]:
        title = next((planned.title for planned in self.plan.steps if planned.id == id), id)
        summary = ""

        def done(text: str) -> None:
            nonlocal summary
            summary = text

        start = time.monotonic()
        self.listener(StepStarted(step=id, title=title, number=self._number(id), of=len(self.plan.steps)))
        try:
            yield done
        finally:
            self.steps.append((id, time.monotonic() - start))
        self.listener(StepFinished(step=id, summary=summary, seconds=time.monotonic() - start))

    def _stop_if_cancelled(self) -> None:
        if self.cancel.is_set():
            raise CancelledError(
                "The restore was stopped; the targets are not complete.", hint="Restore again to complete them."
            )
