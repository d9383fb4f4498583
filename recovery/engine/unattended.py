"""An unattended restore: one more client of the engine, which does what a person at the console would do.

It takes the answers, connects, chooses, plans, and starts the run with a countdown; any doubt before that ends it, and
nothing was written. How far it is stands in the engine (``EngineApi.unattended``), where every window sees it and a
person can stop it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

from recovery.engine.api import Access, EngineApi, NetworkConfig, Notice, Unattended, UnattendedPhase
from recovery.engine.run import COUNTDOWN
from recovery.errors import (
    CancelledError,
    NotFoundError,
    PlanRefusedError,
    RekindleError,
    UnreachableError,
    UsageError,
)
from recovery.format.point import Point
from recovery.machine.model import Machine
from recovery.plan.answers import Answers, NetworkAnswers, parse_answers, secret_words, wanted
from recovery.plan.doubts import choose_point, doubts
from recovery.plan.growth import wishes
from recovery.plan.model import Choices, Problem, RestorePlan
from recovery.plan.rules import assign

_INCOMPLETE = "The targets are not complete: restore again."
NOT_ASKED = "No unattended restore is asked for."
T = TypeVar("T")


@dataclass
class Driver:
    """Drives ``engine``. ``server_patience``: seconds to wait for network and server, which may start late after a
    power cut; ``disk_patience`` for disks that a controller has not shown yet; ``pause`` between two attempts,
    ``look`` between two looks at the run."""

    engine: EngineApi
    server_patience: float = 600.0
    disk_patience: float = 60.0
    pause: float = 5.0
    look: float = 1.0
    tell: Callable[[str], None] = lambda text: None
    answers: Answers = field(default_factory=Answers)
    plan: RestorePlan | None = None

    def run(self) -> Unattended:
        """All of it, to the end of the run. Never raises RekindleError: what went wrong is in the answer."""
        began = time.time()
        try:
            found = self.engine.answers()
            if not found.problems and not wanted(found.text, found.command_line):
                return self._to("off", NOT_ASKED)
            sources = " and ".join(filter(None, (found.source, found.command_line and "the kernel's command line")))
            self._to("preparing", f"An unattended restore is asked for by {sources or 'a volume'}.")
            if found.problems:
                raise UsageError(" ".join(found.problems), hint="Leave one volume with one readable rekindle.toml.")
            self.answers = parse_answers(found.text, found.command_line)
            for key in secret_words(found.command_line):
                self.tell(f"warning: '{key}' stands on the kernel's command line, where the boot log shows it.")
            self._start()
            ended = self._watch()
        except CancelledError:
            ended = self._to("stopped", "A person stopped the unattended restore. Nothing was written.")
        except Doubts as refused:
            reasons = tuple(" ".join(filter(None, (p.what, p.why, f"[{p.code}]"))) for p in refused.problems)
            ended = self._to("refused", "The unattended restore is in doubt. Nothing was written.", reasons)
        except RekindleError as error:
            reasons = tuple(filter(None, (error.hint,)))
            ended = self._to("refused", f"{error.message.removesuffix('.')}. Nothing was written.", reasons)
        except Exception:
            # A bug: no window may wait for what will not come. A run that was started already goes on in the engine.
            self._to("failed", "The unattended restore met an unexpected error.", ("See 'journalctl -b'.",))
            raise
        self._report(ended, time.time() - began)
        if ended.phase == "done":
            self._afterwards()
        return ended

    # -- before the first write -----------------------------------------------------------------------------------

    def _start(self) -> None:
        answers = self.answers
        if answers.network is not None:
            config = network_config(answers.network, self.engine.machine())
            self._patiently(lambda: self.engine.configure_network(config), "the network")
        access = self._access()
        self._patiently(lambda: self.engine.connect(access), "the repository")
        wish = choose_point(self.engine.points(answers.host), answers.point)
        point = self.engine.point(answers.host, wish)
        targets = self._targets(point)
        grow, grow_to = wishes(answers.grow_to, answers.grow)
        choices = Choices(
            host=answers.host, point=point.id, targets=targets, adapt=answers.adapt, grow=grow, grow_to=grow_to,
            to_gpt=answers.to_gpt,
            use_swap=answers.use_swap, verify=answers.verify, skip_damaged=answers.skip_damaged,
        )  # fmt: skip
        if answers.luks_secret:
            self.engine.luks_secret(answers.luks_secret)
        self.plan = self.engine.plan(choices)
        found = doubts(answers, self.plan)
        if found:
            raise Doubts(found)
        # The rules that were written down are the operator's word for these disks.
        words = {a.target.id: a.target.confirmation for a in self.plan.assignments}
        disks = ", ".join(f"{a.source.name} to {a.target.path}" for a in self.plan.assignments)
        first_write = time.time() + answers.countdown
        self._to("countdown", f"{answers.host} will be restored: {disks}.", first_write=first_write)
        self.engine.start(self.plan.id, words, answers.countdown)
        if self._stopped():  # by who stepped in before there was a run that could be cancelled
            self.engine.cancel()

    def _access(self) -> Access:
        answers = self.answers
        if answers.repository:
            found = [r for r in self.engine.local_repositories() if r.id.startswith(answers.repository)]
            if len(found) != 1:
                raise NotFoundError(
                    f"{len(found) or 'No'} repositories {answers.repository} are on the disks of this machine.",
                    hint="Plug in the disk that holds it, and no copy of it.",
                )
            return Access(path=found[0].path, secret=answers.secret)
        medium = self.engine.medium()
        url = answers.server or medium.server or self._discovered(answers.fingerprint or medium.ca_fingerprint)
        return Access(
            url=url, fingerprint=answers.fingerprint, user=answers.user, password=answers.password,
            code=answers.code, secret=answers.secret,
        )  # fmt: skip

    def _discovered(self, fingerprint: str) -> str:
        """The one server on the local network that says it has the fingerprint; whether it has is checked later."""
        if not fingerprint:
            raise UsageError(
                "The answers name no server, and the medium carries none.", hint="Add 'server', or 'fingerprint'."
            )
        pin = fingerprint.replace(":", "").lower()
        deadline = time.monotonic() + self.server_patience
        while not (found := [server for server in self.engine.discover() if server.fingerprint == pin]):
            if time.monotonic() >= deadline:
                raise UnreachableError(
                    "No server on the local network says it has that fingerprint.",
                    hint="Start it with 'rekindle serve --announce', or add 'server' to the answers.",
                )
            self._wait()
        return found[0].url

    def _targets(self, point: Point) -> dict[str, str]:
        deadline = time.monotonic() + self.disk_patience
        while True:
            machine = self.engine.machine(refresh=True)
            targets, found = assign(self.answers.disks, self.answers.skip, point, machine)
            if not found:
                return targets
            late = any(doubt.code == "rule-matches-none" for doubt in found)
            if not late or time.monotonic() >= deadline:
                raise Doubts(found)
            self._wait()

    def _patiently(self, ask: Callable[[], T], what: str) -> T:
        deadline = time.monotonic() + self.server_patience
        said = False
        while True:
            try:
                return ask()
            except UnreachableError as error:
                if time.monotonic() >= deadline:
                    raise
                if not said:
                    self._to("preparing", f"Waiting for {what}: {error.message}")
                said = True
            self._wait()

    def _wait(self) -> None:
        time.sleep(self.pause)
        if self._stopped():
            raise CancelledError("Stopped.")

    def _stopped(self) -> bool:
        return self.engine.unattended().phase == "stopped"

    # -- from then on ---------------------------------------------------------------------------------------------

    def _watch(self) -> Unattended:
        """Follow the run to its end by its state, not by its events: an engine that was restarted has none to wait
        for, and that must be told."""
        host = self.answers.host
        while (state := self.engine.state()).phase == "running":
            shown = self.engine.unattended().phase
            # A key at the last moment: the run says how far it came.
            if state.step not in ("", COUNTDOWN) and shown not in ("running", "stopped"):
                self._to("running", f"{host} is being restored.")
            time.sleep(self.look)
        if state.phase == "finished":
            damaged = any(disk.damaged for disk in state.report.disks) if state.report else False
            but = " except for what no copy of the repository has" if damaged else ""
            return self._to("done", f"{host} was restored{but}.")
        if state.error is None:
            return self._to("failed", "The engine was restarted in the middle of the restore.", (_INCOMPLETE,))
        if state.phase == "cancelled" and state.step == COUNTDOWN:
            raise CancelledError(state.error.message)
        return self._to("failed", state.error.message, tuple(filter(None, (state.error.hint,))))

    def _to(
        self, phase: UnattendedPhase, message: str, reasons: tuple[str, ...] = (), first_write: float = 0.0
    ) -> Unattended:
        wish = Unattended(phase=phase, message=message, reasons=reasons, first_write=first_write)
        for line in (message, *(f"- {reason}" for reason in reasons)):
            self.tell(line)
        now = self.engine.unattended(wish)
        if now.phase == "stopped" and not wish.ended:
            raise CancelledError("Stopped.")
        return now

    def _report(self, ended: Unattended, seconds: float) -> None:
        if not self.answers.host:
            return
        state, machine = self.engine.state(), self.engine.machine()
        notice = Notice(
            host=self.answers.host,
            outcome={"done": "finished", "failed": "failed", "stopped": "cancelled"}.get(ended.phase, "refused"),  # type: ignore[arg-type]
            message=ended.message,
            machine=f"{machine.vendor} {machine.model}".strip(),
            point=self.plan.choices.point if self.plan else "",
            seconds=round(seconds, 1),
            reasons=ended.reasons,
            warnings=state.report.warnings if state.report else (),
        )
        try:
            told = self.engine.tell_server(notice)
        except RekindleError as error:
            self.tell(f"The server could not be told: {error.message}")
        else:
            self.tell("The server was told." if told else "There is no server to tell.")

    def _afterwards(self) -> None:
        report = self.engine.state().report
        if report is not None and any(disk.damaged for disk in report.disks):
            self.tell("The machine stays on: a part of the content is missing, and somebody must look at it.")
            return
        if self.answers.after == "stay":
            return
        with contextlib.suppress(RekindleError):
            self.tell(f"The log is in {self.engine.save_log()}.")
        off = self.answers.after == "poweroff"
        self.tell("Switching off." if off else "Restarting.")
        try:
            self.engine.reboot(power_off=off)
        except RekindleError as error:
            self.tell(f"That failed: {error.message} {error.hint}")


class Doubts(PlanRefusedError):
    """Why an unattended restore does not start: problems of the plan, or rules that do not name one disk each."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("The unattended restore is in doubt.")
        self.problems = problems


def network_config(answers: NetworkAnswers, machine: Machine) -> NetworkConfig:
    """The interface by name or MAC address. Raises UsageError when it is not there, or claimed twice."""
    facts = msgspec.structs.asdict(answers)
    facts["interface"] = _interface(answers.interface, machine)
    facts["bond"] = tuple(_interface(name, machine) for name in answers.bond)
    return NetworkConfig(**facts)


def _interface(wish: str, machine: Machine) -> str:
    found = [nic.name for nic in machine.nics if wish in (nic.name, nic.mac) or wish.lower() == nic.mac.lower()]
    if len(found) != 1:
        seen = ", ".join(f"{nic.name} ({nic.mac})" for nic in machine.nics) or "none"
        raise UsageError(f"{len(found) or 'No'} interfaces are '{wish}'.", hint=f"This machine has {seen}.")
    return found[0]
