"""The engine: implements EngineApi in this process. Windows come and go; a run belongs to the engine alone."""

from __future__ import annotations

import hmac
import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec

from recovery.adapt.luks import Passphrases
from recovery.commands import run
from recovery.engine import encrypted, network, preflight, report
from recovery.engine.access import MEDIUM, locations, open_copy, open_repository, read_medium
from recovery.engine.answers import find_answers
from recovery.engine.api import (
    Access,
    FoundAnswers,
    LocalRepository,
    Medium,
    NetworkConfig,
    Notice,
    RemoteAccess,
    RepositoryInfo,
    RunState,
    ServerIdentity,
    Unattended,
)
from recovery.engine.confirm import check_allowed, check_confirmations, check_vm_confirmation
from recovery.engine.eventlog import EventLog
from recovery.engine.identify import identify
from recovery.engine.journal import Journal
from recovery.engine.places import find_places
from recovery.engine.planning import adaptation, plan_recorded
from recovery.engine.prober import Prober, with_nics
from recovery.engine.remote import Remote
from recovery.engine.run import Run
from recovery.engine.runner import Runner
from recovery.engine.statuspage import StatusPage
from recovery.engine.vm_plan import FoundVm, plan_vm
from recovery.engine.vm_run import VmRun
from recovery.errors import (
    PlanRefusedError,
    RekindleError,
    UsageError,
)
from recovery.events import Event
from recovery.format.point import Point, PointSummary
from recovery.machine.model import Machine
from recovery.machine.place import Place
from recovery.plan.answers import split_words
from recovery.plan.build import with_problems
from recovery.plan.model import Choices, Problem, RestorePlan, Suggestion
from recovery.plan.repair import build_repair, point_of
from recovery.plan.suggest import suggest
from recovery.plan.vm import VmChoices, VmPlan
from recovery.repository.http import HttpStore
from recovery.repository.mdns import DiscoveredServer, discover
from recovery.repository.repository import Repository

log = logging.getLogger("rekindle.engine")


class Engine:
    """See EngineApi. ``look_inside``: mount filesystems read-only to find repositories and systems on them (not
    wanted where only image files are written). ``loops``: loop devices may be targets."""

    def __init__(
        self, *, log_directory: Path | None = None, look_inside: bool = True, loops: bool = False,
        medium_file: Path = MEDIUM,
    ) -> None:  # fmt: skip
        self._journal = Journal(log_directory)
        self._prober = Prober(look_inside=look_inside, loops=loops)
        self._loops = loops
        self._medium_file = medium_file
        self._runner = Runner(self._journal)
        # One lock for what is asked (it may take seconds), one for what is remembered (never held for long).
        self._asking = threading.RLock()
        self._lock = threading.Lock()
        self._machine: Machine | None = None
        self._repository: Repository | None = None
        self._plan: RestorePlan | VmPlan | None = None
        self._found: FoundVm | None = None
        self._point: Point | None = None
        self._passphrases = Passphrases()
        self._unattended = Unattended()
        self._remote = Remote(lambda code: StatusPage(code, self._look))

    def medium(self) -> Medium:
        """See EngineApi."""
        return read_medium(self._medium_file)

    def machine(self, refresh: bool = False) -> Machine:
        """See EngineApi."""
        with self._asking:
            if self._machine is not None and self._runner.running:
                # Disks that are being written are not looked into: a mount would get in the way of the run.
                self._machine = with_nics(self._machine)
            elif self._machine is None or refresh:
                self._machine = self._probe()
            return self._machine

    def _probe(self) -> Machine:
        with self._asking:
            return self._prober.probe()

    def configure_network(self, config: NetworkConfig) -> Machine:
        """See EngineApi."""
        with self._asking:
            found = network.configure(config)
            log.info("%s has the addresses %s", config.interface, ", ".join(found))
            return self.machine(refresh=True)

    def identify(self, url: str) -> ServerIdentity:
        """See EngineApi."""
        return identify(url, self.medium())

    def discover(self) -> list[DiscoveredServer]:
        """See EngineApi."""
        return discover()

    def local_repositories(self) -> list[LocalRepository]:
        """See EngineApi."""
        with self._asking:
            return self._prober.repositories(running=self._runner.running)

    def connect(self, access: Access) -> RepositoryInfo:
        """See EngineApi."""
        self._journal.hide(access.password, access.code, access.secret)
        with self._asking:
            self._runner.refuse_while_running("Another repository can't be opened")
            self._repository, info = open_repository(access, self.medium())
            self._plan = None
        log.info("opened the repository %s at %s", info.id, info.location)
        return info

    def adopt(self, repository: Repository) -> None:
        """Use a repository that was opened already (the command line asks for secrets in its own way)."""
        with self._asking:
            self._repository, self._plan = repository, None

    def add_copy(self, access: Access) -> tuple[str, ...]:
        """See EngineApi."""
        self._journal.hide(access.password, access.code, access.secret)
        with self._asking:
            self._runner.refuse_while_running("Another copy can't be opened")
            self._repository = open_copy(self._opened(), access, self.medium())
            with self._lock:
                self._plan = None
            return locations(self._repository)

    def points(self, host: str) -> list[PointSummary]:
        """See EngineApi."""
        return self._opened().points(host)

    def point(self, host: str, point: str) -> Point:
        """See EngineApi."""
        return self._opened().point(host, point)

    def suggest(self, host: str, point: str) -> list[Suggestion]:
        """See EngineApi."""
        return suggest(self.point(host, point), self.machine())

    def luks_secret(self, secret: str) -> int:
        """See EngineApi."""
        self._journal.hide(secret)
        with self._asking:
            self._runner.refuse_while_running("A passphrase can't be taken")
            # Not strip: a blank may belong to it.
            words = (*self._passphrases.words, secret) if secret else ()
            self._passphrases = Passphrases(tuple(dict.fromkeys(words)))
            with self._lock:
                self._plan = None  # it was made with others
            return len(self._passphrases.words)

    def plan(self, choices: Choices) -> RestorePlan:
        """See EngineApi. A target may also be the absolute path of a regular file."""
        with self._asking:
            self._runner.refuse_while_running("Another plan can't be made")
            repository = self._opened()
            with self._lock:
                self._plan = None  # should this one fail, the one before it is not what the operator sees
            point = repository.point(choices.host, choices.point)
            choices = msgspec.structs.replace(choices, point=point.id, luks_secret=bool(self._passphrases))
            plan = plan_recorded(point, self.machine(refresh=True), choices)
            if plan.allowed:
                plan = with_problems(plan, self._ask(repository, point, plan))
            self._take(plan, point)
        return plan

    def _ask(self, repository: Repository | None, point: Point, plan: RestorePlan) -> list[Problem]:
        """What only asking the repository and this machine can tell about an allowed plan."""
        if repository is None:
            problems = [*preflight.check_rights(plan), *preflight.check_memory()]
        else:
            problems = preflight.ask(repository, point, plan)
        if any(problem.severity == "error" for problem in problems):
            return problems
        if repository is None:
            return problems + encrypted.check_here(plan, self._passphrases)
        return problems + encrypted.check_restored(repository, point, plan, self._passphrases)

    def plan_repair(self, disks: tuple[str, ...], grow: bool = True) -> RestorePlan:
        """See EngineApi."""
        with self._asking:
            self._runner.refuse_while_running("Another plan can't be made")
            with self._lock:
                self._plan = None
            machine = self.machine(refresh=True)
            steps = adaptation(point_of([], machine), machine)
            secret = bool(self._passphrases)
            point, plan = build_repair(disks, machine, grow=grow, adaptation=steps, luks_secret=secret)
            if plan.allowed:
                plan = with_problems(plan, self._ask(None, point, plan))
            self._take(plan, point)
        return plan

    def places(self) -> list[Place]:
        """See EngineApi."""
        with self._asking:
            self._runner.refuse_while_running("Disks can't be looked into")
            return self._places()

    def _places(self, only: str = "") -> list[Place]:
        return find_places(loops=self._loops, only=only)

    def plan_vm(self, choices: VmChoices) -> VmPlan:
        """See EngineApi."""
        with self._asking:
            self._runner.refuse_while_running("Another plan can't be made")
            repository = self._opened()
            with self._lock:
                self._plan = None
            point = repository.point(choices.host, choices.point)
            plan, found = self._plan_vm(repository, point, msgspec.structs.replace(choices, point=point.id))
            self._take(plan, point, found)
        return plan

    def _plan_vm(self, repository: Repository, point: Point, choices: VmChoices) -> tuple[VmPlan, FoundVm]:
        places = self._places(choices.device) if choices.device else []
        return plan_vm(repository, point, choices, places)

    def _take(self, plan: RestorePlan | VmPlan, point: Point, found: FoundVm | None = None) -> None:
        with self._lock:
            self._plan, self._point, self._found = plan, point, found
        verdict = "allowed" if plan.allowed else "refused"
        log.info("plan %s: %s", plan.id[:12], verdict)
        for problem in plan.problems:
            log.info("%s %s: %s %s", problem.severity, problem.code, problem.what, problem.why)

    def start(self, plan_id: str, confirmations: dict[str, str], countdown: int = 0) -> None:
        """See EngineApi."""
        with self._lock:
            plan, point = self._plan, self._point
            if plan is None or point is None or not hmac.compare_digest(plan.id, plan_id):
                self._runner.refuse_while_running("Another run can't be started")
                raise PlanRefusedError("That is not the plan that was made last.", hint="Plan again.")
            check_allowed(plan)
            if isinstance(plan, VmPlan):
                check_vm_confirmation(plan, confirmations)
                self._start_vm(plan, point)
            else:
                check_confirmations(plan, confirmations)
                self._start_disks(plan, point, countdown)
            # A plan is good for one run: afterwards the disks are others than it describes.
            self._plan = self._found = None
        log.info("run of plan %s started", plan.id[:12])

    def _start_disks(self, plan: RestorePlan, point: Point, countdown: int) -> None:
        repository = self._opened() if plan.choices.restore else None
        self._runner.begin(
            RunState(plan=plan),
            lambda listener, cancel, log_path: Run(
                plan=plan, point=point, repository=repository, probe=self._probe, listener=listener, cancel=cancel,
                log_path=log_path, countdown=max(0, countdown), passphrases=self._passphrases,
            ),
        )  # fmt: skip

    def _start_vm(self, plan: VmPlan, point: Point) -> None:
        found = self._found
        if found is None:
            raise PlanRefusedError("That is not the plan that was made last.", hint="Plan again.")
        repository = self._opened()
        self._runner.begin(
            RunState(vm_plan=plan),
            lambda listener, cancel, log_path: VmRun(
                plan=plan, point=point, repository=repository, found=found, listener=listener, cancel=cancel,
                log_path=log_path,
            ),
        )  # fmt: skip

    def cancel(self) -> None:
        """See EngineApi. What runs stops at the next safe place; a finished run stays finished."""
        log.info("the operator asked to stop")
        self._runner.cancel()

    def state(self) -> RunState:
        """See EngineApi."""
        return self._runner.state()

    def events(self, since: int = 0) -> Iterator[Event]:
        """See EngineApi."""
        return self._runner.events.follow(since)

    def event_log(self) -> EventLog:
        """The numbered events of the run, for the server."""
        return self._runner.events

    def log(self, lines: int = 200) -> list[str]:
        """See EngineApi."""
        return self._journal.newest(lines)

    def save_log(self, directory: str = "") -> str:
        """See EngineApi."""
        with self._asking:
            state = self.state()
            return report.save(
                self._journal.directory, directory, state, self._point, self.machine(), self._passphrases
            )

    def reboot(self, power_off: bool = False) -> None:
        """See EngineApi."""
        self._runner.refuse_while_running("The machine can't be restarted")
        run(["sync"], check=False)
        run(["systemctl", "poweroff" if power_off else "reboot"])

    def answers(self) -> FoundAnswers:
        """See EngineApi."""
        with self._asking:
            self._runner.refuse_while_running("Disks can't be looked into")
            return find_answers(loops=self._loops)

    def unattended(self, update: Unattended | None = None) -> Unattended:
        """See EngineApi."""
        with self._lock:
            if update is not None and (self._unattended.phase != "stopped" or update.ended):
                self._unattended = update
            now = self._unattended
        if update is not None and update == now:
            log.info("unattended: %s %s %s", now.phase, now.message, " ".join(now.reasons))
        return now

    def tell_server(self, notice: Notice) -> bool:
        """See EngineApi."""
        store = self._repository.store if self._repository is not None else None
        if not isinstance(store, HttpStore):
            return False
        store.leave_report(msgspec.json.encode(notice))
        return True

    def remote_access(self, ssh: bool | None = None, status: bool | None = None) -> RemoteAccess:
        """See EngineApi."""
        addresses = tuple(address for nic in with_nics(Machine()).nics for address in nic.addresses)
        return self._remote.access(addresses, ssh, status, self._journal.hide)

    def open_windows(self, command_line: str) -> None:
        """Turn on what the medium and the kernel's command line ask for. Never raises: the console works without."""
        ssh, status = self._remote.wanted_at_start(split_words(command_line))
        try:
            self.remote_access(ssh or None, status or None)
        except RekindleError as error:
            log.warning("access from afar: %s %s", error.message, error.hint)

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the run has ended."""
        self._runner.wait(timeout)

    def close(self) -> None:
        """Stop a run, wait for it, and close the log."""
        self._runner.cancel()
        self._remote.close()
        self.wait()
        self._journal.close()

    def _look(self) -> tuple[RunState, list[Event], Unattended]:
        """For the status page."""
        return self.state(), [event for _, event in self._runner.events.read(0, 0)], self._unattended

    def _opened(self) -> Repository:
        if self._repository is None:
            raise UsageError("No repository is open.", hint="Connect to one first.")
        return self._repository
