"""The disk of a small virtualization host, made without booting anything: an ext4 with two VMs, one in files, one on a
logical volume; a third one, when asked for, on a thin volume. Needs root and loop devices (LVM)."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from recovery.commands import run
from recovery.units import MIB
from tests.e2e.lab.host_image.lvm import create, loop_device
from tests.support import thin_pool

SIZE = 512 * MIB
ESP, ROOT, LVM = (MIB, 33 * MIB), (34 * MIB, 254 * MIB), (288 * MIB, 223 * MIB)
IMAGES = "/var/lib/libvirt/images"
DOMAIN = """<domain type='kvm'><name>{name}</name><uuid>0b9e1c4e-1b1e-4f6a-9d0e-00000000000{number}</uuid>
<memory unit='MiB'>1024</memory><vcpu>2</vcpu><devices>{disks}</devices></domain>
"""
DISK = "<disk type='{kind}' device='disk'><driver name='qemu' type='{format}'/><source {kind_of}='{where}'/><target dev='{dev}' bus='virtio'/></disk>"  # noqa: E501


@dataclass(frozen=True)
class VmHost:
    """``disk``: the host's. ``web`` is the qcow2 file of the VM of that name, ``log`` its raw one (the hole at its end
    left out), ``db`` what lies on the LV, ``thin`` on the thin volume."""

    disk: Path
    web: bytes
    log: bytes
    db: bytes
    thin: bytes = b""


def make_vm_host(folder: Path, *, thin: bool = False) -> VmHost:
    """The disk below ``folder``."""
    disk = folder / "host.raw"
    with disk.open("wb") as file:
        file.truncate(SIZE)
    parts = [f"start={start // 512}, size={size // 512}, type={type}" for (start, size), type in
             ((ESP, "U"), (ROOT, "L"), (LVM, "E6D6D379-F507-44C2-A23C-238F2A3DF928"))]  # fmt: skip
    run(["sfdisk", "-q", disk], input=("label: gpt\n" + "\n".join(parts) + "\n").encode())
    run(["mkfs.vfat", "-F", "32", "-s", "1", "-n", "ESP", "--offset", str(ESP[0] // 512), disk, str(ESP[1] // 1024)])
    db = os.urandom(3 * MIB) + bytes(5 * MIB) + os.urandom(MIB) + bytes(55 * MIB)
    with loop_device(disk, *LVM) as device:
        pool = {"new_meta": thin_pool.META, "new_data": thin_pool.DATA} if thin else {}
        where = create(device, "vg0", {"db": 64 * MIB, "scratch": 32 * MIB, **pool})
        on_thin = thin_pool.make(device, "vg0", where, "vm-3-disk-0", folder) if thin else b""
    with disk.open("r+b") as file:
        file.seek(LVM[0] + where["db"])
        file.write(db)
    root = folder / "root"
    log = os.urandom(MIB + 512) + bytes(2 * MIB) + os.urandom(4096)
    web = _write_root(root, log)
    if thin:
        place = DISK.format(kind="block", kind_of="dev", format="raw", where="/dev/vg0/vm-3-disk-0", dev="vda")
        (root / "etc/libvirt/qemu/thin.xml").write_text(DOMAIN.format(name="thin", number=3, disks=place))
    options = f"offset={ROOT[0]},lazy_itable_init=0,nodiscard"
    run(["mkfs.ext4", "-q", "-F", "-L", "root", "-E", options, "-d", root, disk, f"{ROOT[1] // 1024}k"])
    shutil.rmtree(root)
    return VmHost(disk, web, log, db, on_thin)


def _write_root(root: Path, log: bytes) -> bytes:
    images, domains = root / "var/lib/libvirt/images", root / "etc/libvirt/qemu"
    for path in (images, domains / "autostart", root / "boot", root / "usr/bin", root / "srv"):
        path.mkdir(parents=True)
    files = {
        "etc/os-release": 'ID=debian\nVERSION_ID="13"\nPRETTY_NAME="Debian GNU/Linux 13 (trixie)"\n',
        "etc/hostname": "vhost1\n",
        "etc/fstab": "LABEL=root / auto defaults 0 1\nLABEL=ESP /boot/efi vfat umask=0077 0 1\n",
        "etc/libvirt/qemu/web.xml": DOMAIN.format(name="web", number=1, disks="".join((
            DISK.format(kind="file", kind_of="file", format="qcow2", where=f"{IMAGES}/web.qcow2", dev="vda"),
            DISK.format(kind="file", kind_of="file", format="raw", where="/srv/vm/log.raw", dev="vdb"),
        ))),
        "etc/libvirt/qemu/db.xml": DOMAIN.format(name="db", number=2, disks=DISK.format(
            kind="block", kind_of="dev", format="raw", where="/dev/vg0/db", dev="vda")),
    }  # fmt: skip
    for name, text in files.items():
        (root / name).write_text(text)
    (domains / "autostart/web.xml").symlink_to("/etc/libvirt/qemu/web.xml")
    raw = root.parent / "web.raw"
    raw.write_bytes(os.urandom(8 * MIB) + bytes(30 * MIB) + os.urandom(4 * MIB))
    run(["qemu-img", "convert", "-q", "-O", "qcow2", raw, images / "web.qcow2"])
    raw.unlink()
    (root / "srv/guests").mkdir()
    (root / "srv/vm").symlink_to("guests")
    with (root / "srv/guests/log.raw").open("wb") as file:
        file.truncate(8 * MIB)  # its end is a hole
        file.write(log)
    return (images / "web.qcow2").read_bytes()
