"""Guests are frozen around the freeze of their host, and thawed whatever happens. libvirt and Proxmox are faked at the
one door of external commands; the watchdog is the real process, with a ``virsh`` or ``qm`` of ours on its path."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest

from recovery.capture.live.capture import capture_live
from recovery.capture.live.guestclass import Quiesced, with_consistency
from recovery.capture.live.guests import GuestLimits, GuestMemory, GuestQuiescer
from recovery.capture.live.holder import Holder, Thawed
from recovery.capture.live.rawvolumes import RawVolume
from recovery.capture.live.session import LiveSession
from recovery.capture.request import CaptureRequest
from recovery.commands import Completed, run_real, use_runner
from recovery.errors import CommandError
from recovery.events import ignore
from recovery.layout import VirtualMachine
from recovery.repository.index import SqliteIndex
from tests.integration.capture_images import MIB, sh
from tests.integration.test_live_capture import PATIENT, disk_with
from tests.support.processes import ROOT, environment
from tests.support.repositories import new_repository
from tests.support.vm_host import DOMAIN

AGENT = "<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>"


def uuid(number: int) -> str:
    return f"0b9e1c4e-1b1e-4f6a-9d0e-00000000000{number}"


@dataclass
class Libvirt:
    """The door with a ``virsh`` behind it; other programs are real. Guests by UUID: ``frozen`` ones, and how each
    answers: a number of filesystems, or what goes wrong."""

    guests: dict[str, int | str]
    off: set[str] = field(default_factory=set)
    saved: set[str] = field(default_factory=set)
    frozen: set[str] = field(default_factory=set)
    calls: list[tuple[str, ...]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(
        self,
        argv: Sequence[str],
        *,
        input: bytes | None = None,
        timeout: float | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        on_output: Callable[[str], None] | None = None,
    ) -> Completed:
        if argv[0] != "virsh":
            return run_real(argv, input=input, timeout=timeout, env=env, cwd=cwd, on_output=on_output)
        assert timeout, "a guest that hangs must not hang the host"
        words = tuple(argv)
        with self.lock:
            self.calls.append(words[3:] if words[1] == "-c" else words[4:])
        said = self._answer(words, timeout)
        return said if isinstance(said, Completed) else Completed(words, 0, said)

    def _answer(self, words: tuple[str, ...], timeout: float) -> str | Completed:
        for option, those in (
            ("--state-running", set(self.guests)), ("--state-shutoff", self.off | self.saved),
            ("--state-paused", set[str]()), ("--with-managed-save", self.saved),
            ("--all", {*self.guests, *self.off, *self.saved}),
        ):  # fmt: skip
            if option in words:
                return "\n".join(those)
        guest = words[-1]
        answer = self.guests[guest]
        if words[3] == "domfsfreeze":
            if answer == "hangs":
                # As libvirt does: the client is killed, the command stays on its way to the guest.
                self.frozen.add(guest)
                raise CommandError(f"'virsh' did not end within {timeout:.0f} seconds and was stopped.")
            if answer == "refuses":
                return Completed(words, 1, "", "error: QEMU guest agent is not connected")
            self.frozen.add(guest)
            if answer == "breaks":
                return Completed(words, 1, "", "error: End of file while reading data: Input/output error")
            return f"Froze {2 if answer == 'thaws itself' else answer} filesystem(s)"
        assert words[3] == "domfsthaw"
        self.frozen.discard(guest)
        if answer == "thaws itself":
            return "Thawed 0 filesystem(s)"
        return f"Thawed {answer if isinstance(answer, int) else 0} filesystem(s)"


def vm(name: str, number: int, *, agent: bool = True, state: str = "running") -> VirtualMachine:
    return VirtualMachine(name=name, uuid=uuid(number), state=state, definition=AGENT if agent else "<domain/>")


@dataclass
class Qm:
    """The door with a ``qm`` behind it. Guests by number, those that run and that are stopped by number and name."""

    guests: dict[str, int | str]
    running: set[str]
    stopped: set[str]
    frozen: set[str] = field(default_factory=set)
    calls: list[tuple[str, ...]] = field(default_factory=list)

    def __call__(self, argv: Sequence[str], *, timeout: float | None = None, **more: object) -> Completed:
        if argv[0] != "qm":
            raise CommandError(f"The program '{argv[0]}' is not installed.")
        assert timeout, "a guest that hangs must not hang the host"
        self.calls.append(tuple(argv))
        if argv[1] == "list":
            rows = [(key, "running") for key in self.running] + [(key, "stopped") for key in self.stopped]
            lines = [f"{key.replace('-', ' ', 1)} {state} 2048 8.00 1" for key, state in rows]
            return Completed(tuple(argv), 0, "\n".join(["VMID NAME STATUS MEM(MB) BOOTDISK(GB) PID", *lines]))
        *_, number, word = argv
        if self.guests[number] == "refuses":
            return Completed(tuple(argv), 255, "", "QEMU guest agent is not running")
        (self.frozen.add if word == "fsfreeze-freeze" else self.frozen.discard)(number)
        return Completed(tuple(argv), 0, f"{self.guests[number]}\n")


def pve(name: str, *, agent: str = "agent: 1", state: str = "running") -> VirtualMachine:
    return VirtualMachine(name=name, state=state, manager="proxmox", definition=f"{agent}\n")


def test_each_guest_has_the_consistency_that_was_proven() -> None:
    answers: dict[str, int | str] = {
        uuid(1): 3, uuid(2): "hangs", uuid(3): "refuses", uuid(4): "thaws itself", uuid(5): 1,
    }  # fmt: skip
    libvirt, told = Libvirt(answers, off={uuid(6)}, saved={uuid(9)}), list[str]()
    vms = [vm("good", 1), vm("hanging", 2), vm("dead", 3), vm("vss", 4), vm("dumb", 5, agent=False),
           vm("off", 6), vm("paused", 7), vm("elsewhere", 8, state="unknown"),
           vm("sleeping", 9, state="saved")]  # fmt: skip
    limits, memory = GuestLimits(answer=60.0, hold=100.0, late=0.0), GuestMemory()
    quiescer = GuestQuiescer(vms, limits, told.append, memory=memory)
    with use_runner(libvirt):
        quiescer.before()
        assert libvirt.frozen >= {uuid(1), uuid(2), uuid(4)}
        quiescer.frozen(0.0)
        quiescer.after()
    assert not libvirt.frozen
    classes = {each.name: (each.consistency, each.unquiesced) for each in with_consistency(vms, quiescer.found)}
    assert classes["good"] == ("application", "")
    assert classes["off"] == ("offline", "") and classes["sleeping"] == ("crash", "it is suspended to disk")
    for name, words in (
        ("hanging", "did not end within"), ("dead", "not connected"), ("vss", "thawed before the host was"),
        ("dumb", "no guest agent"), ("paused", "not running"), ("elsewhere", "not known here"),
    ):  # fmt: skip
        assert classes[name][0] == "crash" and words in classes[name][1], classes[name]
    assert len(told) == 3
    # Whoever may be frozen is thawed; who refused may be frozen by somebody else, who thaws it.
    thawed = {words[-1] for words in libvirt.calls if words[0] == "domfsthaw"}
    assert thawed == {uuid(1), uuid(2), uuid(4)}
    # A minute later, and at the next keyframe, who did not answer is not waited for again. One was started meanwhile.
    libvirt.calls.clear()
    libvirt.off.clear()
    libvirt.guests[uuid(6)] = 1
    quiescer = GuestQuiescer([*vms[:5], vm("off", 6, agent=False)], limits, told.append, memory=memory)
    with use_runner(libvirt):
        quiescer.before()
        quiescer.after()
    assert {words[-1] for words in libvirt.calls if words[0] == "domfsfreeze"} == {uuid(1), uuid(4)}
    assert quiescer.found["libvirt", "good"].consistency == "application"
    assert "a short while ago" in quiescer.found["libvirt", "hanging"].why
    assert [each.state for each in with_consistency([vm("off", 6, state="shut off")], quiescer.found)] == ["running"]


def test_a_guest_is_thawed_though_its_freeze_failed_or_found_nothing_to_freeze() -> None:
    """libvirt is restarted while the command is under way; hooks ran though no filesystem could be frozen."""
    libvirt, told = Libvirt({uuid(1): "breaks", uuid(2): 0}), list[str]()
    quiescer = GuestQuiescer([vm("one", 1), vm("two", 2)], GuestLimits(hold=100.0, late=0.0), told.append)
    with use_runner(libvirt):
        quiescer.before()
        assert libvirt.frozen == {uuid(1), uuid(2)}
        quiescer.after()
    assert not libvirt.frozen and len(told) == 2
    assert {how.consistency for how in quiescer.found.values()} == {"crash"}
    assert "End of file" in quiescer.found["libvirt", "one"].why


def test_who_is_started_during_the_freeze_is_not_offline() -> None:
    libvirt, told = Libvirt({}, off={uuid(1), uuid(2)}), list[str]()
    quiescer = GuestQuiescer([vm("one", 1), vm("two", 2)], GuestLimits(), told.append)
    with use_runner(libvirt):
        quiescer.before()
        libvirt.off.remove(uuid(2))
        libvirt.guests[uuid(2)] = 1
        quiescer.after()
    assert quiescer.found["libvirt", "one"] == Quiesced("offline", "", "shut off")
    assert quiescer.found["libvirt", "two"] == Quiesced("crash", "it may have been started meanwhile", "running")


def test_a_minute_whose_guests_are_not_asked_does_not_claim_to_know() -> None:
    minute = with_consistency([vm("runs", 1), vm("off", 2, state="shut off")], None)
    assert [each.consistency for each in minute] == ["crash", ""]


def test_without_libvirt_all_are_as_after_a_power_cut() -> None:
    def no_virsh(argv: Sequence[str], **more: object) -> Completed:
        raise CommandError("The program 'virsh' is not installed.")

    quiescer = GuestQuiescer([vm("web", 1)], GuestLimits(), lambda text: None)
    with use_runner(no_virsh):
        quiescer.before()
        quiescer.after()
    assert quiescer.found == {("libvirt", "web"): Quiesced("crash", "The program 'virsh' is not installed")}
    assert [each.consistency for each in with_consistency([vm("web", 1)], None)] == ["crash"]
    other = msgspec.structs.replace(vm("web", 1), manager="proxmox-container")
    assert "container" in with_consistency([other], {("libvirt", "web"): Quiesced("application")})[0].unquiesced


def test_guests_of_proxmox_beside_those_of_a_libvirt_that_is_down() -> None:
    qm = Qm({"100": 2, "101": "refuses", "102": 1}, {"100-web", "101-mail", "102-dumb"}, {"103-old"})
    told = list[str]()
    vms = [pve("100-web"), pve("101-mail"), pve("102-dumb", agent="agent: 0"), pve("103-old", state="shut off"),
           pve("104-gone"), vm("libvirts", 1),
           msgspec.structs.replace(pve("200-box"), manager="proxmox-container")]  # fmt: skip
    quiescer = GuestQuiescer(vms, GuestLimits(answer=60.0, hold=100.0), told.append)
    for _ in range(2):
        with use_runner(qm):
            quiescer.before()
            assert qm.frozen == {"100"}
            quiescer.after()
        assert not qm.frozen
    classes = {each.name: (each.consistency, each.unquiesced) for each in with_consistency(vms, quiescer.found)}
    assert classes["100-web"] == ("application", "") and classes["103-old"] == ("offline", "")
    for name, words in (
        ("101-mail", "a short while ago"), ("102-dumb", "not enabled in Proxmox"), ("104-gone", "not running"),
        ("libvirts", "libvirt did not answer a short while ago"), ("200-box", "container"),
    ):  # fmt: skip
        assert classes[name][0] == "crash" and words in classes[name][1], classes[name]
    assert told == ["No VM of libvirt is quiesced: The program 'virsh' is not installed.",
                    "The VM '101-mail' could not be quiesced: "
                    "'qm' failed with exit code 255: QEMU guest agent is not running."]  # fmt: skip
    # The second time only who had answered the first time; and who refused is thawed by whoever froze it.
    assert [words[-2] for words in qm.calls if words[-1] == "fsfreeze-freeze"].count("101") == 1
    assert {words[-2] for words in qm.calls if words[-1] == "fsfreeze-thaw"} == {"100"}


# --- the watchdog ----------------------------------------------------------------------------------------------------

#: ``virsh`` and ``qm`` in one: what they are asked differs, and both are content with these answers.
PROGRAM = """#!/bin/sh
echo "$*" >> "$REKINDLE_GUEST_LOG"
case "$*" in
*--state-running*) echo 0b9e1c4e-1b1e-4f6a-9d0e-000000000001 ;;
list) echo "100 web running 2048 8.00 1" ;;
*freeze-freeze*|*domfsfreeze*)
    sleep "$REKINDLE_GUEST_SLOW"
    echo "is frozen" >> "$REKINDLE_GUEST_LOG"
    case "$*" in *domfsfreeze*) echo "Froze 1 filesystem(s)" ;; *) echo 1 ;; esac ;;
*thaw*)
    # The first time it fails, as when libvirt is restarted; qm says so and ends well.
    if [ -e "$REKINDLE_GUEST_LOG.failed" ]; then echo "Thawed 1 filesystem(s)"
    else
        touch "$REKINDLE_GUEST_LOG.failed"
        case "$*" in *domfsthaw*) exit 1 ;; *) echo '{ "error" : { "desc" : "no" } }' ;; esac
    fi ;;
esac
"""
QUIESCER = """
import sys, time
from recovery.capture.live.guests import GuestLimits, GuestQuiescer
from recovery.layout import VirtualMachine
vm = {
    "virsh": VirtualMachine(name="web", uuid="0b9e1c4e-1b1e-4f6a-9d0e-000000000001", state="running",
                            definition="org.qemu.guest_agent.0"),
    "qm": VirtualMachine(name="100-web", manager="proxmox", state="running", definition="agent: 1"),
}[sys.argv[1]]
quiescer = GuestQuiescer([vm], GuestLimits(answer=60.0, hold=float(sys.argv[2]), late=5.0), print)
quiescer.before()
print("frozen", flush=True)
time.sleep(3600)
"""
THAW = {"virsh": "domfsthaw --domain 0b9e1c4e-1b1e-4f6a-9d0e-000000000001", "qm": "guest cmd 100 fsfreeze-thaw"}


def agent_with(program: str, folder: Path, hold: str, slow: int) -> subprocess.Popen[str]:
    (folder / program).write_text(PROGRAM)
    (folder / program).chmod(0o755)
    env = environment(folder) | {"PATH": f"{folder}:{os.environ['PATH']}"}
    env |= {"REKINDLE_GUEST_LOG": str(folder / "guest.log"), "REKINDLE_GUEST_SLOW": str(slow)}
    return subprocess.Popen(
        [sys.executable, "-c", QUIESCER, program, hold], stdout=subprocess.PIPE, text=True, env=env, cwd=ROOT
    )


def wait_for(done: Callable[[], bool], log: Path) -> None:
    end = time.monotonic() + 120
    while not done():
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.1)


@pytest.mark.parametrize("program", ["virsh", "qm"])
@pytest.mark.parametrize(("hold", "kill"), [("3600", True), ("1", False)])
def test_a_guest_thaws_when_the_agent_is_killed_or_hangs(tmp_path: Path, hold: str, kill: bool, program: str) -> None:
    log = tmp_path / "guest.log"
    agent = agent_with(program, tmp_path, hold, 0)
    try:
        assert agent.stdout is not None and agent.stdout.readline() == "frozen\n"
        if kill:
            time.sleep(0.5)
            assert log.read_text().count(THAW[program]) == 0
            agent.send_signal(signal.SIGKILL)
        wait_for(lambda: log.read_text().count(THAW[program]) >= 2, log)  # the second one worked
    finally:
        agent.kill()
        agent.wait()


@pytest.mark.parametrize("program", ["virsh", "qm"])
def test_a_freeze_that_comes_after_its_agent_was_killed_is_thawed(tmp_path: Path, program: str) -> None:
    """The client of the freeze lives on, and what it does comes after a thaw that was content."""
    log = tmp_path / "guest.log"
    agent = agent_with(program, tmp_path, "3600", 4)
    try:
        wait_for(lambda: log.exists() and "freeze" in log.read_text(), log)
        agent.kill()
        wait_for(lambda: "is frozen" in log.read_text(), log)
        before, _, _ = log.read_text().partition("is frozen")
        assert THAW[program] in before
        wait_for(lambda: THAW[program] in log.read_text().partition("is frozen")[2], log)
    finally:
        agent.kill()
        agent.wait()


# --- a whole capture -------------------------------------------------------------------------------------------------


def make_host(top: Path, device: Path) -> None:
    """What the inventory takes for the root of this very machine, on the filesystem of ``device`` at ``top``."""
    for name in ("etc/libvirt/qemu", "boot", "srv", "usr"):
        (top / name).mkdir(parents=True)
    shutil.copy("/etc/machine-id", top / "etc/machine-id")
    (top / "boot/vmlinuz").touch()
    (top / "etc/os-release").write_text("ID=debian\n")
    spec = sh("blkid", "-o", "value", "-s", "UUID", device).strip()
    (top / "etc/fstab").write_text(f"UUID={spec} / ext4 defaults 0 1\n")


@pytest.mark.root
@pytest.mark.skipif(
    os.geteuid() != 0 or not Path("/dev/loop-control").exists() or not Path("/etc/machine-id").exists(),
    reason="needs root, loop devices and a machine-id",
)
def test_a_point_says_of_each_vm_how_consistent_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    libvirt = Libvirt({uuid(1): 2, uuid(2): "refuses", uuid(4): 1}, off={uuid(3)})
    frozen_at_thaw: list[set[str]] = []
    usual_freeze, usual_thaw = Holder.freeze, Holder.thaw

    def freeze(holder: Holder, seconds: float, volumes: Sequence[RawVolume] = ()) -> list[str]:
        assert uuid(1) in libvirt.frozen, "guests first"
        return list(usual_freeze(holder, seconds, volumes))

    def thaw(holder: Holder) -> Thawed:
        frozen_at_thaw.append(set(libvirt.frozen))
        return usual_thaw(holder)

    monkeypatch.setattr(Holder, "freeze", freeze)
    monkeypatch.setattr(Holder, "thaw", thaw)
    with disk_with("ext4", tmp_path, 64 * MIB) as (device, top):
        make_host(top, device)
        for number, name in enumerate(("web", "mail", "old", "dumb"), 1):
            channel = AGENT if name != "dumb" else ""
            (top / f"etc/libvirt/qemu/{name}.xml").write_text(DOMAIN.format(name=name, number=number, disks=channel))
        repository = new_repository(tmp_path / "r")
        request = CaptureRequest(host="h", disks=(device,), workers=1)
        with use_runner(libvirt), LiveSession(PATIENT, guests=GuestLimits(hold=110.0, answer=60.0)) as session:
            point = capture_live(repository, SqliteIndex(":memory:"), request, session, ignore, threading.Event())
    assert not libvirt.frozen and frozen_at_thaw and all(uuid(1) in each for each in frozen_at_thaw)
    classes = {each.name: each.consistency for each in repository.point("h", point.id).body.vms}
    assert classes == {"web": "application", "mail": "crash", "old": "offline", "dumb": "crash"}
    assert point.body.consistency == "filesystem"
