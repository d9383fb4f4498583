"""A run as the Restore screen shows it, folded from its events. Pure, so a late window builds the same picture."""

from __future__ import annotations

from dataclasses import dataclass, field

from recovery.errors import ErrorReport
from recovery.events import Event, Message, Progress, RunFinished, StepFinished, StepStarted
from recovery.plan.model import RestorePlan
from recovery.plan.vm import VmPlan

#: Lines of the log kept for the screen.
LOG_LINES = 200


@dataclass
class StepView:
    """One step: ``waiting``, ``running``, ``done`` or ``failed``."""

    id: str
    title: str
    state: str = "waiting"
    started: float = 0.0
    seconds: float = 0.0
    summary: str = ""


@dataclass
class RunModel:
    """Everything the events said so far."""

    plan: RestorePlan | VmPlan | None = None
    steps: dict[str, StepView] = field(default_factory=dict)
    detail: str = ""
    """What the running step's program said last; empty after anything that went to the log."""
    disks: dict[str, Progress] = field(default_factory=dict)
    """The newest progress of each disk of the point."""
    whole: Progress | None = None
    """The newest progress that speaks of no single disk, of the step ``whole.step``."""
    log: list[tuple[float, str, str]] = field(default_factory=list)
    """(time, level, text), newest last."""
    history: list[tuple[float, int]] = field(default_factory=list)
    """(time, bytes of the whole done), at most one a second: what the rate graph is drawn from."""
    count: int = 0
    started: float = 0.0
    finished: RunFinished | None = None

    def __post_init__(self) -> None:
        if self.plan is not None:
            self.steps = {step.id: StepView(step.id, step.title) for step in self.plan.steps}

    @property
    def error(self) -> ErrorReport | None:
        """Why it failed, when it did."""
        return self.finished.error if self.finished else None

    @property
    def noun(self) -> str:
        """What the run is called: ``restore`` or ``repair``."""
        return "repair" if isinstance(self.plan, RestorePlan) and not self.plan.choices.restore else "restore"

    @property
    def subject(self) -> str:
        """Who comes back: the host, or a VM of it."""
        if isinstance(self.plan, VmPlan):
            return f"{self.plan.vm.name} of {self.plan.choices.host}"
        return (self.plan.choices.host if self.plan else "") or "Repair"

    @property
    def phase(self) -> str:
        """Where the run is: ``running, step 3 of 12``, ``failed`` or ``done``."""
        if self.finished is not None:
            return "failed" if self.error else "done"
        begun = sum(step.state != "waiting" for step in self.steps.values())
        return f"running, step {begun} of {len(self.steps)}" if begun else "running"

    @property
    def unfinished(self) -> str:
        """What is still to come of it when all data is there, for who would pull the plug then."""
        if self.finished is not None:
            return ""
        if isinstance(self.plan, VmPlan):
            return "the files have no names yet"
        adapted = self.plan is not None and self.plan.choices.adapt
        return "not bootable yet: the steps above go on" if adapted else "the steps above go on"

    @property
    def current(self) -> StepView | None:
        """The step that runs."""
        return next((step for step in self.steps.values() if step.state == "running"), None)

    def apply(self, event: Event) -> None:
        """Take in the next event."""
        self.count += 1
        self.started = self.started or event.at
        match event:
            case StepStarted():
                step = self.steps.setdefault(event.step, StepView(event.step, event.title))
                step.title, step.state, step.started = event.title or step.title, "running", event.at
                self.detail = ""
                self._note(event.at, "info", event.title or event.step)
            case StepFinished():
                step = self.steps.setdefault(event.step, StepView(event.step, event.step))
                step.state, step.summary = "done", event.summary
                step.seconds = event.seconds or max(0.0, event.at - (step.started or event.at))
                if event.summary:
                    self._note(event.at, "info", event.summary)
            case Progress():
                if event.disk:
                    self.disks[event.disk] = event
                else:
                    self.whole = event
                self._remember(event.at)
            case Message():
                if event.level != "debug":
                    self._note(event.at, event.level, event.text)
                # What the host's own programs say is too much for the log, but shows that they are at work.
                self.detail = event.text if event.level == "debug" else ""
            case RunFinished():
                self.finished = event
                if event.error is not None:
                    for step in self.steps.values():
                        step.state = "failed" if step.state == "running" else step.state
                    self._note(event.at, "error", event.error.message)

    def _remember(self, at: float) -> None:
        total = self.total()
        if total is None:
            return
        if self.history and at - self.history[-1][0] < 1.0:
            return
        self.history.append((at, total.done))

    def now(self) -> str:
        """What is happening, in words: trouble first."""
        if self.finished is not None:
            return "failed" if self.finished.error else "all is done"
        step = self.current
        if step is None:
            return "between two steps" if self.started else "starting"
        disk = next((p for p in self.disks.values() if p.step == step.id), None)
        if disk is not None and disk.note:
            return disk.note
        if disk is not None and disk.done < disk.total:
            if disk.skipped > disk.transferred and not isinstance(self.plan, VmPlan):
                return "comparing with what the disk holds, fetching what differs"
            what = "file" if isinstance(self.plan, VmPlan) else "disk"
            return f"fetching from the repository, checking, writing to the {what}"
        newest = next((text for _, level, text in reversed(self.log) if level != "debug"), "")
        return self.detail or newest or step.title

    def waited(self, now: float) -> int:
        """Whole seconds that the running step has taken at ``now`` (seconds since the epoch); 0 below ten, which
        nobody wonders about."""
        step = self.current
        seconds = int(now - step.started) if step is not None and step.started and self.finished is None else 0
        return seconds if seconds >= 10 else 0

    def _note(self, at: float, level: str, text: str) -> None:
        self.log.append((at, level, text))
        del self.log[:-LOG_LINES]

    def total(self) -> Progress | None:
        """The progress of all disks together: what the engine says of the whole, else the sum over the disks.

        The sum counts disks that have not begun, so the bar never jumps back.
        """
        if not self.disks:
            return self.whole
        if self.whole is not None and any(self.whole.step == progress.step for progress in self.disks.values()):
            return self.whole
        parts = list(self.disks.values())
        done = sum(part.done for part in parts)
        total = max(self.plan.logical if self.plan else 0, sum(part.total for part in parts))
        newest = max(parts, key=lambda part: part.at)
        rate = sum(part.rate for part in parts if part.done < part.total)
        return Progress(
            at=newest.at,
            step=newest.step,
            done=done,
            total=total,
            transferred=sum(part.transferred for part in parts),
            written=sum(part.written for part in parts),
            skipped=sum(part.skipped for part in parts),
            rate=rate,
            eta=(total - done) / rate if rate else None,
            retries=sum(part.retries for part in parts),
            note=newest.note,
        )
