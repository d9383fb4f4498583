"""Disk images of small hypervisor hosts, made with the real tools, without device-mapper and without mounting."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

MIB = 1024 * 1024


def sh(*argv: str | Path, input: str | None = None) -> str:
    """Run a tool; its output, or an AssertionError with its words."""
    done = subprocess.run([str(word) for word in argv], input=input, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
    return done.stdout


def sparse(path: Path, size: int) -> Path:
    """An empty file of ``size`` bytes."""
    with path.open("wb") as file:
        file.truncate(size)
    return path


@contextlib.contextmanager
def loop(path: Path, offset: int = 0, size: int = 0, *, read_only: bool = False) -> Iterator[str]:
    """A loop device over part of a file."""
    argv = ["losetup", "--find", "--show", "-o", str(offset), *(["--sizelimit", str(size)] if size else [])]
    device = sh(*argv, *(["-r"] if read_only else []), path).strip()
    try:
        yield device
    finally:
        sh("losetup", "-d", device)


def copy_into(disk: Path, offset: int, content: bytes) -> None:
    """Overwrite bytes of a disk image."""
    with disk.open("r+b") as file:
        file.seek(offset)
        file.write(content)


def write_files(root: Path, files: dict[str, str]) -> Path:
    """A folder with these files; a text that starts with ``-> `` makes a link."""
    for name, text in files.items():
        path = root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        if text.startswith("-> "):
            path.symlink_to(text[3:])
        else:
            path.write_text(text)
    return root


def host_files(root_spec: str, *, boot_spec: str = "", data_spec: str = "") -> dict[str, str]:
    """The files of a Debian host with libvirt that the inventory reads."""
    fstab = f"{root_spec} / ext4 errors=remount-ro 0 1\n"
    fstab += f"{boot_spec} /boot ext4 defaults 0 2\n" if boot_spec else ""
    fstab += f"{data_spec} /var/lib/libvirt/images xfs defaults 0 2\n" if data_spec else ""
    fstab += "UUID=ABCD-1234 /boot/efi vfat umask=0077 0 1\n"
    return {
        "/usr/lib/os-release": 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\n',
        "/etc/os-release": "-> ../usr/lib/os-release",
        "/etc/fstab": fstab,
        "/etc/machine-id": "00000000000000000000000000000001\n",
        "/usr/sbin/update-initramfs": "#!/bin/sh\n",
        "/etc/default/grub": "GRUB_TIMEOUT=1\n",
        "/etc/network/interfaces": "source /etc/network/interfaces.d/*\nauto lo\niface lo inet loopback\n",
        "/etc/network/interfaces.d/br0": (
            "auto br0\niface br0 inet static\n  address 192.0.2.10\n  netmask 255.255.255.0\n  bridge_ports enp1s0\n"
            "iface enp1s0 inet manual\n"
        ),
        "/etc/libvirt/qemu/web.xml": domain("web", "<source file='/var/lib/libvirt/images/web.qcow2'/>", "qcow2"),
        "/etc/libvirt/qemu/db.xml": domain("db", "<source dev='/dev/rkvg-1/db'/>", "raw"),
        "/etc/libvirt/qemu/autostart/web.xml": "-> /etc/libvirt/qemu/web.xml",
    }


def domain(name: str, source: str, driver: str) -> str:
    """A libvirt domain definition."""
    return (
        f"<domain type='kvm'><name>{name}</name><uuid>00000000-0000-0000-0000-00000000000{len(name)}</uuid>"
        f"<memory unit='MiB'>512</memory><vcpu>2</vcpu><devices><disk type='file' device='disk'>"
        f"<driver name='qemu' type='{driver}'/>{source}<target dev='vda' bus='virtio'/></disk>"
        "<disk type='file' device='cdrom'><target dev='sda'/></disk></devices></domain>\n"
    )


def make_ext4(image: Path, size: int, folder: Path | None = None, *, label: str = "") -> Path:
    """An ext4 filesystem in a file, filled from a folder."""
    sparse(image, size)
    content: list[str | Path] = ["-d", folder] if folder else []
    sh("mkfs.ext4", "-q", "-F", "-L", label, *content, image)
    return image


def lvm_section(name: str, segments: Sequence[tuple[int, int, int]]) -> str:
    """An LV in LVM's text format; segments are (start extent, count, first extent on pv0)."""
    letters = (name * 6)[:6]
    text = f'{name} {{ id = "{letters}-aaaa-bbbb-cccc-dddd-eeee-ffffff" status = ["READ", "WRITE", "VISIBLE"]\n'
    text += f"flags = []\nsegment_count = {len(segments)}\n"
    for number, (start, count, first) in enumerate(segments, 1):
        text += f'segment{number} {{ start_extent = {start} extent_count = {count} type = "striped"\n'
        text += f'stripe_count = 1\nstripes = [ "pv0", {first} ] }}\n'
    return text + "}\n"


def make_vg(
    disk: Path, offset: int, size: int, name: str, volumes: dict[str, Sequence[tuple[int, int, int]]], work: Path
) -> None:
    """A PV and VG with 1 MiB extents in part of an image, by the real lvm tools; no kernel support is needed."""
    with loop(disk, offset, size) as device:
        only = ("--devices", device)
        sh("pvcreate", "-qq", "-ff", "-y", *only, device)
        sh("vgcreate", "-qq", "-s", "1M", *only, name, device)
        backup = work / f"{name}.txt"
        sh("vgcfgbackup", "-qq", *only, "-f", backup, name)
        text = backup.read_text().rstrip()
        sections = "".join(lvm_section(lv, segments) for lv, segments in volumes.items())
        backup.write_text(f"{text[:-1]}logical_volumes {{\n{sections}}}\n}}\n")
        sh("vgcfgrestore", "-qq", *only, "-f", backup, name)


def make_host(path: Path, work: Path) -> Path:
    """A GPT disk of 160 MiB: BIOS boot partition, ESP with shim and GRUB, /boot, and a VG ``rkvg-1`` with a root LV of
    two segments and an LV for a VM. LV extents of 1 MiB lie 1 MiB behind the PV's start."""
    sparse(path, 160 * MIB)
    table = (
        "label: gpt\nstart=2048, size=2048, type=21686148-6449-6E6F-744E-656564454649\n"
        "start=4096, size=34MiB, type=uefi, name=esp\nsize=16MiB, type=linux, name=boot\ntype=lvm, name=pv\n"
    )
    sh("sfdisk", "-q", path, input=table)
    esp = sparse(work / "esp.img", 34 * MIB)
    sh("mkfs.vfat", "-F", "32", "-i", "ABCD1234", esp)
    sh("mmd", "-i", esp, "::/EFI", "::/EFI/BOOT", "::/EFI/debian")
    (work / "stub").write_bytes(b"MZ not a real loader")
    for name in ("BOOT/BOOTX64.EFI", "debian/shimx64.efi", "debian/grubx64.efi"):
        sh("mcopy", "-i", esp, work / "stub", f"::/EFI/{name}")
    boot = write_files(
        work / "boot", {"vmlinuz-6.1.0-9-amd64": "k", "vmlinuz-6.1.0-28-amd64": "k", "grub/x86_64-efi/a.mod": "x"}
    )
    make_ext4(work / "boot.img", 16 * MIB, boot, label="boot")
    root = write_files(work / "root", host_files("/dev/mapper/rkvg--1-root", boot_spec="LABEL=boot"))
    web = root / "var/lib/libvirt/images/web.qcow2"
    web.parent.mkdir(parents=True)
    sh("qemu-img", "create", "-q", "-f", "qcow2", web, "3G")
    (root / "boot").mkdir()
    make_ext4(work / "root.img", 40 * MIB, root)
    pv = (4096 * 512) + 50 * MIB
    make_vg(path, pv, 160 * MIB - pv - MIB, "rkvg-1", {"root": [(0, 24, 0), (24, 16, 40)], "db": [(0, 8, 30)]}, work)
    copy_into(path, 4096 * 512, esp.read_bytes())
    copy_into(path, 4096 * 512 + 34 * MIB, (work / "boot.img").read_bytes())
    content = (work / "root.img").read_bytes()
    copy_into(path, pv + MIB, content[: 24 * MIB])
    copy_into(path, pv + MIB + 40 * MIB, content[24 * MIB :])
    return path


def let_go(image: Path, device: str | None = None) -> None:
    """Wait until no loop device, or not this one, has ``image``. One that is detached, and a filesystem that is
    unmounted, stays (and is written to) while a process with mounts of its own has a copy of the mount: other tests
    start such processes."""
    end = time.monotonic() + 60
    while [held for held in _holders(image) if device in (None, held)]:
        assert time.monotonic() < end, sh("losetup", "--list")
        time.sleep(0.02)


def _holders(image: Path) -> list[str]:
    return [line.partition(":")[0] for line in sh("losetup", "--associated", image).splitlines()]
