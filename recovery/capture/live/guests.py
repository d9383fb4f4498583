"""Guests are quiesced around the freeze of their host: their own agents write out and freeze what they have.

A guest that was frozen for all of the host's freeze is *application consistent*: its filesystems are whole, and its
agent's hooks told its programs. Any other one that runs is *crash consistent*, as after a power cut.
"""

from __future__ import annotations

import contextvars
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import msgspec

from recovery.capture.hypervisors import HYPERVISORS, GuestRefusedError, Hypervisor
from recovery.capture.live.guestclass import GuestName, Quiesced
from recovery.capture.live.watchdog import Watchdog
from recovery.errors import CommandError
from recovery.layout import Manager, VirtualMachine

#: Seconds: a guest whose agent did not answer is not asked again for so long, or it would delay every minute.
_SILENCE = 600.0
#: Seconds for the thaw of a guest that may be frozen, or may not: the watchdog goes on.
_HASTE = 10.0


class GuestLimits(msgspec.Struct, frozen=True, kw_only=True):
    """``answer``: seconds that the agents of all guests together have to freeze their guests; ``hold``: after so many
    seconds from the first word all guests are thawed by the watchdog, whatever was reached. ``late``: after so many
    seconds more no freeze that was under way comes any more (a job of libvirt waits 30 s for another one; ``qm`` and
    ``virsh`` need some to start)."""

    answer: float = 5.0
    hold: float = 15.0
    late: float = 45.0


@dataclass
class GuestMemory:
    """What lasts from one point to the next: who did not answer, and when (time.monotonic)."""

    silent: dict[GuestName, float] = field(default_factory=dict)
    deaf: dict[Manager, float] = field(default_factory=dict)


@dataclass(frozen=True)
class _Guest:
    """A VM that its hypervisor knows by ``key``."""

    hypervisor: Hypervisor
    key: str
    vm: VirtualMachine = field(compare=False)

    @property
    def name(self) -> GuestName:
        return self.vm.manager, self.vm.name


class _TooLate(GuestRefusedError):
    """It was not asked: those before it took all the time."""


class GuestQuiescer:
    """A Beside. ``found`` is how each VM was in the last freeze."""

    def __init__(
        self,
        vms: Iterable[VirtualMachine],
        limits: GuestLimits,
        tell: Callable[[str], None],
        hypervisors: Sequence[Hypervisor] = HYPERVISORS,
        memory: GuestMemory | None = None,
    ) -> None:
        """``vms`` of the inventory; those that a hypervisor has no key for are of another machine."""
        managers = {hypervisor.manager: hypervisor for hypervisor in hypervisors}
        known = [(managers[vm.manager], vm) for vm in vms if vm.manager in managers]
        self._guests = [_Guest(which, key, vm) for which, vm in known if (key := which.key(vm))]
        self._limits, self._tell, self._memory = limits, tell, memory or GuestMemory()
        self._watchdog = Watchdog()
        #: Those that the watchdog knows by their places here; and of them those that may be frozen, with how many
        #: filesystems their agent froze: None: it did not say, and may do so yet.
        self._watched: list[_Guest] = []
        self._asked: dict[_Guest, int | None] = {}
        self.found: dict[GuestName, Quiesced] = {}

    def before(self) -> None:
        """Freeze the guests that run and have an agent."""
        self.found, self._asked, self._watched = {}, {}, []
        told = self._states(self._guests)
        wanted = [guest for guest in self._guests if self._may_be_asked(guest, told)]
        if not wanted:
            return
        thaws = [guest.hypervisor.thaw_command(guest.key) for guest in wanted]
        if not self._watchdog.start(thaws, self._limits.hold, self._limits.late):
            why = "the process that would thaw it in any case did not start"
            self._tell(f"No VM was quiesced: {why}.")
            self.found.update({guest.name: Quiesced("crash", why, "running") for guest in wanted})
            return
        self._watched, self._asked = wanted, dict.fromkeys(wanted)
        end = time.monotonic() + self._limits.answer
        for guest, count, error in self._each(wanted, lambda guest: self._freeze(guest, end)):
            self._asked[guest] = count
            if isinstance(error, GuestRefusedError):
                # It has no agent that runs, or somebody else holds it frozen, which is not for us to end.
                del self._asked[guest]
            if not count:
                why = error.message.rstrip(".") if error else "its guest agent froze no filesystem"
                if not isinstance(error, _TooLate):
                    self._memory.silent[guest.name] = time.monotonic()
                self.found[guest.name] = Quiesced("crash", why, "running")
                self._tell(f"The VM '{guest.vm.name}' could not be quiesced: {why}.")
        self._watchdog.watch(self._places(self._asked))

    def _places(self, guests: Iterable[_Guest]) -> list[int]:
        return sorted(map(self._watched.index, guests))

    def _states(self, guests: Sequence[_Guest]) -> dict[Manager, dict[str, str] | str]:
        """What each hypervisor of these guests says of them by key; a text is why it says nothing."""
        told: dict[Manager, dict[str, str] | str] = {}
        for hypervisor in dict.fromkeys(guest.hypervisor for guest in guests):
            manager = hypervisor.manager
            if _lately(self._memory.deaf.get(manager)):
                told[manager] = f"{hypervisor.title} did not answer a short while ago"
                continue
            try:
                told[manager] = hypervisor.states()
            except CommandError as error:
                self._memory.deaf[manager] = time.monotonic()
                told[manager] = error.message.rstrip(".")
                self._tell(f"No VM of {hypervisor.title} is quiesced: {told[manager]}.")
        return told

    def _may_be_asked(self, guest: _Guest, told: Mapping[Manager, dict[str, str] | str]) -> bool:
        """Whether to ask its agent; else ``found`` has how it is."""
        states = told[guest.hypervisor.manager]
        if isinstance(states, str):
            self.found[guest.name] = Quiesced("crash", states)
            return False
        state = states.get(guest.key, "")
        if why := guest.hypervisor.asleep(guest.vm, state):
            found = Quiesced("crash", why, state)
        elif state == "shut off":
            found = Quiesced("offline", "", state)
        elif state != "running":
            found = Quiesced("crash", "it is not running", state)
        elif why := guest.hypervisor.refusal(guest.vm):
            found = Quiesced("crash", why, state)
        elif _lately(self._memory.silent.get(guest.name)):
            found = Quiesced("crash", "its guest agent did not answer a short while ago", state)
        else:
            return True
        self.found[guest.name] = found
        return False

    def frozen(self, deadline: float) -> None:
        """Nothing to do but to be still."""

    def after(self) -> None:
        """Thaw every guest that may be frozen; what its agent says proves that it was frozen all the time."""
        asked, self._asked = self._asked, {}
        left = set(asked)
        try:
            for guest, count, error in self._each(list(asked), lambda guest: self._thaw(guest, asked[guest])):
                frozen = asked[guest]
                # Of two commands that are both under way the second may come first: only after an answer to the
                # freeze is the answer to the thaw the last word.
                if count is not None and frozen is not None:
                    left.discard(guest)
                if guest.name in self.found:
                    continue
                if count and frozen and count >= frozen:
                    self.found[guest.name] = Quiesced("application", "", "running")
                else:
                    why = error.message.rstrip(".") if error else "it was thawed before the host was"
                    self.found[guest.name] = Quiesced("crash", why, "running")
                    self._tell(f"The VM '{guest.vm.name}' was not quiesced all the time: {why}.")
        finally:
            self._watchdog.end(self._places(left))
        self._look_again()

    def _look_again(self) -> None:
        """Who was shut off before the freeze and is not now was started meanwhile, and may have written."""
        off = [guest for guest in self._guests if self.found.get(guest.name, Quiesced("")).consistency == "offline"]
        told = self._states(off)
        for guest in off:
            states = told[guest.hypervisor.manager]
            if isinstance(states, str) or states.get(guest.key) != "shut off":
                state = "" if isinstance(states, str) else states.get(guest.key, "")
                self.found[guest.name] = Quiesced("crash", "it may have been started meanwhile", state)

    def _freeze(self, guest: _Guest, end: float) -> int:
        """How many filesystems its agent froze. Raises CommandError."""
        seconds = end - time.monotonic()
        if seconds <= 0:
            raise _TooLate("there was no time left for it")
        return guest.hypervisor.freeze(guest.key, seconds)

    def _thaw(self, guest: _Guest, frozen: int | None) -> int:
        return guest.hypervisor.thaw(guest.key, _HASTE if frozen is None else guest.hypervisor.thaw_seconds)

    def _each(
        self, guests: Sequence[_Guest], work: Callable[[_Guest], int]
    ) -> list[tuple[_Guest, int | None, CommandError | None]]:
        """``work`` for all of them at once: the guest and its number, or None and why. Raises nothing."""

        def one(guest: _Guest) -> tuple[_Guest, int | None, CommandError | None]:
            try:
                return guest, work(guest), None
            except CommandError as error:
                return guest, None, error

        if not guests:
            return []
        with ThreadPoolExecutor(min(guest.hypervisor.at_once for guest in guests)) as pool:
            # The context carries which Runner is in force (recovery.commands).
            return [f.result() for f in [pool.submit(contextvars.copy_context().run, one, guest) for guest in guests]]


def _lately(moment: float | None) -> bool:
    return moment is not None and time.monotonic() - moment < _SILENCE
