"""Which accelerator QEMU can really use here: KVM when a kernel boots under it, else its own translator (TCG)."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from pathlib import Path

from recovery.commands import run
from recovery.errors import CommandError

#: Of every kernel that starts in the lab. QEMU 7.2 finds translated code by its virtual address: with programs at
#: random ones each start of each program is translated anew. Sixty rounds of six small programs took 39 s of processor
#: time with them, 14 s without (boot included). Nothing that a test looks at depends on it.
KERNEL_PARAMETER = "norandmaps"


@dataclass(frozen=True)
class Acceleration:
    """``kind`` is ``kvm`` or ``tcg``; ``slowness`` scales time limits, 1 with KVM; ``cpus``: the most a guest gets."""

    kind: str
    slowness: float
    cpus: int

    def arguments(self) -> list[str]:
        """QEMU's arguments for it."""
        if self.kind == "kvm":
            return ["-accel", "kvm", "-cpu", "host"]
        # Four levels of page tables instead of five: every translated access that misses walks them. And no promise of
        # fast byte strings: Linux clears and copies pages byte by byte then, of which QEMU makes a loop (from the
        # initramfs to systemd's first word 31 s instead of 9 s).
        return ["-accel", "tcg,tb-size=512", "-cpu", "max,la57=off,erms=off,fsrm=off"]


KVM = Acceleration("kvm", 1.0, cpus=8)
# One processor: QEMU 7.2's parallel translator can run a breakpoint that the guest's kernel has already taken out
# again (it patches its own jumps with int3), and the kernel dies of it, about one boot in twenty with two processors.
TCG = Acceleration("tcg", 5.0, cpus=1)


@functools.cache
def best_acceleration(kernel: Path) -> Acceleration:
    """KVM if ``kernel`` really boots under it until it misses its root filesystem, else TCG.

    The device node alone proves nothing, nor does a boot sector: nested clouds offer KVMs that run firmware and then
    stop in the middle of a kernel.
    """
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return TCG
    return KVM if boots(kernel, KVM, timeout=15) else TCG


def boots(kernel: Path, acceleration: Acceleration, *, timeout: float) -> bool:
    """The kernel runs to its panic for want of a root filesystem (and so ends QEMU) within ``timeout`` seconds."""
    argv = ["qemu-system-x86_64", "-nodefaults", "-machine", "q35", "-m", "256", "-display", "none", "-no-reboot"]
    argv += [*acceleration.arguments(), "-serial", "stdio", "-kernel", str(kernel)]
    argv += ["-append", "console=ttyS0 panic=-1"]
    try:
        return "Unable to mount root fs" in run(argv, check=False, timeout=timeout).stdout
    except CommandError:  # it hung, or there is no QEMU
        return False
