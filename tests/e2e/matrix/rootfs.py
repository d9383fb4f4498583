"""The Debian that sources are made of: installed once for a suite and a list of packages, kept in the cache."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from rekindle_image.scratch import scratch_folder
from rekindle_image.workshop import content_hash

from recovery.commands import run
from tests.e2e.lab.host_image import modules, rootfs
from tests.e2e.lab.host_image.rootfs import Say
from tests.e2e.matrix.model import Suite

PASSWORD = "rekindle-lab"  # noqa: S105 - of a machine that lives in QEMU for minutes

PACKAGES = (
    "systemd-sysv", "udev", "dbus", "login", "kmod", "util-linux-extra",
    "linux-image-amd64", "initramfs-tools", "zstd",
    "grub2-common", "grub-pc-bin", "grub-efi-amd64-bin", "grub-efi-amd64-signed", "shim-signed", "efibootmgr",
    "lvm2", "e2fsprogs", "xfsprogs", "btrfs-progs", "dosfstools",
    "ifupdown", "bridge-utils", "ifenslave", "iproute2", "iputils-ping", "netplan.io", "network-manager",
)  # fmt: skip

#: Beside those that no system of the lab has.
_NO_MODULES = (
    "drivers/vfio", "drivers/iommu", "drivers/rtc", "net/netfilter", "net/ipv4/netfilter", "net/ipv6/netfilter",
    "net/bridge/netfilter", "net/sched",
)  # fmt: skip
#: What would wake up in the middle of a test on an emulated processor.
_IDLE = ("apt-daily.timer", "apt-daily-upgrade.timer", "e2scrub_all.timer", "e2scrub_reap.service", "fstrim.timer")

#: Says what a test wants to know, between two lines that it waits for. Lies in every source as /usr/local/sbin/.
CHECK = r"""#!/bin/bash
# Written for Rekindle's hardware matrix: what came up, as lines of a key and a value.
state=$(timeout 600 systemctl is-system-running --wait)
# Nothing here waits for the network, and a loaded machine brings it up after the login: three minutes are enough.
for try in $(seq 60); do ping -c 1 -W 1 10.0.2.2 > /dev/null && { gateway=answers; sleep 5; break; }; sleep 2; done
echo "lab-begin"
echo "state $state"
systemctl --failed --plain --no-legend --full | awk '{ print "failed " $1 }'
findmnt --raw --noheadings --real --output TARGET,SOURCE,FSTYPE | sed 's/^/mount /'
swapon --noheadings --raw --show=NAME,SIZE | sed 's/^/swap /'
ip -4 -brief address show | awk '$1 != "lo" { sub("@.*", "", $1); print "address " $1 " " $2 " " $3 }'
ip -brief link show | awk '$1 != "lo" { print "link " $1 " " $2 }'
echo "gateway ${gateway:-silent}"
echo "kernel $(uname -r)"
echo "machine $(cat /etc/machine-id)"
echo "firmware $([ -d /sys/firmware/efi ] && echo uefi || echo bios)"
echo "size $(findmnt --noheadings --bytes --output SIZE / | tr -d ' ')"
[ -d /sys/firmware/efi ] && efibootmgr | sed -n 's/^\(Boot[C0-9].*\)/nvram \1/p'
journalctl --boot --priority err --quiet --no-pager --output cat | head -n 30 | cut -c 1-200 | sed 's/^/error /'
echo "lab-end"
"""


def cache_folder(cache: Path) -> Path:
    """Where the matrix keeps what it made."""
    return cache / "matrix"


@contextlib.contextmanager
def locked(file: Path) -> Iterator[None]:
    """One builder at a time, of all processes."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def base(suite: Suite, packages: tuple[str, ...], cache: Path, say: Say) -> Path:
    """The installed system, from the cache or made now (minutes; root). Do not write to it. Raises CommandError."""
    names = (*PACKAGES, *packages)
    folder = cache_folder(cache) / f"rootfs-{suite}-{content_hash(Path(__file__), Path(modules.__file__), *names)}"
    with locked(folder.with_suffix(".lock")):
        if not folder.is_dir():
            with scratch_folder(folder.parent) as work:
                root = work / "root"
                say(f"installing Debian ({suite})")
                rootfs.bootstrap(root, names, "minbase", say, suite=suite)
                _prepare(root)
                root.rename(folder)
    return folder


def _prepare(root: Path) -> None:
    """What all sources have in common."""
    version = rootfs.kernel_version(root)
    modules.prune(root, version, (*modules.ABSENT, *_NO_MODULES))
    modules.prune_hwdb(root)
    run(["rm", "-rf", *root.glob("boot/initrd.img-*")])
    run(["rm", "-rf", *root.glob("var/cache/apt/*"), *root.glob("var/lib/apt/lists/*")])
    run(["chroot", root, "chpasswd"], input=f"root:{PASSWORD}\n".encode())
    run(["chroot", root, "systemctl", "-q", "mask", *_IDLE])
    check = root / "usr/local/sbin/lab-check"
    check.write_text(CHECK)
    check.chmod(0o755)
    (root / "boot/efi").mkdir(exist_ok=True)
    (root / "boot/grub").mkdir(exist_ok=True)
    run(["cp", "-a", root / "usr/lib/grub/i386-pc", root / "boot/grub/"])
