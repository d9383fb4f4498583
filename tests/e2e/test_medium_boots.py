"""The recovery medium starts to its console by every firmware from CD and USB stick, and by each entry of its menu.

Minutes each without KVM, and the end-to-end recovery boots a medium anyway, so they are asked for by name:
``REKINDLE_MEDIUM_BOOTS=all`` (or some of ``bios,uefi,uefi-sb,toram,menu``); ``REKINDLE_MEDIUM=FILE.iso`` takes a
medium that is there instead of building one; ``REKINDLE_SCREENSHOTS=DIR`` keeps a picture of each console.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.lab.accel import TCG, Acceleration, best_acceleration
from tests.e2e.lab.boot_menu import choose
from tests.e2e.lab.hardware import DiskSpec, Firmware, Hardware, make_blank_disk
from tests.e2e.lab.qemu import Machine
from tests.e2e.lab.screen import ScreenReader

pytestmark = pytest.mark.e2e

WANTED = os.environ.get("REKINDLE_MEDIUM_BOOTS", "")
FINGERPRINT = "5a" * 32
#: Seconds with KVM; the lab's slowness multiplies them.
START = 90
COUNTER = itertools.count(1)


@pytest.fixture(scope="module")
def medium(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ISO; beside it lie its font and, in ``netboot``, its kernel."""
    if "REKINDLE_MEDIUM" in os.environ:
        return Path(os.environ["REKINDLE_MEDIUM"])
    folder = tmp_path_factory.mktemp("medium")
    iso = folder / "medium.iso"
    words = ["--server", "https://10.0.2.2:8443", "--ca", FINGERPRINT, "--compression", "1", "--json"]
    words += ["--output", str(iso), "--netboot", str(folder / "netboot")]
    done = subprocess.run([sys.executable, "-m", "recovery.cli.main", "iso", "build", *words], capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["iso"] == str(iso)
    assert result["size"] == iso.stat().st_size
    return iso


def acceleration(medium: Path) -> Acceleration:
    kernel = medium.parent / "netboot/vmlinuz"
    return best_acceleration(kernel) if kernel.exists() else TCG


@pytest.mark.parametrize("how", ["cdrom", "usb"])
@pytest.mark.parametrize("firmware", ["bios", "uefi", "uefi-sb"])
def test_the_medium_starts_to_the_console(firmware: Firmware, how: str, medium: Path, tmp_path: Path) -> None:
    if WANTED != "all" and firmware not in WANTED.split(","):
        pytest.skip("set REKINDLE_MEDIUM_BOOTS=all to boot the medium by each firmware (minutes each)")
    disk = make_blank_disk(tmp_path / "disk.raw", 1 << 30)
    cdrom, usb = (medium, None) if how == "cdrom" else (None, medium)
    hardware = Hardware(firmware=firmware, cdrom=cdrom, usb=usb, disks=(DiskSpec(disk, "nvme", "DISK0001"),))
    accel = acceleration(medium)
    limit = START * accel.slowness
    reader = ScreenReader.default(medium.with_suffix(".psf"))
    with Machine(hardware, tmp_path / "vm", accel, reader) as machine:
        # The first screen waits for the engine; the second proves that it answers.
        machine.wait_for_screen(r"Rekindle · (?!Start)", limit, interval=3)
        if "REKINDLE_SCREENSHOTS" in os.environ:
            machine.screenshot(Path(os.environ["REKINDLE_SCREENSHOTS"]) / f"medium-{firmware}-{how}.png")
        # The serial line has a console too, and no message of the kernel runs over either.
        machine.wait_for_serial(r"F1 help|F10 power", limit)
        # A root shell is on the second screen.
        machine.press("alt+f2")
        machine.wait_for_screen(r"root@rekindle", limit / 3)
        said = run_in_shell(machine, "cat /sys/kernel/security/lockdown", limit / 3)
        assert ("[integrity]" in said) == (firmware == "uefi-sb"), "Secure Boot locks the kernel down"
        said = run_in_shell(machine, "ls /sys/firmware | grep -c efi", limit / 3)
        assert said.split() == ["0" if firmware == "bios" else "1"]
        said = run_in_shell(machine, "systemctl is-active rekindle-engine rekindle-tui@tty1; ls /etc/ssh", limit / 3)
        assert said.split().count("active") == 2
        assert "ssh_host" not in said
        # Before the operator says so, nothing of the host's disk is used.
        said = run_in_shell(machine, "findmnt -rno SOURCE | grep -c nvme; cat /proc/swaps | wc -l", limit / 3)
        assert said.split() == ["0", "1"]


def test_the_medium_can_be_taken_out_when_it_runs_from_memory(medium: Path, tmp_path: Path) -> None:
    if WANTED != "all" and "toram" not in WANTED.split(","):
        pytest.skip("set REKINDLE_MEDIUM_BOOTS=all to boot the medium by each firmware (minutes each)")
    hardware = Hardware(firmware="bios", cdrom=medium, memory=1024)
    accel = acceleration(medium)
    limit = START * accel.slowness
    with Machine(hardware, tmp_path / "vm", accel, ScreenReader.default(medium.with_suffix(".psf"))) as machine:
        choose(machine, "from memory", limit)
        machine.wait_for_screen(r"Rekindle · (?!Start)", limit, interval=3)
        machine.qmp.command("eject", device="cd", force=True)
        machine.press("alt+f2")
        machine.wait_for_screen(r"root@rekindle", limit / 3)
        # Nothing of the medium is in use any more, and what was never read before can be read.
        said = run_in_shell(machine, "findmnt -no FSTYPE /run/live/medium; losetup | grep -c sr0; free -m", limit / 3)
        assert said.split()[:2] == ["tmpfs", "0"]
        said = run_in_shell(machine, "echo 3 > /proc/sys/vm/drop_caches; rekindle --version; xfs_repair -V", limit)
        assert "version" in said
        assert "rror" not in said
        machine.press("alt+f1")
        machine.wait_for_screen(r"Rekindle · ", limit / 3)
        machine.press("f1")
        machine.wait_for_screen(r"[Hh]elp|Keys|Arrow", limit / 3)
        if "REKINDLE_SCREENSHOTS" in os.environ:
            machine.screenshot(Path(os.environ["REKINDLE_SCREENSHOTS"]) / "medium-toram.png")


@pytest.mark.parametrize(
    ("entry", "screen", "serial"),
    [
        ("on the serial line", r"Rekindle · (?!Start)", r"Linux version [\s\S]*Rekindle · (?!Start)"),
        ("Unattended restore", r"UNATTENDED RESTORE", ""),
        ("basic graphics", r"Rekindle · (?!Start)", ""),
        # Its screen is in a font of its own.
        ("Memory test", "", r"Pass:\s+0\s+Errors: 0"),
        ("Start from the first disk", "THE DISK STARTS", ""),
    ],
)
def test_each_entry_of_the_menu(entry: str, screen: str, serial: str, medium: Path, tmp_path: Path) -> None:
    if WANTED != "all" and "menu" not in WANTED.split(","):
        pytest.skip("set REKINDLE_MEDIUM_BOOTS=menu to try the boot menu's entries (a minute each)")
    disk = make_blank_disk(tmp_path / "disk.raw", 1 << 30)
    with disk.open("r+b") as file:
        file.write(boot_sector("THE DISK STARTS"))
    hardware = Hardware(firmware="bios", cdrom=medium, disks=(DiskSpec(disk, "sata", "DISK0001"),))
    accel = acceleration(medium)
    limit = START * accel.slowness
    with Machine(hardware, tmp_path / "vm", accel, ScreenReader.default(medium.with_suffix(".psf"))) as machine:
        choose(machine, entry, limit)
        if screen:
            machine.wait_for_screen(screen, limit, interval=3)
        if serial:
            machine.wait_for_serial(serial, limit)
        if entry == "basic graphics":
            machine.press("alt+f2")
            machine.wait_for_screen(r"root@rekindle", limit / 3)
            assert "nomodeset" in run_in_shell(machine, "cat /proc/cmdline", limit / 3)


def boot_sector(text: str) -> bytes:
    """A boot sector that prints ``text`` by the BIOS and halts: lodsb; int 10h, function 0Eh; until a zero byte."""
    code = bytes.fromhex("31c0 8ed8 be197c fc ac 08c0 7409 b40e bb0700 cd10 ebf2 f4 ebfd")
    return (code + text.encode() + b"\0").ljust(510, b"\0") + b"\x55\xaa"


def run_in_shell(machine: Machine, command: str, timeout: float) -> str:
    """Type a command into the shell on the screen and read what it says."""
    number = next(COUNTER)
    # The sum stands on the screen only when the command has run, not when it is typed.
    machine.type(f"clear; {command}; echo end=$(({number}+1000))\n")
    text = machine.wait_for_screen(f"end={number + 1000}", timeout)
    return text.split(f"end={number + 1000}")[0]
