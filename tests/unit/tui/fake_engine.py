"""A double of ``EngineApi`` for the console's tests, in the world of ``fake_world``.

It behaves as the contract says, checks what it is given (passphrase, confirmations, plan id), and can be told to hold
a run, to let it fail, or to be idle, so that each state of the console can be reached. It refuses to be called in the
thread of an event loop, where the real engine would freeze the console: each test that ends well proves that for the
calls it made.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import msgspec

from recovery.engine import again
from recovery.engine.api import (
    Access,
    EngineApi,
    FoundAnswers,
    LocalRepository,
    Medium,
    NetworkConfig,
    Notice,
    RemoteAccess,
    Report,
    RepositoryInfo,
    RunState,
    ServerIdentity,
    Unattended,
)
from recovery.engine.confirm import check_vm_confirmation
from recovery.errors import (
    AccessError,
    BusyError,
    CancelledError,
    CommandError,
    NotFoundError,
    PlanRefusedError,
    RekindleError,
    UnsafeTargetError,
)
from recovery.events import Event, Message, Progress, RunFinished, StepFinished, StepStarted
from recovery.format.point import Point, PointSummary
from recovery.machine.model import Machine
from recovery.machine.place import Place
from recovery.plan.model import Choices, DiskAssignment, PlanStep, Problem, RestorePlan, Suggestion
from recovery.plan.repair import build_repair
from recovery.plan.vm import VmChoices, VmPlan
from recovery.repository.mdns import DiscoveredServer
from recovery.restore.report import Damage, DiskReport
from recovery.units import GIB, MIB, format_size
from tests.unit.tui import fake_vm
from tests.unit.tui.fake_world import (
    ADDRESS,
    BLANK,
    CODE,
    FINGERPRINT,
    HOST,
    LUKS_PASSPHRASE,
    MACHINE,
    NOW,
    PASSPHRASE,
    PASSWORD,
    URL,
    USED,
    USER,
    make_point,
    with_address,
)
from tests.unit.tui.off_the_loop import off_the_loop

#: What the console asks of an engine.
CALLS = frozenset(name for name in vars(EngineApi) if not name.startswith("_"))


def state_of(plan: RestorePlan | VmPlan, **more: Any) -> RunState:
    """The state of a run of this plan."""
    return RunState(vm_plan=plan, **more) if isinstance(plan, VmPlan) else RunState(plan=plan, **more)


class FakeEngine:
    """See the module. ``hold`` cleared: a run waits in the middle until it is set."""

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        return off_the_loop(found) if name in CALLS else found

    def __init__(self, *, address: bool = False, disks: int = 1, trusted: bool = True, pace: float = 0.0) -> None:
        self.machine_now = with_address(MACHINE) if address else MACHINE
        self.all_points = [make_point(number, disks) for number in range(1, 5)]
        self.trusted = trusted
        self.pace = pace
        self.hold = threading.Event()
        self.hold.set()
        self.fail_with: RekindleError | None = None
        self.plan_problems: tuple[Problem, ...] = ()
        self.calls: list[tuple[str, object]] = []
        self.luks_secrets: list[str] = []
        self._changed = threading.Condition()
        self._events: list[Event] = []
        self._state = RunState()
        self._unattended = Unattended()
        self._remote = (False, False)
        self.announced: list[DiscoveredServer] = []
        self._plan: RestorePlan | VmPlan | None = None
        self._cancelled = False

    # --- machine and repository -------------------------------------------------------------------------------

    def medium(self) -> Medium:
        return Medium(server=URL, ca_fingerprint="cd" * 32, version="0.1.0")

    def machine(self, refresh: bool = False) -> Machine:
        return self.machine_now

    def configure_network(self, config: NetworkConfig) -> Machine:
        self.calls.append(("configure_network", config))
        if config.interface == "enp4s0":
            raise CommandError("enp4s0 got no address: the link is down.", hint="Check the cable.")
        self.machine_now = with_address(self.machine_now, config.interface, config.address or ADDRESS)
        return self.machine_now

    def identify(self, url: str) -> ServerIdentity:
        reason = "" if self.trusted else "It was not signed by the medium's authority."
        return ServerIdentity(
            url=url, fingerprint="00:11", ca_fingerprint=FINGERPRINT, trusted=self.trusted, reason=reason
        )

    def local_repositories(self) -> list[LocalRepository]:
        return [LocalRepository(id="4f2a77aa01bc", path="/run/rekindle/usb/sdb1", device="/dev/sdb1", size=1862 * GIB)]

    def connect(self, access: Access) -> RepositoryInfo:
        self.calls.append(("connect", access))
        if access.url and (access.user, access.password) != (USER, PASSWORD) and access.code != CODE:
            raise AccessError("The server refused this user and password.", hint="Check both, or ask for a code.")
        if access.secret != PASSPHRASE:
            raise AccessError("The passphrase does not open the repository.", hint="Type it again; mind Caps Lock.")
        return RepositoryInfo(id="4f2a77aa01bc", location=access.url or access.path, hosts=(HOST, "hv2.example.org"))

    def _unlock(self, problem: Problem) -> Problem:
        """A missing passphrase is a wrong one when others were given, and no problem (no code) with the right one."""
        if problem.code != "luks-secret-missing" or not self.luks_secrets:
            return problem
        code = "" if LUKS_PASSPHRASE in self.luks_secrets else "luks-secret-wrong"
        return msgspec.structs.replace(problem, code=code, what="Encrypted volumes that cannot be opened: disk1:3.")

    def luks_secret(self, secret: str) -> int:
        self.luks_secrets = [*self.luks_secrets, secret] if secret else []
        return len(self.luks_secrets)

    def add_copy(self, access: Access) -> tuple[str, ...]:
        self.calls.append(("add_copy", access))
        return URL, access.url or access.path

    def points(self, host: str) -> list[PointSummary]:
        if host != HOST:
            return []
        return [PointSummary(id=p.id, host=HOST, created=p.header.created) for p in self.all_points]

    def point(self, host: str, point: str) -> Point:
        for candidate in self.all_points:
            if candidate.id == point:
                return candidate
        raise NotFoundError(f"{host} has no point {point}.")

    def suggest(self, host: str, point: str) -> list[Suggestion]:
        targets = [BLANK.id, USED.id, ""]
        reasons = ["It is blank, fast and large enough.", "No other disk is large enough. It holds data.", ""]
        return [
            Suggestion(disk=disk.name, target=targets[i], reason=reasons[i])
            for i, disk in enumerate(self.point(host, point).body.disks)
        ]

    # --- plan and run -----------------------------------------------------------------------------------------

    def plan(self, choices: Choices) -> RestorePlan:
        point = self.point(choices.host, choices.point)
        problems = [self._unlock(problem) for problem in self.plan_problems]
        problems = [problem for problem in problems if problem.code]
        assignments = []
        for source in point.body.disks:
            target = self.machine_now.disk(choices.targets.get(source.name, ""))
            if target is None:
                continue
            if target.size < source.size:
                problems.append(
                    Problem(
                        severity="error",
                        code="target-too-small",
                        what=f"{target.path} is too small for {source.name}.",
                        why=f"It has {format_size(target.size)}, {format_size(source.size)} are needed.",
                        todo="Choose a larger disk.",
                    )
                )
            losses = () if target.blank else tuple(target.systems) + ("the filesystem 'archive' (400 GiB)",)
            assignments.append(DiskAssignment(source=source, target=target, losses=losses))
        steps = [PlanStep(id="open", title="Open the targets", detail="Look at every target once more")]
        steps += [PlanStep(id=f"stream:{a.source.name}", title=f"Restore {a.source.name} to {a.target.path}", destructive=True) for a in assignments]  # noqa: E501  # fmt: skip
        steps += [
            PlanStep(id="adapt", title="Make the host start on this machine"),
            PlanStep(id="prove", title="Report what was done and verified"),
        ]
        body = (choices, assignments, steps, problems)
        plan = self._plan = RestorePlan(
            id=f"{hash(msgspec.json.encode(body)) & 0xFFFFFFFF:08x}",
            choices=choices,
            assignments=tuple(assignments),
            steps=tuple(steps),
            problems=tuple(problems),
            logical=sum(a.source.size for a in assignments),
            used=sum(a.source.used for a in assignments),
        )
        return plan

    def places(self) -> list[Place]:
        self.calls.append(("places", None))
        return fake_vm.PLACES

    def plan_vm(self, choices: VmChoices) -> VmPlan:
        self.calls.append(("plan_vm", choices))
        self._plan = None
        plan = self._plan = fake_vm.plan_of(self.point(choices.host, choices.point), choices, self.plan_problems)
        return plan

    def plan_repair(self, disks: tuple[str, ...], grow: bool = True) -> RestorePlan:
        self.calls.append(("plan_repair", disks))
        steps = [
            ("adapt.mount", "Find the host on the disks", ""),
            ("adapt.bootloader", "Install the boot loader", ""),
        ]
        _, plan = build_repair(disks, self.machine_now, grow=grow, adaptation=steps)
        self._plan = plan
        return plan

    def start(self, plan_id: str, confirmations: dict[str, str], countdown: int = 0) -> None:
        self.calls.append(("start", confirmations))
        if self._plan is None or self._plan.id != plan_id or not self._plan.allowed:
            raise PlanRefusedError("That is not the plan made last.", hint="Plan again.")
        if self._state.phase == "running":
            raise BusyError("A restore is running.")
        if isinstance(self._plan, VmPlan):
            check_vm_confirmation(self._plan, confirmations)
        for assignment in self._plan.assignments if isinstance(self._plan, RestorePlan) else ():
            if confirmations.get(assignment.target.id) != assignment.target.confirmation:
                raise UnsafeTargetError(f"{assignment.target.path} was not confirmed.")
        self._events, self._cancelled = [], False
        self._state = state_of(self._plan, phase="running")
        threading.Thread(target=self._run, args=(self._plan,), daemon=True).start()

    def _tell(self, event: Event) -> None:
        with self._changed:
            self._events.append(event)
            self._changed.notify_all()
        time.sleep(self.pace)

    def _run(self, plan: RestorePlan | VmPlan) -> None:
        error: RekindleError | None = None
        try:
            for number, step in enumerate(plan.steps, 1):
                self._tell(StepStarted(step=step.id, title=step.title, number=number, of=len(plan.steps)))
                if step.id.startswith("stream:") and isinstance(plan, RestorePlan):
                    self._restore(plan, step.id)
                for file in plan.files if isinstance(plan, VmPlan) else ():
                    if step.id == f"extract:{file.target}":
                        self._stream(step.id, file.target, file.size)
                if step.id == "adapt":
                    self._tell(Message(text="fstab: /dev/sda2 is named by its UUID now", step="adapt"))
                self._tell(StepFinished(step=step.id, summary="done", seconds=3.0))
        except RekindleError as caught:
            error = caught
        phase = "finished" if error is None else "cancelled" if isinstance(error, CancelledError) else "failed"
        report = error.report() if error else None
        self._state = state_of(plan, phase=phase, error=report, report=self._report(plan, error))
        self._tell(RunFinished(error=report, summary="done"))

    def _restore(self, plan: RestorePlan, step: str) -> None:
        source = next(a.source for a in plan.assignments if step == f"stream:{a.source.name}")
        self._stream(step, source.name, source.size)

    def _stream(self, step: str, disk: str, size: int) -> None:
        for tenth in range(11):
            done = size * tenth // 10
            self._tell(
                Progress(step=step, disk=disk, done=done, total=size, transferred=done // 8,
                         written=done // 3, skipped=done // 2, rate=412e6, eta=(size - done) / 412e6,
                         retries=tenth // 4)
            )  # fmt: skip
            if tenth == 4:
                self._tell(Message(text="Asked again for pack 3f2a (connection reset)", level="warning", step=step))
                while not self.hold.wait(0.02):
                    if self._cancelled:
                        break
            if self._cancelled:
                raise CancelledError("The restore was stopped.", hint="Start it again to continue.")
            if tenth == 6 and self.fail_with is not None:
                failure, self.fail_with = self.fail_with, None
                raise failure

    def _report(self, plan: RestorePlan | VmPlan, error: RekindleError | None = None) -> Report:
        if isinstance(plan, VmPlan):
            created = self.point(plan.choices.host, plan.choices.point).header.created
            return fake_vm.report_of(plan, created, NOW, failed=error is not None)
        if error is not None:
            return Report(
                host=plan.choices.host, point=plan.choices.point, point_created=NOW, started=NOW, finished=NOW + 60,
                incomplete=tuple(a.target.path for a in plan.assignments), go_on=again.command(plan.choices, [URL]),
                log_path="/var/log/rekindle/engine.log",
            )  # fmt: skip
        return Report(
            host=plan.choices.host,
            point=plan.choices.point,
            point_created=next((p.header.created for p in self.all_points if p.id == plan.choices.point), 0.0),
            started=NOW,
            finished=NOW + 300,
            disks=tuple(
                DiskReport(disk=a.source.name, target=a.target.path, logical=a.source.size, transferred=4 * GIB,
                           written=31 * GIB, zeroed=20 * GIB, skipped=a.source.size - 51 * GIB, seconds=240.0,
                           verified=True, verified_bytes=256 * MIB, root="3fa9c1d2" * 8,
                           damaged=(Damage(offset=MIB, length=4096),) if plan.choices.skip_damaged else ())
                for a in (plan.assignments if plan.choices.restore else ())
            ),
            steps=tuple((step.id, 3.0) for step in plan.steps),
            changes=("The initramfs has the driver of this disk (nvme).", "br0 uses enp3s0 instead of eno1."),
            warnings=("The clock of this machine was 2 minutes behind.",),
            log_path="/var/log/rekindle/restore.log",
        )  # fmt: skip

    def cancel(self) -> None:
        self.calls.append(("cancel", None))
        self._cancelled = True

    def state(self) -> RunState:
        return msgspec.structs.replace(self._state, events=len(self._events))

    def events(self, since: int = 0) -> Iterator[Event]:
        while True:
            with self._changed:
                while len(self._events) <= since:
                    self._changed.wait(timeout=5)
                new = self._events[since:]
            for event in new:
                since += 1
                yield event
                if isinstance(event, RunFinished):
                    return

    def log(self, lines: int = 200) -> list[str]:
        return ["engine started"]

    def save_log(self, directory: str = "") -> str:
        return "/run/rekindle/usb/sdc1/rekindle-2026-11-23"

    def reboot(self, power_off: bool = False) -> None:
        self.calls.append(("reboot", power_off))

    def answers(self) -> FoundAnswers:
        return FoundAnswers()

    def unattended(self, update: Unattended | None = None) -> Unattended:
        self._unattended = update or self._unattended
        return self._unattended

    def tell_server(self, notice: Notice) -> bool:
        return False

    def remote_access(self, ssh: bool | None = None, status: bool | None = None) -> RemoteAccess:
        on = self._remote
        self._remote = on = (on[0] if ssh is None else ssh, on[1] if status is None else status)
        return RemoteAccess(
            ssh=on[0], password="8Q2K-7Z0M-4TXA" if on[0] else "", host_key="SHA256:uNiVztksCsDhcc0u9e8BgrJX" * on[0],
            addresses=("192.168.1.20",), status=("http://192.168.1.20/3FHK-20TZ-9PWE",) * on[1],
        )  # fmt: skip

    def discover(self) -> list[DiscoveredServer]:
        self.calls.append(("discover", None))
        return self.announced
