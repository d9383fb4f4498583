"""The operating system of the lab's virtual machines: Debian's kernel and BusyBox on a bootable disk of 64 MiB.

It is small because it runs in a machine that is itself emulated. It says on its serial console who it is and which
state its own disk holds, over and over.
"""

from __future__ import annotations

import lzma
import os
import shutil
import struct
import tempfile
from pathlib import Path

import zstandard

from recovery.commands import run
from recovery.units import MIB
from tests.e2e.lab.host_image import grub, recipe

SIZE = 64 * MIB
_START = 1 * MIB
_UUID = {"web": "7765620a-0000-4000-8000-000000000001", "db": "6462000a-0000-4000-8000-000000000002"}
#: Where the disk's state lies: a file of its own filesystem.
STATE_FILE = "/etc/state"

_INITRAMFS_INIT = """\
#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox insmod /virtio_blk.ko
while [ ! -e /dev/vda1 ]; do /bin/busybox sleep 1; done
/bin/busybox mount -t ext4 -o ro /dev/vda1 /root
/bin/busybox mount --move /dev /root/dev
exec /bin/busybox switch_root /root /sbin/init
"""
# The shell's own words where it has some: below two emulators each new process takes seconds.
_INIT = """\
#!/bin/busybox sh
PATH=/bin
busybox mount -t proc proc /proc
busybox mount -o remount,rw /dev/vda1 /
read boot rest < /proc/uptime
read name < /etc/hostname
while :; do
    read state < /etc/state
    echo "$name is up, state $state, booted in ${boot%.*} s"
    busybox sleep 5
done
"""


def build(disk: Path, name: str, state: str, kernel_root: Path, host_root: Path, work: Path) -> None:
    """Make the raw disk of the VM ``name``.

    ``kernel_root`` is an unpacked kernel package with BusyBox, ``host_root`` the host's system: it lends
    GRUB's BIOS parts and gets the kernel that libvirt starts the VM with.
    """
    shutil.rmtree(work, ignore_errors=True)
    tree, ramdisk = work / "tree", work / "ramdisk"
    kernel = next((kernel_root / "boot").glob("vmlinuz-*"))
    busybox = kernel_root / "usr/bin/busybox"
    for directory in ("bin", "sbin", "etc", "dev", "proc", "boot"):
        (tree / directory).mkdir(parents=True)
    for directory in ("bin", "dev", "root"):
        (ramdisk / directory).mkdir(parents=True)

    module = next(kernel_root.glob("usr/lib/modules/*/kernel/drivers/block/virtio_blk.ko.xz"))
    (ramdisk / "virtio_blk.ko").write_bytes(lzma.decompress(module.read_bytes()))
    _script(ramdisk / "init", _INITRAMFS_INIT)
    _script(tree / "sbin/init", _INIT)
    for target in (ramdisk, tree):
        shutil.copy2(busybox, target / "bin/busybox")
        (target / "bin/sh").symlink_to("busybox")
    (tree / "etc/hostname").write_text(f"{name}\n")
    (tree / STATE_FILE.lstrip("/")).write_text(f"{state}\n")
    shutil.copy2(kernel, tree / "boot/vmlinuz")
    (tree / "boot/initrd").write_bytes(_newc(ramdisk))
    # The same kernel and initrd for the host's libvirt, which starts the VM with them.
    libvirt = host_root / "var/lib/libvirt/boot"
    libvirt.mkdir(parents=True, exist_ok=True)
    (libvirt / "vmlinux").write_bytes(uncompressed(kernel.read_bytes()))
    shutil.copy2(tree / "boot/initrd", libvirt / "initrd")

    with disk.open("wb") as file:
        file.truncate(SIZE)
    run(["sfdisk", "-q", disk], input=f"label: dos\nstart={_START // 512}, type=83, bootable\n".encode())
    features = ["-b", "4096", "-O", "^has_journal,^resize_inode,^metadata_csum", "-m", "0", "-L", name]
    options = ["-U", _UUID[name], "-E", f"offset={_START},root_owner=0:0,hash_seed={_UUID[name]}"]
    run(["mkfs.ext4", "-q", *features, *options, "-d", tree, disk, str((SIZE - _START) // 4096)])
    early = f"linux (hd0,msdos1)/boot/vmlinuz {recipe.GUEST_WORDS}\ninitrd (hd0,msdos1)/boot/initrd\nboot\n"
    core = grub.make_core(host_root, "(hd0,msdos1)/boot/grub", ["biosdisk", "part_msdos", "ext2", "linux"], early)
    grub.install_bios(disk, host_root, core, at=grub.SECTOR)
    shutil.rmtree(work)


def set_state(disk: Path, state: str, offset: int = 0) -> None:
    """Change the state on a VM's raw disk that begins ``offset`` bytes into ``disk``, as the VM itself would."""
    with tempfile.NamedTemporaryFile("w", suffix=".state") as file:
        file.write(f"{state}\n")
        file.flush()
        script = f"rm {STATE_FILE}\nwrite {file.name} {STATE_FILE}\n"
        where = f"{disk}?offset={offset + _START}"
        run(["debugfs", "-w", "-f", "/dev/stdin", where], input=script.encode())


def uncompressed(kernel: bytes) -> bytes:
    """The ELF kernel inside a bzImage whose payload is zstd (Documentation/arch/x86/boot.rst). Raises ValueError."""
    setup_sectors = kernel[0x1F1] or 4
    offset, length = struct.unpack_from("<II", kernel, 0x248)
    start = (setup_sectors + 1) * 512 + offset
    # The payload's last four bytes are its size.
    elf = zstandard.ZstdDecompressor().decompressobj().decompress(kernel[start : start + length])
    if kernel[0x202:0x206] != b"HdrS" or elf[:4] != b"\x7fELF":
        raise ValueError("This kernel's payload is not an ELF file packed with zstd.")
    return elf


def _newc(tree: Path) -> bytes:
    """The directory as a cpio archive, as the kernel unpacks it. Everything belongs to root."""
    archive = bytearray()
    entries = [(path, str(path.relative_to(tree))) for path in sorted(tree.rglob("*"))]
    for number, (path, name) in enumerate([*entries, (None, "TRAILER!!!")]):
        mode, data = 0, b""
        if path is not None:
            mode = path.lstat().st_mode
            data = os.fsencode(path.readlink()) if path.is_symlink() else path.read_bytes() if path.is_file() else b""
        # Inode, mode, uid, gid, links, mtime, size, device, special device, name's length, checksum.
        fields = (number + 1, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
        archive += b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
        archive += b"\0" * (-len(archive) % 4)
        archive += data
        archive += b"\0" * (-len(archive) % 4)
    return bytes(archive)


def _script(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)
