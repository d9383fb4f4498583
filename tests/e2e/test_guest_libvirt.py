"""Guests quiesced by a real libvirt: a VM under QEMU with Debian's guest agent writes while its host is captured.

The VM is Debian's cloud kernel with BusyBox and qemu-ga; its disk is a file on the loop disk that is captured. Its
agent is asked through libvirt; the filesystem within the restored disk must be whole without its journal (a crash
consistent one is not), and hold what the VM had only in its memory. A second VM has no agent. Wants Debian's
``libvirt-daemon-system`` and ``libvirt-clients``, and some minutes: ``REKINDLE_LIBVIRT=1``.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from recovery.capture.live.capture import capture_live
from recovery.capture.live.guests import GuestLimits
from recovery.capture.live.session import LiveSession
from recovery.capture.request import CaptureRequest
from recovery.commands import run
from recovery.explore.host import HostView
from recovery.explore.vm import find_disks, vm_of
from recovery.repository.index import SqliteIndex
from recovery.units import MIB
from tests.e2e.lab.host_image import guest, recipe, rootfs
from tests.integration.capture_images import sh
from tests.integration.test_guest_quiesce import make_host
from tests.integration.test_live_capture import PATIENT, disk_with
from tests.support.repositories import new_repository

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.root,
    pytest.mark.skipif(not os.environ.get("REKINDLE_LIBVIRT") or os.geteuid() != 0, reason="set REKINDLE_LIBVIRT=1"),
    pytest.mark.skipif(not shutil.which("libvirtd") or not shutil.which("virsh"), reason="needs libvirt"),
]

_PORT = "org.qemu.guest_agent.0"
_MODULES = ("virtio_blk",)
#: Numbers are written as fast as a shell can, and never synced: the kernel of the VM keeps them in its memory.
_INIT = f"""\
#!/bin/busybox sh
PATH=/bin:/sbin
busybox mount -t devtmpfs dev /dev
busybox mount -t proc proc /proc
busybox mount -t sysfs sys /sys
busybox mount -t tmpfs run /run
for module in {" ".join(_MODULES)}; do busybox insmod /$module.ko; done
while [ ! -e /dev/vda ]; do busybox sleep 1; done
busybox mount -t ext4 /dev/vda /data
echo "data is there"
(number=0; while :; do number=$((number + 1)); echo $number; busybox sleep 0.05; done >> /data/log) &
for port in /sys/class/virtio-ports/*; do
    read name < $port/name && [ "$name" = {_PORT} ] && device=/dev/${{port##*/}}
done
[ -n "$device" ] && /usr/sbin/qemu-ga -m virtio-serial -p $device -t /run &
while :; do busybox sleep 1000; done
"""
_DOMAIN = """<domain type='qemu'><name>{name}</name><uuid>0b9e1c4e-1b1e-4f6a-9d0e-00000000000{number}</uuid>
<memory unit='MiB'>192</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='q35'>hvm</type><kernel>{folder}/vmlinuz</kernel><initrd>{folder}/initrd</initrd>
<cmdline>console=ttyS0 norandmaps quiet</cmdline></os><features><acpi/></features>
<seclabel type='static' model='dac' relabel='no'><label>+0:+0</label></seclabel>
<devices><emulator>/usr/bin/qemu-system-x86_64</emulator>
<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='{disk}'/><target dev='vda' bus='virtio'/>
</disk><serial type='file'><source path='{folder}/{name}.console'/></serial>{channel}</devices></domain>
"""
_CHANNEL = f"<channel type='unix'><target type='virtio' name='{_PORT}'/></channel>"


def virsh(*words: str) -> str:
    return sh("virsh", "-c", "qemu:///system", *words)


def until(what: str, done: Callable[[], bool], seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, f"not within {seconds:.0f} s: {what}"
        time.sleep(1)


def make_guest(folder: Path) -> None:
    """``vmlinuz`` and ``initrd`` of the VMs, into ``folder``."""
    small = rootfs.bootstrap(folder / "small", (*recipe.GUEST_PACKAGES, "qemu-guest-agent"), "extract", print)
    tree = folder / "tree"
    for name in ("bin", "dev", "proc", "sys", "run", "data", "usr/sbin", "etc/qemu"):
        (tree / name).mkdir(parents=True)
    shutil.copy2(small / "usr/bin/busybox", tree / "bin/busybox")
    (tree / "bin/sh").symlink_to("busybox")
    shutil.copy2(small / "usr/sbin/qemu-ga", tree / "usr/sbin/qemu-ga")
    for name in _MODULES:
        packed = next(small.glob(f"usr/lib/modules/*/kernel/**/{name}.ko*"))
        plain = tree / f"{name}.ko"
        plain.write_bytes(sh_bytes("xz", "-dc", packed) if packed.suffix == ".xz" else packed.read_bytes())
    loader = "/lib64/ld-linux-x86-64.so.2"
    listed = sh("chroot", small, f"/usr{loader}", "--list", "/usr/sbin/qemu-ga")
    for path in {*re.findall(r"=> (/\S+)", listed), loader}:
        there = tree / path.lstrip("/")
        there.parent.mkdir(parents=True, exist_ok=True)
        real = small / ("usr" + path if not path.startswith("/usr") else path.lstrip("/"))
        shutil.copy2(real, there)
    (tree / "init").write_text(_INIT)
    (tree / "init").chmod(0o755)
    (folder / "initrd").write_bytes(guest._newc(tree))
    shutil.copy2(next((small / "boot").glob("vmlinuz-*")), folder / "vmlinuz")


def sh_bytes(*words: object) -> bytes:
    return subprocess.run([str(word) for word in words], check=True, capture_output=True).stdout


@contextlib.contextmanager
def libvirt() -> Iterator[None]:
    """The machine's libvirt, or one for the block."""
    names = [] if run(["virsh", "-c", "qemu:///system", "uri"], check=False) else ["virtlogd", "libvirtd"]
    daemons = [subprocess.Popen([name], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for name in names]
    try:
        until("libvirt answers", lambda: bool(run(["virsh", "-c", "qemu:///system", "uri"], check=False)), 60)
        yield
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait(60)


@contextlib.contextmanager
def domain(folder: Path, top: Path, name: str, number: int, channel: str = "") -> Iterator[str]:
    """A VM that runs; its disk is a file below ``top``, and so is its definition, as on a host. Its UUID."""
    disk = top / f"srv/{name}.raw"
    disk.write_bytes(b"")
    os.truncate(disk, 48 * MIB)
    sh("mkfs.ext4", "-q", "-E", "lazy_itable_init=0", disk)
    text = _DOMAIN.format(name=name, number=number, folder=folder, disk=disk, channel=channel)
    definition = top / f"etc/libvirt/qemu/{name}.xml"
    definition.write_text(text.replace(str(disk), f"/srv/{name}.raw"))
    live = folder / f"{name}.xml"
    live.write_text(text)
    virsh("define", str(live))
    try:
        virsh("start", name)
        yield f"0b9e1c4e-1b1e-4f6a-9d0e-00000000000{number}"
    finally:
        run(["virsh", "-c", "qemu:///system", "destroy", name], check=False)
        virsh("undefine", name)


def test_a_guest_is_frozen_by_its_own_agent_for_the_freeze(tmp_path: Path) -> None:
    make_guest(tmp_path)
    with libvirt(), disk_with("ext4", tmp_path, 256 * MIB) as (device, top):
        make_host(top, device)
        repository = new_repository(tmp_path / "r")
        request = CaptureRequest(host="h", disks=(device,), workers=1)
        with domain(tmp_path, top, "web", 1, _CHANNEL), domain(tmp_path, top, "dumb", 2):
            ping = ["virsh", "-c", "qemu:///system", "qemu-agent-command", "web", '{"execute":"guest-ping"}']
            until("the agent answers", lambda: bool(run(ping, check=False)))
            until("dumb writes", lambda: "data is there" in (tmp_path / "dumb.console").read_text())
            time.sleep(10)
            limits = GuestLimits(hold=110.0, answer=60.0)
            with LiveSession(PATIENT, guests=limits) as session:
                point = capture_live(repository, SqliteIndex(":memory:"), request, session, print, threading.Event())
            state = virsh("qemu-agent-command", "web", '{"execute":"guest-fsfreeze-status"}')
        assert "thawed" in state
    found = {vm.name: (vm.consistency, vm.unquiesced) for vm in point.body.vms}
    print(found, point.body.live)
    assert found["web"] == ("application", "")
    assert found["dumb"] == ("crash", "it has no guest agent")
    view = HostView(repository, repository.point("h", point.id))
    numbers = {}
    for name in found:
        (disk,) = find_disks(view, vm_of(point, name))
        image = tmp_path / f"{name}.restored"
        image.write_bytes(view.read(disk.where, 0, disk.where.size))
        features = sh("dumpe2fs", "-h", image)
        assert ("needs_recovery" in features) == (name == "dumb"), "only what was frozen needs no journal"
        if name == "web":
            sh("e2fsck", "-fn", image)
        numbers[name] = len(sh("debugfs", "-R", "cat /log", image).splitlines())
    print(numbers)
    assert numbers["web"] > 20, "what the VM had written only into its memory is there"
