"""The recovery medium of this checkout in QEMU with a root shell that a program drives.

For what this machine's kernel cannot do (device-mapper, md, LUKS, partitions of image files): attach the disks and
``run`` commands, ``rekindle adapt`` among them, in a real guest::

    with medium_shell(folder, firmware="uefi", disks=(DiskSpec(image, "nvme", "TARGET01"),), say=print) as shell:
        code, output = shell.run("rekindle adapt " + shell.disk("TARGET01"), 120)

The medium is an ordinary one (``rekindle iso build``), made once for a content of ``recovery/`` and ``image-build/``
and kept in the cache. It starts to ``sysinit.target`` with systemd's debug shell on the serial line: no engine, no
console, no network, which saves most of a start. Commands and their output go through a shared folder (9p), so they
are exact bytes whatever the kernel says on the line.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rekindle_image.scratch import discard, scratch_folder
from rekindle_image.workshop import content_hash

from tests.e2e.lab.accel import KERNEL_PARAMETER, Acceleration, best_acceleration
from tests.e2e.lab.hardware import Chipset, DiskSpec, Firmware, Hardware
from tests.e2e.lab.qemu import LabError, Machine, not_panicked
from tests.e2e.lab.server import CHECKOUT, rekindle

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "rekindle/e2e"
Say = Callable[[str], None]

#: Where the guest sees the shared folder.
GUEST_SHARE = "/run/lab"
_WORDS = (
    "console=ttyS0,115200 quiet loglevel=3 systemd.show_status=false systemd.unit=sysinit.target "
    f"systemd.debug_shell=ttyS0 {KERNEL_PARAMETER}"
)
#: Runs NUMBER.sh; the exit code appears whole, after the output.
_RUN = """\
cd / && bash {share}/$1.sh > {share}/$1.out 2>&1 < /dev/null
echo $? > {share}/$1.tmp && sync -f {share} && mv {share}/$1.tmp {share}/$1.rc
"""
#: Seconds with KVM; the lab's slowness multiplies them. A loaded machine needs most of it.
_START = 180
#: Media of other contents that stay in the cache: other checkouts of one machine share it.
_KEPT = 4


@dataclass(frozen=True)
class MediumFiles:
    """A built medium: its ISO, and the kernel and initramfs that are on it, for a direct boot."""

    iso: Path
    kernel: Path
    initrd: Path


def medium_key() -> str:
    """What decides what the medium does: our code, the builder, the locked packages."""
    return content_hash(CHECKOUT / "recovery", CHECKOUT / "image-build", CHECKOUT / "requirements.lock")


def medium_files(say: Say = lambda _: None, cache: Path = CACHE) -> MediumFiles:
    """The medium of this checkout from the cache, or built now (minutes when Debian is not cached; root).

    Raises CommandError.
    """
    folder = cache / f"medium-{medium_key()}"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "medium.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            _prune(cache)
            with scratch_folder(cache) as work:
                made = work / "medium"
                made.mkdir()
                say("building the recovery medium")
                # Nothing is fetched from this server: the address only has to be one.
                words: list[str | Path] = ["--server", "https://10.0.2.2:1", "--ca", "5a" * 32]
                words += ["--firmware", "none", "--compression", "3", "--netboot", work / "netboot"]
                words += ["--kernel-parameter", KERNEL_PARAMETER]
                rekindle("iso", "build", *words, "--output", made / "medium.iso", say=say)
                for name in ("vmlinuz", "initrd.img"):
                    shutil.move(work / "netboot" / name, made / name)
                made.rename(folder)
        os.utime(folder)
    return MediumFiles(folder / "medium.iso", folder / "vmlinuz", folder / "initrd.img")


def _prune(cache: Path) -> None:
    """The media that were used last stay. A QEMU that has a file open keeps it, also when its name is gone."""
    made = sorted(cache.glob("medium-*/"), key=lambda path: path.stat().st_mtime, reverse=True)
    for old in made[_KEPT - 1 :]:
        discard(old)


class MediumShell:
    """A root shell on the medium in a running ``machine``. ``share`` is a folder of ours, ``GUEST_SHARE`` there."""

    def __init__(self, machine: Machine, share: Path) -> None:
        self.machine = machine
        self.share = share
        self._number = 0

    def run(self, command: str, timeout: float = 60) -> tuple[int, str]:
        """Run a bash script as root; its exit code, and what it said on stdout and stderr.

        ``timeout`` in seconds with KVM; without it they are multiplied. Raises LabError.
        """
        self._number += 1
        name = f"{self._number:03}"
        (self.share / f"{name}.sh").write_text(command + "\n")
        self.machine.serial_send(f"sh {GUEST_SHARE}/run {name}\n")
        done = self.share / f"{name}.rc"
        self._wait_for(done, timeout, lambda: f"'{command.strip()[:200]}'; so far it said:\n{self._said(name)}")
        return int(done.read_text()), self._said(name)

    def check(self, command: str, timeout: float = 60) -> str:
        """Run a command that must succeed; what it said. Raises LabError."""
        code, output = self.run(command, timeout)
        if code:
            raise LabError(f"'{command.strip()}' failed on the medium with exit code {code}:\n{output[-6000:]}")
        return output

    def disk(self, serial: str) -> str:
        """The guest's path of the disk with this serial number. Raises LabError."""
        # A SAS controller finds its disks a while after its driver was loaded, which udev does not wait for.
        look = "udevadm settle; lsblk --nodeps --noheadings --output PATH,SERIAL"
        rows = self.check(f"for _ in $(seq 20); do {look} | grep -qw {serial} && break; sleep 1; done; {look}", 120)
        for line in rows.splitlines():
            path, _, found = line.strip().partition(" ")
            if found.strip() == serial:
                return path
        raise LabError(f"The medium has no disk with the serial number {serial}. It has:\n{rows}")

    def power_off(self) -> None:
        """Write everything and switch off: the disks' files are whole afterwards. Raises LabError."""
        self.check("sync")
        self.machine.serial_send("sync; poweroff -ff\n")
        self.machine.wait_for_power_off(_START * self.machine.accel.slowness)

    def start(self) -> None:
        """Wait for the shell of a machine that starts, and mount the shared folder there. Raises LabError."""
        (self.share / "run").write_text(_RUN.format(share=GUEST_SHARE))
        self.machine.wait_for_serial(r"[#$] (\x1b\S*)?$", _START * self.machine.accel.slowness)
        options = "trans=virtio,version=9p2000.L,msize=262144"
        self.machine.serial_send(
            f"mkdir -p {GUEST_SHARE}; modprobe -a 9p 9pnet_virtio; mount -t 9p -o {options} lab {GUEST_SHARE}\n"
        )
        self.check("udevadm settle; modprobe -a dm_mod md_mod; test -x /usr/bin/rekindle")

    def _said(self, name: str) -> str:
        file = self.share / f"{name}.out"
        return file.read_bytes().decode(errors="replace") if file.exists() else ""

    def _wait_for(self, file: Path, timeout: float, what: Callable[[], str]) -> None:
        deadline = time.monotonic() + timeout * self.machine.accel.slowness
        while not file.exists():
            not_panicked(self.machine.serial_text())
            if not self.machine.running:
                raise LabError(f"The machine went off during {what()}")
            if time.monotonic() > deadline:
                end = self.machine.serial_text()[-1500:]
                raise LabError(f"Not done within {timeout:.0f} s (with KVM): {what()}\nThe serial line:\n{end}")
            time.sleep(0.2)


@contextlib.contextmanager
def medium_shell(
    folder: Path,
    *,
    firmware: Firmware = "bios",
    disks: tuple[DiskSpec, ...] = (),
    nic: str = "virtio-net-pci",
    nic_slot: int = 3,
    mac: str = "52:54:00:12:34:56",
    more_nics: tuple[str, ...] = (),
    memory: int = 1024,
    chipset: Chipset = "q35",
    accel: Acceleration | None = None,
    files: MediumFiles | None = None,
    say: Say = lambda _: None,
) -> Iterator[MediumShell]:
    """Boot the medium with these disks attached and give its root shell until the block ends; then QEMU ends.

    ``folder`` gets ``vm`` (serial.log, the firmware's variables: boot the result in the same folder) and ``share``.
    With Secure Boot the medium starts from CD through its own signed loaders, else its kernel directly. Call
    ``power_off`` before the images are read from outside. Raises LabError, CommandError.
    """
    files = files or medium_files(say)
    accel = accel or best_acceleration(files.kernel)
    share = folder / "share"
    shutil.rmtree(share, ignore_errors=True)
    share.mkdir(parents=True)
    hardware = Hardware(
        firmware, disks, nic=nic, nic_slot=nic_slot, mac=mac, more_nics=more_nics, memory=memory, chipset=chipset,
        cdrom=files.iso, share=share, end_at_reset=True,
        kernel=None if firmware == "uefi-sb" else (files.kernel, files.initrd, _WORDS),
    )  # fmt: skip
    with Machine(hardware, folder / "vm", accel) as machine:
        say(f"starting the medium ({firmware})")
        if firmware == "uefi-sb":
            # Its menu has no entry for this shell.
            start_by_grub(machine, (f"linux /rekindle/vmlinuz {_WORDS}", "initrd /rekindle/initrd.img", "boot"))
        shell = MediumShell(machine, share)
        shell.start()
        yield shell


def start_by_grub(machine: Machine, lines: Sequence[str]) -> None:
    """Type ``lines``, the last of which boots, in the command line of the medium's signed GRUB. Raises LabError."""
    limit = _START * machine.accel.slowness
    machine.wait_for_serial("Rekindle recovery console", limit)
    machine.serial_send("c")
    place = machine.wait_for_serial("grub> ", limit)
    for line in lines[:-1]:
        machine.serial_send(line + "\r")
        place = machine.wait_for_serial(r"grub> ", limit, since=place)
    machine.serial_send(lines[-1] + "\r")
