"""Guests are quiesced around the freeze of their host: their own agents write out and freeze what they have.

A guest that was frozen for all of the host's freeze is *application consistent*: its filesystems are whole, and its
agent's hooks told its programs. Any other one that runs is *crash consistent*, as after a power cut.
"""

from __future__ import annotations

import contextlib
import contextvars
import re
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from recovery.capture.live import guestkeeper
from recovery.commands import run
from recovery.errors import CommandError
from recovery.layout import GuestConsistency, VirtualMachine

URI = "qemu:///system"
_CHANNEL = "org.qemu.guest_agent.0"
#: At once; more wait for their turn within the same time.
_AT_ONCE = 16
#: Seconds: a guest whose agent did not answer is not asked again for so long, or it would delay every minute.
_SILENCE = 600.0
#: Seconds for a thaw or a list of domains, which do not wait for a guest's programs; and for the watchdog to start.
_PATIENCE, _START = 10.0, 30.0


class GuestLimits(msgspec.Struct, frozen=True, kw_only=True):
    """``answer``: seconds that the agents of all guests together have to freeze their guests; ``hold``: after so many
    seconds from the first word all guests are thawed by the watchdog, whatever was reached."""

    answer: float = 5.0
    hold: float = 15.0


class GuestQuiescer:
    """A Beside. ``found`` is how each VM was in the last freeze: its consistency, and why it is no better."""

    def __init__(self, vms: Iterable[VirtualMachine], limits: GuestLimits, tell: Callable[[str], None]) -> None:
        """``vms`` of the inventory: those with a state other than ``unknown`` are of this machine's libvirt."""
        self._vms = [vm for vm in vms if vm.uuid and vm.state != "unknown"]
        self._limits, self._tell = limits, tell
        self._names = {vm.uuid: vm.name for vm in self._vms}
        self._silent: dict[str, float] = {}
        self._line: socket.socket | None = None
        self._keeper: subprocess.Popen[bytes] | None = None
        #: Watchdogs that still thaw what did not answer.
        self._busy: list[subprocess.Popen[bytes]] = []
        self._no_libvirt = -_SILENCE
        #: Guests that may be frozen -> how many filesystems their agent froze; None: it did not answer.
        self._asked: dict[str, int | None] = {}
        self.found: dict[str, tuple[GuestConsistency, str]] = {}

    def before(self) -> None:
        """Freeze the guests that run and have an agent."""
        self.found, self._asked = {}, {}
        if not self._vms:
            return
        if time.monotonic() - self._no_libvirt < _SILENCE:
            self.found = {vm.name: ("crash", "libvirt did not answer a short while ago") for vm in self._vms}
            return
        try:
            running, off = self._domains("running"), self._domains("shutoff")
        except CommandError as error:
            self._no_libvirt = time.monotonic()
            self.found = {vm.name: ("crash", error.message.rstrip(".")) for vm in self._vms}
            return
        wanted: list[str] = []
        for vm in self._vms:
            if vm.uuid in off:
                self.found[vm.name] = ("offline", "")
            elif vm.uuid not in running:
                self.found[vm.name] = ("crash", "it is not running")
            elif _CHANNEL not in vm.definition:
                self.found[vm.name] = ("crash", "it has no guest agent")
            elif time.monotonic() - self._silent.get(vm.uuid, -_SILENCE) < _SILENCE:
                self.found[vm.name] = ("crash", "its guest agent did not answer a short while ago")
            else:
                wanted.append(vm.uuid)
        if not wanted:
            return
        if not self._start_keeper(wanted):
            for uuid in wanted:
                self.found[self._names[uuid]] = ("crash", "the process that would thaw it in any case did not start")
            return
        self._asked = dict.fromkeys(wanted)
        end = time.monotonic() + self._limits.answer
        for uuid, count, why in self._each(wanted, lambda uuid: self._freeze(uuid, end)):
            self._asked[uuid] = count
            if not count:
                why = why or "its guest agent froze no filesystem"
                self._silent[uuid] = time.monotonic()
                self.found[self._names[uuid]] = ("crash", why)
                self._tell(f"The VM '{self._names[uuid]}' could not be quiesced: {why}.")

    def frozen(self, deadline: float) -> None:
        """Nothing to do but to be still."""

    def after(self) -> None:
        """Thaw every guest that was asked, also one that did not answer; what it says proves that it was frozen."""
        asked, self._asked = self._asked, {}
        answered = True
        for uuid, count, why in self._each(list(asked), self._thaw):
            name, frozen = self._names[uuid], asked[uuid]
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

    def _domains(self, state: str) -> set[str]:
        """UUIDs of the domains in that state. Raises CommandError."""
        done = run(["virsh", "-r", "-c", URI, "list", f"--state-{state}", "--uuid"], timeout=_PATIENCE)
        return {line.strip() for line in done.stdout.splitlines() if line.strip()}

    def _freeze(self, uuid: str, end: float) -> int:
        return self._command("domfsfreeze", uuid, end - time.monotonic())

    def _thaw(self, uuid: str) -> int:
        return self._command("domfsthaw", uuid, _PATIENCE)

    def _command(self, word: str, uuid: str, seconds: float) -> int:
        """How many filesystems it says. Raises CommandError."""
        if seconds <= 0:
            raise CommandError("there was no time left for it")
        done = run(["virsh", "-c", URI, word, "--domain", uuid], timeout=seconds)
        number = re.search(r"(\d+) filesystem", done.stdout)
        return int(number[1]) if number else 0

    def _each(self, guests: Sequence[str], work: Callable[[str], int]) -> list[tuple[str, int | None, str]]:
        """``work`` for all of them at once: the guest, its number, or None and why. Raises nothing."""

        def one(uuid: str) -> tuple[str, int | None, str]:
            try:
                return uuid, work(uuid), ""
            except CommandError as error:
                return uuid, None, error.message.rstrip(".")

        if not guests:
            return []
        with ThreadPoolExecutor(min(_AT_ONCE, len(guests))) as pool:
            # The context carries which Runner is in force (recovery.commands).
            return [f.result() for f in [pool.submit(contextvars.copy_context().run, one, uuid) for uuid in guests]]

    def _start_keeper(self, guests: Sequence[str]) -> bool:
        self._line, theirs = socket.socketpair()
        try:
            with theirs:
                # Popen, not run(): it lives beside us. Its own session, so that no signal of a terminal ends it.
                self._keeper = subprocess.Popen(
                    [sys.executable, "-I", "-S", str(Path(guestkeeper.__file__).resolve()), str(self._limits.hold),
                     URI, *guests],
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
                    process.wait(_PATIENCE)
        self._busy = [process for process in self._busy if process.poll() is None]


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
        if vm.manager != "libvirt":
            consistency, why = "crash", "guests of Proxmox are not asked"
        changed.append(msgspec.structs.replace(vm, consistency=consistency, unquiesced=why))
    return changed
