"""Starts of the real medium with nobody at it: it restores by answers on a volume, and is watched from afar.

Minutes without KVM, so it is asked for by name: ``REKINDLE_UNATTENDED_BOOT=1``; ``REKINDLE_MEDIUM=FILE.iso`` takes a
medium that is there instead of building one; ``REKINDLE_SCREENSHOTS=DIR`` keeps pictures.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from recovery.commands import run
from recovery.units import MIB
from tests.e2e.lab.accel import KERNEL_PARAMETER, TCG, best_acceleration
from tests.e2e.lab.boot_menu import choose
from tests.e2e.lab.hardware import DiskSpec, Hardware
from tests.e2e.lab.qemu import Machine
from tests.e2e.lab.screen import ScreenReader
from tests.e2e.lab.server import rekindle, rekindle_argv, serving

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not os.environ.get("REKINDLE_UNATTENDED_BOOT"), reason="set REKINDLE_UNATTENDED_BOOT=1"),
]


def free_port() -> int:
    """A port of our loopback that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


PORT, SSH, STATUS = (free_port() for _ in range(3))
PASSPHRASE = "correct horse battery staple"
START = 240


@pytest.fixture
def medium(tmp_path: Path) -> Path:
    if "REKINDLE_MEDIUM" in os.environ:
        return Path(os.environ["REKINDLE_MEDIUM"])
    iso = tmp_path / "medium.iso"
    rekindle(
        "iso", "build", "--server", "https://10.0.2.2:1", "--ca", "5a" * 32, "--compression", "1", "--output", iso
    )
    return iso


def source_image(path: Path) -> Path:
    """A legacy BIOS disk with content that can be told."""
    with path.open("wb") as file:
        file.truncate(96 * MIB)
        for place in range(2, 96, 5):
            file.seek(place * MIB)
            file.write(os.urandom(MIB))
    run(["sfdisk", "-q", path], input=b"label: dos\nstart=2048, size=190000, type=83, bootable\n")
    return path


def answers_volume(path: Path, text: str) -> Path:
    """A FAT volume labelled REKINDLE with ``rekindle.toml``, as a stick from any shop."""
    with path.open("wb") as file:
        file.truncate(16 * MIB)
    run(["mkfs.vfat", "-n", "REKINDLE", path])
    answers = path.with_suffix(".toml")
    answers.write_text(text)
    run(["mcopy", "-i", path, answers, "::rekindle.toml"])
    return path


@dataclass(frozen=True)
class Away:
    """A captured host, the disk for it, and a volume with answers. ``code`` is its one-time code."""

    image: Path
    target: Path
    answers: Path
    code: str
    state: Path
    log: Path

    @property
    def disks(self) -> tuple[DiskSpec, DiskSpec]:
        """To be plugged in."""
        return DiskSpec(self.target, "nvme", "TARGET01"), DiskSpec(self.answers, "virtio", "ANSWERS01")


@contextlib.contextmanager
def nobody_there(folder: Path, more: str) -> Iterator[Away]:
    """A server with a host's point, and answers, ``more`` lines among them."""
    image = source_image(folder / "host.raw")
    repository, secret = folder / "repository", folder / "secret"
    secret.write_text(PASSPHRASE + "\n")
    rekindle("repo", "init", repository, "--passphrase-file", secret)
    rekindle("capture", repository, image, "--host", "pve1", "--firmware", "bios", "--secret-file", secret)
    target = folder / "target.raw"
    with target.open("wb") as file:
        file.truncate(96 * MIB)
    log = folder / "server.log"
    with serving(repository, log, PORT, names=("10.0.2.2",)) as server:
        code = rekindle("code", "issue", "--host", "pve1", "--state", server.state)[-1]["code"]
        text = (
            f'server = "https://10.0.2.2:{PORT}"\nfingerprint = "{server.ca_fingerprint}"\n'
            f'code = "{code}"\nsecret = "{PASSPHRASE}"\nhost = "pve1"\nadapt = false\n{more}'
            '[disks]\ndisk1 = "serial:TARGET01,blank"\n'
        )
        volume = answers_volume(folder / "volume.raw", text)
        yield Away(image, target, volume, code, server.state, log)
    assert target.read_bytes() == image.read_bytes()
    assert PASSPHRASE not in log.read_text()


def test_the_entry_of_the_menu_restores_and_switches_off(medium: Path, tmp_path: Path) -> None:
    with nobody_there(tmp_path, 'after = "poweroff"\ncountdown = 5\n') as away:
        hardware = Hardware(firmware="bios", cdrom=medium, memory=1024, disks=away.disks)
        kernel = medium.parent / "netboot/vmlinuz"
        accel = best_acceleration(kernel) if kernel.exists() else TCG
        limit = START * accel.slowness
        with Machine(hardware, tmp_path / "vm", accel, ScreenReader.default(medium.with_suffix(".psf"))) as machine:
            choose(machine, "Unattended restore", limit)
            machine.wait_for_screen(r"UNATTENDED RESTORE", limit)
            machine.wait_for_power_off(limit)
        assert "finished  pve1" in run([*rekindle_argv("reports", "--state", away.state)]).stdout


def test_a_host_comes_back_and_is_watched_from_afar(medium: Path, tmp_path: Path) -> None:
    with nobody_there(tmp_path, "unattended = true\ncountdown = 30\n") as away:
        kernel, initrd = unpacked(medium, tmp_path)
        stick = tmp_path / "stick.raw"
        shutil.copyfile(medium, stick)
        words = (
            "quiet loglevel=3 systemd.show_status=false console=tty0 console=ttyS0,115200 rekindle.ssh rekindle.status"
            f" {KERNEL_PARAMETER}"
        )
        hardware = Hardware(
            firmware="bios", kernel=(kernel, initrd, words), memory=1024,
            disks=(DiskSpec(stick, "sata", "MEDIUM01"), *away.disks),
            forwards={SSH: ("", 22), STATUS: ("", 80)},
        )  # fmt: skip
        accel = best_acceleration(kernel)
        limit = START * accel.slowness
        with Machine(hardware, tmp_path / "vm", accel, ScreenReader.default(medium.with_suffix(".psf"))) as machine:
            machine.wait_for_screen(r"The first write is in", limit)
            keep(machine, "unattended-countdown")
            said = machine.wait_for_screen(r"UNATTENDED RESTORE: (done|REFUSED|FAILED)", limit)
            keep(machine, "unattended-done")
            assert "UNATTENDED RESTORE: done" in said, said
            assert "Press any key to stop" in machine.serial_text(), "the serial line is a window as well"
            said = shell(machine, "rekindle remote", limit)
            password = re.search(r"password\s+(\S+)", said)
            page = re.search(r"/([0-9A-Z]{4}-[0-9A-Z]{4}-[0-9A-Z]{4})", said)
            assert password, said
            assert page, said
            status, html = fetch(f"/{page.group(1)}")
            assert status == 200
            assert "pve1: finished" in html
            assert fetch("/AAAA-BBBB-CCCC")[0] == 404
            said = ssh(password.group(1), tmp_path, "id -un; rekindle remote; journalctl -b | cat")
            assert said.startswith("root")
            journal = said[said.index("password") + 60 :]
            for hidden in (PASSPHRASE, away.code, password.group(1)):
                assert hidden not in journal, "a secret in the journal"
            ssh(password.group(1), tmp_path, "systemctl poweroff")
            machine.wait_for_power_off(limit)
        assert "finished  pve1" in run([*rekindle_argv("reports", "--state", away.state)]).stdout


def keep(machine: Machine, name: str) -> None:
    if "REKINDLE_SCREENSHOTS" in os.environ:
        machine.screenshot(Path(os.environ["REKINDLE_SCREENSHOTS"]) / f"{name}.png")


def unpacked(medium: Path, folder: Path) -> tuple[Path, Path]:
    """Kernel and initrd of the medium, for a start with words of our own."""
    found = []
    for name in ("vmlinuz", "initrd.img"):
        run(["xorriso", "-osirrox", "on", "-indev", medium, "-extract", f"/rekindle/{name}", folder / name])
        found.append(folder / name)
    return found[0], found[1]


def shell(machine: Machine, command: str, limit: float) -> str:
    """Type a command into the root shell on the second screen."""
    machine.press("alt+f2")
    machine.wait_for_screen(r"root@rekindle", limit / 3)
    machine.type(f"clear; {command}; echo end=$((1+1000))\n")
    return machine.wait_for_screen("end=1001", limit / 3).split("end=1001")[0]


def fetch(path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", STATUS, timeout=60)
    connection.request("GET", path)
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def ssh(password: str, folder: Path, command: str) -> str:
    """A command over SSH with the one-time password, as a person would give it."""
    ask = folder / "askpass"
    ask.write_text(f"#!/bin/sh\necho '{password}'\n")
    ask.chmod(0o700)
    environment = {**os.environ, "SSH_ASKPASS": str(ask), "SSH_ASKPASS_REQUIRE": "force", "DISPLAY": "none"}
    done = subprocess.run(
        ["ssh", "-p", str(SSH), "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
         "-o", "PubkeyAuthentication=no", "-o", "ConnectTimeout=60", "root@127.0.0.1", command],
        capture_output=True, text=True, env=environment, timeout=300, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode in (0, 255), done.stderr  # 255: the machine switched itself off
    return done.stdout
