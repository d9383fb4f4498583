"""One run of a plan for a VM's disks: its steps in order, each told as events, and an honest report at the end."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from recovery.engine.again import vm_command
from recovery.engine.api import Report, VmFileReport, VmReport
from recovery.engine.places import taken, within, writing
from recovery.engine.vm_plan import FoundVm
from recovery.errors import UnsafeTargetError
from recovery.events import Listener, Message, StepFinished, StepStarted
from recovery.explore.extract import Extracted, Way, extract, stopped
from recovery.explore.newfiles import NewFiles
from recovery.explore.vm import FoundDisk
from recovery.format.point import Point
from recovery.plan.vm import VmPlan
from recovery.repository.attention import RetryTeller, attended
from recovery.repository.failover import NEXT_COPY, FailoverStore, copies_of, location_of
from recovery.repository.repository import Repository
from recovery.units import format_count, format_duration, format_rate, format_size

#: Seconds that a run waits for a server that does not answer; as a restore of disks does.
_PATIENCE = 3600.0


@dataclass
class VmRun:
    """Everything a run needs. ``listener`` hears every event but RunFinished."""

    plan: VmPlan
    point: Point
    repository: Repository
    found: FoundVm
    listener: Listener
    cancel: threading.Event
    log_path: str = ""
    started: float = field(default_factory=time.time)
    begun: bool = False
    made: list[tuple[FoundDisk, Extracted]] = field(default_factory=list)
    steps: list[tuple[str, float]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    top: Path = Path()
    published: bool = False

    def execute(self) -> Report:
        """Run all steps. Raises what stops it; then no file is left behind."""
        teller = RetryTeller(self.listener, "extract")
        store = self.repository.store
        with contextlib.ExitStack() as stack:
            if isinstance(store, FailoverStore):
                stack.enter_context(store.told(lambda text: self.listener(Message(level="warning", text=text))))
            # Where there are other copies, one that does not answer is not waited for.
            patience = NEXT_COPY if isinstance(store, FailoverStore) else _PATIENCE
            stack.enter_context(attended(store, teller, self.cancel, patience))
            self._execute(teller)
        self._tell_what_to_know()
        return self.report()

    def _execute(self, teller: RetryTeller) -> None:
        place, choices = self.plan.place, self.plan.choices
        with contextlib.ExitStack() as stack:
            with self._step("place") as told:
                self.top = stack.enter_context(writing(place))
                folder = within(self.top, choices.folder) if choices.device else self.top
                self._look_once_more(folder)
                told.append(f"{place.name} is open for writing.")
            files = stack.enter_context(NewFiles(folder, overwrite=choices.overwrite))
            for one in self.found.disks:
                self._stop_if_cancelled()
                with self._step(f"extract:{one.disk.target}") as told:
                    self.begun = True
                    way = Way(
                        step=f"extract:{one.disk.target}", disk=one.disk.target, holes=place.holes,
                        skip_damaged=choices.skip_damaged, teller=teller,
                    )  # fmt: skip
                    made = extract(self.found.view, one.where, files, one.name, self.listener, self.cancel, way)
                    self.made.append((one, made))
                    told.append(_sentence(made))
            with self._step("publish") as told:
                if self.plan.definition:
                    files.write(self.plan.definition, self.plan.vm.definition.encode())
                self._stop_if_cancelled()
                files.publish()
                self.published = True
                stack.close()
                told.append(f"{format_count(len(self.made) + bool(self.plan.definition), 'file')} in {self.where}.")

    @property
    def where(self) -> str:
        """The folder of the files, for people."""
        return self.plan.goes_to

    def report(self) -> Report:
        """What was done so far."""
        plan, choices = self.plan, self.plan.choices
        files = tuple(
            VmFileReport(
                target=one.disk.target, path=self._path(made.name), source=one.disk.source, format=one.disk.format,
                size=made.size, written=made.written, seconds=made.seconds, backing=one.backing, damaged=made.damaged,
            )
            for one, made in self.made
            if self.published
        )  # fmt: skip
        definition = self._path(plan.definition) if plan.definition and self.published else ""
        locations = [location_of(copy) for copy in copies_of(self.repository.store)]
        return Report(
            host=choices.host,
            point=self.point.id,
            point_created=self.point.header.created,
            started=self.started,
            finished=time.time(),
            steps=tuple(self.steps),
            warnings=tuple(self.warnings),
            log_path=self.log_path,
            go_on=vm_command(choices, locations) if self.begun and not self.published else "",
            vm=VmReport(
                name=plan.vm.name, place=self.where, files=files, definition=definition, device=choices.device
            ),
        )

    def _path(self, name: str) -> str:
        if not self.plan.choices.device:
            return str(Path(self.plan.choices.folder, name))
        inside = "/".join(part for part in self.plan.choices.folder.split("/") if part)
        path = Path(self.plan.place.path or "/", inside, name)
        return str(path)

    def _look_once_more(self, folder: Path) -> None:
        """What was confirmed is what is overwritten. Raises UnsafeTargetError."""
        names = [*(one.name for one in self.found.disks), *filter(None, [self.plan.definition])]
        new = taken(folder, names) - set(self.plan.overwritten)
        if new:
            raise UnsafeTargetError(
                f"{', '.join(sorted(new))} has appeared in {self.where} since the plan was made. Nothing was written.",
                hint="Plan again.",
            )

    def _tell_what_to_know(self) -> None:
        for one, made in self.made:
            if one.backing:
                self.warnings.append(f"{one.disk.target} is an overlay of {one.backing}: put that file beside it.")
            if made.damaged:
                lost = format_size(sum(length for _, length in made.damaged))
                places = format_count(len(made.damaged), "place")
                self.warnings.append(
                    f"{lost} of {one.disk.target} were in no copy of the repository and are zeros now, in {places}, "
                    "which the report lists. Check its filesystems before using it."
                )
        left_out = [d.target for d in self.plan.vm.disks if d.target not in {one.disk.target for one, _ in self.made}]
        if left_out:
            self.warnings.append(f"Not restored, because not chosen: {', '.join(left_out)}.")

    @contextmanager
    def _step(self, id: str) -> Iterator[list[str]]:
        """The block appends what it did to the list that it gets."""
        number = next((n for n, planned in enumerate(self.plan.steps, 1) if planned.id == id), 0)
        title = next((planned.title for planned in self.plan.steps if planned.id == id), id)
        told: list[str] = []
        start = time.monotonic()
        self.listener(StepStarted(step=id, title=title, number=number, of=len(self.plan.steps)))
        try:
            yield told
        finally:
            self.steps.append((id, time.monotonic() - start))
        self.listener(StepFinished(step=id, summary=" ".join(told), seconds=time.monotonic() - start))

    def _stop_if_cancelled(self) -> None:
        if self.cancel.is_set():
            raise stopped()


def _sentence(made: Extracted) -> str:
    rate = format_rate(made.size / made.seconds) if made.seconds > 0 else "no time"
    took = format_duration(made.seconds)
    return f"{format_size(made.size)} in {took} ({rate}), of which {format_size(made.written)} are content."
