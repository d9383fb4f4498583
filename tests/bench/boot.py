"""How long a medium takes from power-on to its console, stage by stage, in QEMU; and what systemd says about its part.

    python -m tests.bench.boot ISO [--firmware bios|uefi|uefi-sb] [--usb] [--memory MIB] [--stages recovery|rear]

Stages are seen on the screen, looked at every second, so each time is right to about two. Other load on the
machine makes all of them longer: compare media side by side, never with a table that was made on another day.
"""

from __future__ import annotations

import argparse
import re
import tempfile
import time
from pathlib import Path

from tests.e2e.lab.accel import TCG, best_acceleration
from tests.e2e.lab.hardware import DiskSpec, Hardware, make_blank_disk
from tests.e2e.lab.qemu import LabError, Machine
from tests.e2e.lab.screen import ScreenReader

#: Stage -> what its end looks like. A stage that was not seen (it was over within a look) counts to the next one.
STAGES = {
    "recovery": (
        ("firmware", r"Rekindle recovery console|Loading the recovery medium"),
        ("menu", r"Loading the recovery medium"),
        ("boot loader and kernel", r"starting Linux"),
        ("initramfs and system start", r"starting the recovery console"),
        ("console starts", r"Rekindle · "),
        ("console usable", r"Rekindle · (?!Start)"),
    ),
    "rear": (
        ("firmware", r"Relax-and-Recover|Recover "),
        ("boot loader", r"Loading|Linux version|Starting|Secure Boot"),
        ("kernel and initramfs", r"Configuring Relax-and-Recover rescue system"),
        # Its getty's banner; the prompt below it was not seen to follow by itself.
        ("rescue system, login", r"login:|RESCUE \S+:~ #|GNU/Linux \d+ \S+ tty\d"),
    ),
}
_LIMIT = 900.0


def measure(machine: Machine, stages: tuple[tuple[str, str], ...], keys: str) -> list[tuple[str, float]]:
    """(stage, seconds since power-on at its end), in order."""
    start, seen = time.monotonic(), []
    waiting = list(stages)
    while waiting:
        text = machine.screen_text()
        now = time.monotonic() - start
        ended = max((n for n, (_, pattern) in enumerate(waiting) if re.search(pattern, text)), default=-1)
        for name, _ in waiting[: ended + 1]:
            seen.append((name, now))
            print(f"{now:7.1f} s  {name}", flush=True)
            if keys and name == "firmware":
                machine.press(*keys.split(","))
        waiting = waiting[ended + 1 :]
        if now > _LIMIT:
            raise LabError(f"Stage '{waiting[0][0]}' did not end. The screen shows:\n{text}")
        time.sleep(1)
    return seen


def ask_system(machine: Machine, accel_slowness: float) -> None:
    """What systemd says of its part, from the shell on the second screen."""
    machine.press("alt+f2")
    machine.wait_for_screen(r"root@", 60 * accel_slowness)
    for number, command in enumerate((
        # Seconds since the kernel began: where the initramfs takes over, and where systemd does.
        "dmesg | grep -m1 'Run /init'; head -1 /proc/stat; systemctl show -p UserspaceTimestampMonotonic",
        "systemd-analyze | cat; free -m; du -sm /run/live/overlay",
        "ps -eo cputimes,args --sort=-cputimes | cut -c1-100 | head -16",
        "systemd-analyze blame --no-pager | head -24",
        "systemd-analyze critical-chain --no-pager rekindle-tui@tty1.service rekindle-engine.service | head -24",
    )):  # fmt: skip
        machine.type(f"clear; {command}; echo end=$(({number}+1000))\n")
        print(machine.wait_for_screen(f"end={number + 1000}", 60 * accel_slowness).split("end=")[0], flush=True)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser()
    parser.add_argument("iso", type=Path)
    parser.add_argument("--firmware", default="bios", choices=["bios", "uefi", "uefi-sb"])
    parser.add_argument("--usb", action="store_true")
    parser.add_argument("--memory", type=int, default=2048)
    parser.add_argument("--stages", default="recovery", choices=list(STAGES))
    parser.add_argument("--keys", default="", help="pressed when the menu is there, such as down,ret")
    parser.add_argument("--picture", type=Path)
    chosen = parser.parse_args()
    kernel = chosen.iso.parent / "netboot/vmlinuz"
    accel = best_acceleration(kernel) if kernel.exists() else TCG
    psf = chosen.iso.with_suffix(".psf")
    reader = ScreenReader.default(*([psf] if psf.exists() else []))
    with tempfile.TemporaryDirectory() as folder:
        disk = make_blank_disk(Path(folder) / "disk.raw", 1 << 30)
        hardware = Hardware(
            firmware=chosen.firmware, memory=chosen.memory, disks=(DiskSpec(disk, "virtio", "DISK0001"),),
            cdrom=None if chosen.usb else chosen.iso, usb=chosen.iso if chosen.usb else None,
        )  # fmt: skip
        with Machine(hardware, Path(folder) / "vm", accel, reader) as machine:
            try:
                measure(machine, STAGES[chosen.stages], chosen.keys)
                if chosen.picture:
                    machine.screenshot(chosen.picture)
                if chosen.stages == "recovery":
                    ask_system(machine, accel.slowness)
            except LabError as error:
                print(error)
                if chosen.picture:
                    machine.screenshot(chosen.picture)
                print(machine.serial_text()[-3000:])


if __name__ == "__main__":
    main()
