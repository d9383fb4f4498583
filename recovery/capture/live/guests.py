"""Guests are quiesced around the freeze of their host: their own agents write out and freeze what they have.

A guest that was frozen for all of the host's freeze is *application consistent*: its filesystems are whole, and its
agent's hooks told its programs. Any other one that runs is *crash consistent*, as after a power cut.
"""

from __future__ import annotations

import contextlib
import contextvars
import json
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from recovery.capture.hypervisors import HYPERVISORS, Hypervisor
from recovery.capture.live import guestkeeper
from recovery.errors import CommandError
from recovery.layout import GuestConsistency, Manager, VirtualMachine

#: At once; more wait for their turn within the same time.
_AT_ONCE = 16
#: Seconds: a guest whose agent did not answer is not asked again for so long, or it would delay every minute.
_SILENCE = 600.0
#: Seconds for the watchdog to start, and to end.
_START, _END = 30.0, 10.0


class GuestLimits(msgspec.Struct, frozen=True, kw_only=True):
    """``answer``: seconds that the agents of all guests together have to freeze their guests; ``hold``: after so many
    seconds from the first word all guests are thawed by the watchdog, whatever was reached."""

    answer: float = 5.0
    hold: float = 15.0


@dataclass(frozen=True)
class _Guest:
    """A VM that its hypervisor knows by ``key``."""

    hypervisor: Hypervisor
    key: str
    vm: VirtualMachine = field(compare=False)


class GuestQuiescer:
    """A Beside. ``found`` is how each VM was in the last freeze: its consistency, and why it is no better."""

    def __init__(
        self,
        vms: Iterable[VirtualMachine],
        limits: GuestLimits,
        tell: Callable[[str], None],
        hypervisors: Sequence[Hypervisor] = HYPERVISORS,
    ) -> None:
        """``vms`` of the inventory; those that a hypervisor has no key for are of another machine."""
        managers = {hypervisor.manager: hypervisor for hypervisor in hypervisors}
        known = [(managers[vm.manager], vm) for vm in vms if vm.manager in managers]
        self._guests = [_Guest(which, key, vm) for which, vm in known if (key := which.key(vm))]
        self._limits, self._tell = limits, tell
        self._silent: dict[_Guest, float] = {}
        self._line: socket.socket | None = None
        self._keeper: subprocess.Popen[bytes] | None = None
        #: Watchdogs that still thaw what did not answer.
        self._busy: list[subprocess.Popen[bytes]] = []
        #: Hypervisors that did not answer, and when.
        self._deaf: dict[Manager, float] = {}
        #: Guests that may be frozen -> how many filesystems their agent froze; None: it did not answer.
        self._asked: dict[_Guest, int | None] = {}
        self.found: dict[str, tuple[GuestConsistency, str]] = {}

    def before(self) -> None:
        """Freeze the guests that run and have an agent."""
        self.found, self._asked = {}, {}
        told = self._states()
        wanted = [guest for guest in self._guests if self._may_be_asked(guest, told)]
        if not wanted:
            return
        if not self._start_keeper(wanted):
            for guest in wanted:
                self.found[guest.vm.name] = ("crash", "the process that would thaw it in any case did not start")
            return
        self._asked = dict.fromkeys(wanted)
        end = time.monotonic() + self._limits.answer
        for guest, count, why in self._each(wanted, lambda guest: self._freeze(guest, end)):
            self._asked[guest] = count
            if not count:
                why = why or "its guest agent froze no filesystem"
                self._silent[guest] = time.monotonic()
                self.found[guest.vm.name] = ("crash", why)
                self._tell(f"The VM '{guest.vm.name}' could not be quiesced: {why}.")

    def _states(self) -> dict[Manager, dict[str, str] | str]:
        """What each hypervisor with guests here says of them by key; a text is why it says nothing."""
        told: dict[Manager, dict[str, str] | str] = {}
        for hypervisor in dict.fromkeys(guest.hypervisor for guest in self._guests):
            manager = hypervisor.manager
            if _lately(self._deaf.get(manager)):
                told[manager] = f"{hypervisor.title} did not answer a short while ago"
                continue
            try:
                told[manager] = hypervisor.states()
            except CommandError as error:
                self._deaf[manager] = time.monotonic()
                told[manager] = error.message.rstrip(".")
        return told

    def _may_be_asked(self, guest: _Guest, told: Mapping[Manager, dict[str, str] | str]) -> bool:
        """Whether to ask its agent; else ``found`` has how it is."""
        states = told[guest.hypervisor.manager]
        if isinstance(states, str):
            found: tuple[GuestConsistency, str] = ("crash", states)
        elif states.get(guest.key) == "shut off":
            found = ("offline", "")
        elif states.get(guest.key) != "running":
            found = ("crash", "it is not running")
        elif why := guest.hypervisor.refusal(guest.vm):
            found = ("crash", why)
        elif _lately(self._silent.get(guest)):
            found = ("crash", "its guest agent did not answer a short while ago")
        else:
            return True
        self.found[guest.vm.name] = found
        return False

    def frozen(self, deadline: float) -> None:
        """Nothing to do but to be still."""

    def after(self) -> None:
        """Thaw every guest that was asked, also one that did not answer; what it says proves that it was frozen."""
        asked, self._asked = self._asked, {}
        answered = True
        for guest, count, why in self._each(list(asked), lambda guest: guest.hypervisor.thaw(guest.key)):
            name, frozen = guest.vm.name, asked[guest]
            # An agent that answers this has nothing before it in its queue: no freeze comes later.
            answered = answered and count is not None
            if name in self.found:
                continue
            if count and frozen and count >= frozen:
                self.found[name] = ("application", "")
            else:
                self.found[name] = ("crash", why or "it was thawed before the host was")
                self._tell(f"The VM '{name}' was not quiesced all the time: {self.found[name][1]}.")
        self._end_keeper(answered)

    def _freeze(self, guest: _Guest, end: float) -> int:
        """How many filesystems its agent froze. Raises CommandError."""
        seconds = end - time.monotonic()
        if seconds <= 0:
            raise CommandError("there was no time left for it")
        return guest.hypervisor.freeze(guest.key, seconds)

    def _each(self, guests: Sequence[_Guest], work: Callable[[_Guest], int]) -> list[tuple[_Guest, int | None, str]]:
        """``work`` for all of them at once: the guest, its number, or None and why. Raises nothing."""

        def one(guest: _Guest) -> tuple[_Guest, int | None, str]:
            try:
                return guest, work(guest), ""
            except CommandError as error:
                return guest, None, error.message.rstrip(".")

        if not guests:
            return []
        with ThreadPoolExecutor(min(_AT_ONCE, len(guests))) as pool:
            # The context carries which Runner is in force (recovery.commands).
            return [f.result() for f in [pool.submit(contextvars.copy_context().run, one, guest) for guest in guests]]

    def _start_keeper(self, guests: Sequence[_Guest]) -> bool:
        self._line, theirs = socket.socketpair()
        commands = json.dumps([guest.hypervisor.thaw_command(guest.key) for guest in guests])
        try:
            with theirs:
                # Popen, not run(): it lives beside us. Its own session, so that no signal of a terminal ends it.
                self._keeper = subprocess.Popen(
                    [sys.executable, "-I", "-S", str(Path(guestkeeper.__file__).resolve()), str(self._limits.hold),
                     commands],
                    stdin=theirs.fileno(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                    start_new_session=True, cwd="/",
                )  # fmt: skip
            if select.select([self._line], [], [], _START)[0] and self._line.recv(64) == b"ready\n":
                return True
        except OSError:
            pass
        self._end_keeper(True)
        return False

    def _end_keeper(self, answered: bool) -> None:
        """It ends by itself; when something may still be frozen it thaws that first, and nobody waits for it."""
        if self._line is not None:
            with contextlib.suppress(OSError):
                if answered:
                    self._line.sendall(b"done\n")
            self._line.close()
            self._line = None
        if self._keeper is not None:
            self._busy.append(self._keeper)
            self._keeper = None
        if answered:
            for process in self._busy[-1:]:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(_END)
        self._busy = [process for process in self._busy if process.poll() is None]


def _lately(moment: float | None) -> bool:
    return moment is not None and time.monotonic() - moment < _SILENCE


def with_consistency(
    vms: Iterable[VirtualMachine], found: dict[str, tuple[GuestConsistency, str]] | None
) -> list[VirtualMachine]:
    """The VMs of a running host with their consistency: what nobody knows of is as after a power cut. ``found`` None:
    nobody asked for it. Pure."""
    default: tuple[GuestConsistency, str] = (
        "crash",
        "guests were not asked" if found is None else "it is not known here",
    )
    classes = found or {}
    changed = []
    for vm in vms:
        consistency, why = classes.get(vm.name, default)
        if vm.manager == "proxmox-container":
            consistency, why = "crash", "a container has no guest agent"
        changed.append(msgspec.structs.replace(vm, consistency=consistency, unquiesced=why))
    return changed
