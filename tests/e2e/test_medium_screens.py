"""Every screen of the console on the VGA console of a booted machine, readable with the medium's own font.

Minutes without KVM, so it is asked for by name: ``REKINDLE_SCREENS=1``. ``REKINDLE_SCREENSHOTS=DIR`` keeps the
pictures (those of ``docs/img/vga`` were made so); the times of its start are printed.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from pathlib import Path

import pytest

from recovery.units import GIB, MIB
from tests.bench.boot import STAGES, ask_system, measure
from tests.e2e.lab.accel import KERNEL_PARAMETER, best_acceleration
from tests.e2e.lab.hardware import DiskSpec, Hardware, free_port, make_blank_disk
from tests.e2e.lab.qemu import Machine
from tests.e2e.lab.screen import UNKNOWN, ScreenReader
from tests.e2e.lab.server import Serving, rekindle, serving
from tests.support.relay import Relay
from tests.support.vm_host import LVM, ROOT, make_vm_host

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not os.environ.get("REKINDLE_SCREENS"), reason="set REKINDLE_SCREENS=1"),
]
PASSPHRASE = "correct horse battery staple"
SERIAL = "S5GXNX0T103344"
#: Bytes a second of each connection during the restore: some seconds of it are to be seen.
_SLOW = 2 * MIB


class Tour:
    """Goes from screen to screen, looks at each, keeps a picture."""

    def __init__(self, machine: Machine, pictures: Path, limit: float) -> None:
        self.machine, self.pictures, self.limit = machine, pictures, limit
        self.seen: list[str] = []

    def look(self, name: str, pattern: str) -> str:
        """Wait for ``pattern``, until the screen stands still; every cell must be a glyph of the medium's font."""
        self.machine.wait_for_screen(pattern, self.limit)
        before = ""
        while (text := self.machine.wait_for_screen(pattern, self.limit)) != before:
            before = text
            time.sleep(2)  # an emulated processor takes a second from a screen's first frame to its last
        self.machine.screenshot(self.pictures / f"{name}.png")
        self._check(name, text)
        return text

    def glance(self, name: str, pattern: str) -> None:
        """The same of a screen that never stands still."""
        self.machine.wait_for_screen(pattern, self.limit)
        self.machine.screenshot(self.pictures / f"{name}.png")
        self._check(name, self.machine.screen_text())

    def _check(self, name: str, text: str) -> None:
        assert UNKNOWN not in text, f"{name}: a cell that is in no font\n{text}"
        # A blank is in every font: the sign in the title has gone missing when a font came after the first frame.
        head = text.splitlines()[0].strip()
        assert not head.startswith("Rekindle") or head.startswith("Rekindle · "), f"{name}: {head}"
        self.seen.append(name)

    def press(self, *keys: str) -> None:
        self.machine.press(*keys, pause=0.5)

    def type(self, text: str) -> None:
        self.machine.type(text)

    def button(self, label: str) -> None:
        """Go to a button of the row that the focus is in, to either side."""
        for _ in range(8):
            text = self.machine.screen_text()
            if f"[>{label}<]" in text:
                return
            self.press("left" if 0 <= text.find(f"[ {label} ]") < text.find("[>") else "right")
            time.sleep(2)
        raise AssertionError(f"There is no button {label}:\n{self.machine.screen_text()}")


def test_every_screen_of_a_booted_medium(tmp_path: Path) -> None:
    host = make_vm_host(tmp_path)
    repository, secret = tmp_path / "repository", tmp_path / "secret"
    secret.write_text(PASSPHRASE + "\n")
    rekindle("repo", "init", repository, "--passphrase-file", secret)
    words: list[str | Path] = ["--host", "vhost1", "--firmware", "bios", "--secret-file", secret]
    rekindle("capture", repository, host.disk, *words, "--note", "before the update")
    old = tmp_path / "old.raw"  # a disk of the dead machine; with its volume group the plan would refuse
    shutil.copy(host.disk, old)
    with old.open("r+b") as file:
        file.seek(LVM[0])
        file.write(bytes(2 * MIB))
    with host.disk.open("r+b") as file:  # the host works on, where no logical volume is
        file.seek(400 * MIB)
        file.write(os.urandom(100 * MIB))
    rekindle("capture", repository, host.disk, *words)
    inside, port = free_port(2)
    network = Relay(port, inside)
    with (
        contextlib.closing(network),
        serving(repository, tmp_path / "server.log", inside, names=("10.0.2.2",)) as server,
    ):
        code = rekindle("code", "issue", "--host", "vhost1", "--state", server.state)[-1]["code"]
        medium = Path(os.environ.get("REKINDLE_MEDIUM", tmp_path / "medium.iso"))
        if "REKINDLE_MEDIUM" not in os.environ:
            build(medium, server, port)
        disks = (
            DiskSpec(make_blank_disk(tmp_path / "target.raw", 4 * GIB), "nvme", SERIAL),
            DiskSpec(old, "sata", "ZHZ0A1B2"),
        )
        # What the medium promises to run in.
        hardware = Hardware(firmware="bios", cdrom=medium, disks=disks, memory=700)
        accel = best_acceleration(medium.parent / "netboot/vmlinuz")
        reader = ScreenReader.default(medium.with_suffix(".psf"))
        pictures = Path(os.environ.get("REKINDLE_SCREENSHOTS", tmp_path / "pictures"))
        with Machine(hardware, tmp_path / "vm", accel, reader) as machine:
            measure(machine, STAGES["recovery"], "")
            tour = Tour(machine, pictures, 60 * accel.slowness)
            restore(tour, str(code), network)
            others(tour)
            ask_system(machine, accel.slowness)
    with (tmp_path / "target.raw").open("rb") as restored, host.disk.open("rb") as captured:
        restored.seek(ROOT[0])
        captured.seek(ROOT[0])
        assert restored.read(ROOT[1]) == captured.read(ROOT[1])
    print(f"{len(tour.seen)} screens: {', '.join(tour.seen)}")


def build(medium: Path, server: Serving, port: int) -> None:
    words = ["--server", f"https://10.0.2.2:{port}", "--ca", server.ca_fingerprint, "--output", str(medium)]
    words += ["--kernel-parameter", KERNEL_PARAMETER]
    rekindle("iso", "build", *words, "--netboot", medium.parent / "netboot")


def restore(tour: Tour, code: str, network: Relay) -> None:
    """The way of a restore, with its dialogs."""
    tour.look("task", "> Restore a host")
    tour.press("ret")
    tour.look("repository", r"trusted: signed")
    tour.press("ret", "ret")
    tour.type(code)
    tour.press("ret")
    tour.type("wrong")
    tour.press("ret")
    tour.look("repository-refused", r"│ Error")
    tour.press("ret")
    tour.press(*["backspace"] * 5)
    tour.type(PASSPHRASE)
    tour.press("ret")
    tour.look("host", "> vhost1")
    tour.press("ret")
    tour.look("point", r"(?s)step 4 of 8(?!.*[Rr]eading).*VM +db")
    tour.press("tab", "tab")
    tour.look("point-details-button", r"\[>Details<\]")
    tour.press("ret")
    tour.look("point-details", r"│ Consistency")
    tour.press("esc", "shift+tab", "shift+tab", "ret")
    tour.look("target-disks", r"\[>Continue<\]")
    tour.press("shift+tab", "shift+tab", "spc")  # the little host has no kernel to be made bootable
    tour.look("target-disks-not-adapted", r"\[ \] Make it boot here")
    tour.press("tab", "tab", "ret")
    tour.look("plan", "The restore is possible")
    tour.press("ret")
    tour.look("confirm", "Type its serial number")
    tour.type("wrong")
    tour.press("ret")
    tour.look("confirm-wrong", "That is not the serial number")
    tour.press(*["backspace"] * 5)
    tour.type(SERIAL)
    tour.press("ret")
    tour.look("confirm-right", r"\[>Back<\]")
    tour.press("left")
    tour.look("confirm-now", r"\[>Restore now<\]")
    network.rate = _SLOW
    tour.press("ret")
    tour.glance("restore", r"Rekindle · Restore(?s:.)*All data.* [3-8]\d %")
    network.rate = 0
    tour.look("result", r"is complete")
    tour.button("QR code")
    tour.press("ret")
    tour.look("qr", "It says")
    tour.press("esc", "f10")
    tour.look("power", r"(?s)No restore is running.*Restart console")
    tour.press("esc", "end")


def others(tour: Tour) -> None:
    """What is not on that way."""
    tour.button("New task")
    tour.look("new-task-button", r"\[>New task<\]")
    tour.press("ret")
    tour.look("task-again", "What shall be done")
    tour.press("f1")
    tour.look("help", "Help · Task")
    tour.press("esc")
    tour.press("home", *["down"] * 5, "ret")
    tour.look("remote-access", r"\[>OK<\]")
    tour.press("right", "ret")
    tour.look("remote-access-on", r"ssh root@")
    tour.press("esc", "home", *["down"] * 4, "ret")
    tour.look("repair", "Which disks hold the host")
    tour.press("esc", "home", "ret")
    tour.look("repository-again", "Where the recovery points are")
    tour.press("esc")
    tour.look("network", "Interface +Driver +Link")
    tour.press("esc", "f2")
    tour.look("shell", "Type exit to return")
    tour.type("exit\n")
    tour.machine.wait_for_screen(r"What shall be done", tour.limit)
    assert re.search(r"F1 help|F10 power", tour.machine.serial_text()), "the serial line is a window too"
