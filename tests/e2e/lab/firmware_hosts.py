"""Small Debian hosts that differ in how they start: the disks of machines that are dead, made without booting them.

Each of them says on its serial line what it came up with, and switches itself off (``REPORT``).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rekindle_image.scratch import scratch_folder

from recovery.commands import run
from recovery.units import MIB
from tests.e2e.lab.accel import KERNEL_PARAMETER
from tests.e2e.lab.host_image import grub, rootfs

Kind = Literal["bios-mbr", "uefi-grub", "uefi-systemd-boot", "bios-dracut"]
Say = Callable[[str], None]

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "rekindle/e2e"
DISK_SIZE = 1200 * MIB
ROOT_UUID = "0aa7b0a7-19c5-4b0e-9a33-0000000000f1"
SWAP_UUID = "0aa7b0a7-19c5-4b0e-9a33-0000000000f2"
MACHINE_ID = "5eedc0de5eedc0de5eedc0de5eedc0de"

_COMMON = (
    "systemd-sysv", "udev", "dbus", "login", "passwd", "kmod", "zstd", "linux-image-cloud-amd64", "e2fsprogs",
    "iproute2", "fdisk",
)  # fmt: skip
_PACKAGES: Mapping[Kind, tuple[str, ...]] = {
    "bios-mbr": ("initramfs-tools", "grub-pc"),
    "uefi-grub": (
        "initramfs-tools", "grub-efi-amd64", "grub-efi-amd64-signed", "shim-signed", "efibootmgr", "dosfstools",
    ),
    "uefi-systemd-boot": ("initramfs-tools", "systemd-boot", "dosfstools", "efibootmgr"),
    "bios-dracut": ("dracut", "grub-pc"),
}  # fmt: skip
_CORE_MODULES = [
    "biosdisk", "part_gpt", "part_msdos", "ext2", "normal", "linux", "search", "search_fs_uuid", "configfile",
]  # fmt: skip
_DEFAULT_GRUB = """\
GRUB_DEFAULT=0
GRUB_TIMEOUT=1
GRUB_DISTRIBUTOR=Debian
GRUB_CMDLINE_LINUX_DEFAULT=""
GRUB_CMDLINE_LINUX="{words}"
GRUB_TERMINAL="console serial"
GRUB_SERIAL_COMMAND="serial --speed=115200"
"""
#: All that the old machine's initramfs knows: a virtio disk with ext4.
_OLD_DRIVERS = ("virtio_blk", "virtio_pci", "ext4")
_CONSOLE = f"console=tty0 console=ttyS0,115200 {KERNEL_PARAMETER}"

#: What the host says when it is up, between two lines that name it.
_SCRIPT = """\
#!/bin/sh
exec > /run/lab-report 2>&1
echo
echo LAB-REPORT-BEGIN
[ -d /sys/firmware/efi ] && echo mode=uefi || echo mode=bios
echo secure=$(od -An -t u1 -j4 -N1 /sys/firmware/efi/efivars/SecureBoot-* 2> /dev/null | tr -d ' ')
echo root=$(findmnt -n -o SOURCE /)
ls /boot/efi > /dev/null 2>&1
echo esp=$(findmnt -n -t vfat -o SOURCE | tail -n 1)
echo swap=$(swapon --noheadings --show=NAME)
echo missing=$(findmnt --fstab --noheadings --output TARGET,OPTIONS | while read -r place options; do
    case "$place" in /*) findmnt -n "$place" > /dev/null || echo "$place" ;; esac; done)
echo failed=$(systemctl --failed --plain --no-legend | cut -d' ' -f1)
echo cmdline=$(cat /proc/cmdline)
echo LAB-REPORT-END
# In one write: systemd draws on that line too.
cat /run/lab-report > /dev/ttyS0
sync
systemctl poweroff --no-block
"""
_UNIT = """\
[Unit]
Description=What this host came up with

[Service]
Type=idle
ExecStart=/usr/local/sbin/lab-report

[Install]
WantedBy=multi-user.target
"""


@dataclass(frozen=True)
class Part:
    """A partition: bytes, its type for sfdisk."""

    start: int
    size: int
    type: str

    @property
    def line(self) -> str:
        """Its line for sfdisk."""
        return f"start={self.start // 512}, size={self.size // 512}, type={self.type}"


def layout(kind: Kind) -> tuple[str, dict[str, Part]]:
    """The table's label, and the partitions in their order: no room is left behind the last one."""
    end = DISK_SIZE - MIB
    swap = Part(end - 128 * MIB, 128 * MIB, "swap")
    if kind == "bios-mbr":
        # As Debian's installer does it: the swap partition is a logical one at the end.
        box = Part(swap.start - 2 * MIB, 130 * MIB, "5")
        logical = Part(swap.start - MIB, 129 * MIB, "82")
        return "dos", {"root": Part(MIB, box.start - 2 * MIB, "83, bootable"), "box": box, "swap": logical}
    if kind == "bios-dracut":
        core = Part(MIB, MIB, "21686148-6449-6E6F-744E-656564454649")
        return "gpt", {"core": core, "root": Part(2 * MIB, swap.start - 2 * MIB, "linux"), "swap": swap}
    esp = Part(MIB, (64 if kind == "uefi-grub" else 200) * MIB, "uefi")
    start = esp.start + esp.size
    return "gpt", {"esp": esp, "root": Part(start, swap.start - start, "linux"), "swap": swap}


def key() -> str:
    """The digest of what decides what the images hold."""
    files = (Path(__file__), Path(grub.__file__), Path(rootfs.__file__))
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()[:16]


def build(kind: Kind, say: Say, cache: Path = CACHE) -> Path:
    """The raw image of a host's disk, from the cache or made now (a minute or two; root). Do not write to it.

    Raises CommandError.
    """
    image = cache / f"firmware-{key()}" / f"{kind}.img"
    if not image.exists():
        image.parent.mkdir(parents=True, exist_ok=True)
        with scratch_folder(cache) as work:
            say(f"making the host {kind}")
            root = rootfs.bootstrap(work / "root", (*_COMMON, *_PACKAGES[kind]), "minbase", say)
            made = work / "disk.img"
            make(kind, root, made)
            made.rename(image)
    return image


def make(kind: Kind, root: Path, disk: Path) -> None:
    """Make the Debian in ``root`` the host, and its disk. Raises CommandError."""
    label, parts = layout(kind)
    configure(kind, root)
    with disk.open("wb") as file:
        file.truncate(DISK_SIZE)
    lines = "".join(f"{part.line}\n" for part in parts.values())
    run(["sfdisk", "-q", disk], input=f"label: {label}\n{lines}".encode())
    if "esp" in parts:
        _make_esp(kind, disk, parts["esp"], root)
    else:
        where = "msdos1" if label == "dos" else "gpt2"
        core = grub.make_core(root, f"(hd0,{where})/boot/grub", _CORE_MODULES)
        grub.install_bios(disk, root, core, at=parts["core"].start if "core" in parts else 512)
    swap, part = parts["swap"], parts["root"]
    with tempfile.NamedTemporaryFile(dir=disk.parent) as area:
        os.truncate(area.name, swap.size)
        run(["mkswap", "--uuid", SWAP_UUID, area.name])
        words = [f"if={area.name}", f"of={disk}", "bs=1M", f"seek={swap.start // MIB}", "conv=notrunc,sparse"]
        run(["dd", *words, "status=none"])
    options = f"offset={part.start},lazy_itable_init=0,nodiscard"
    run(
        ["mkfs.ext4", "-q", "-F", "-U", ROOT_UUID, "-E", options, "-d", root, disk, f"{part.size // 1024}k"]
    )  # fmt: skip


def configure(kind: Kind, root: Path) -> None:
    """Files, the serial line's report, and an initramfs that knows the old machine only."""
    version = rootfs.kernel_version(root)
    swap = f"UUID={SWAP_UUID} none swap sw 0 0\n"
    esp = "UUID=5EED-C0DE /boot/efi vfat umask=0077 0 1\n" if kind == "uefi-grub" else ""
    # Names of the dead machine's disk, which mean nothing on another one.
    first = {"bios-mbr": "/dev/vda1", "bios-dracut": "/dev/vda2"}.get(kind, f"UUID={ROOT_UUID}")
    words = f"{_CONSOLE} resume=/dev/disk/by-id/ata-GONE_0815-part3"
    if kind == "bios-mbr":
        words += " root=/dev/disk/by-id/virtio-OLD01-part1"
    files = {
        "etc/hostname": f"{kind}\n",
        "etc/machine-id": f"{MACHINE_ID}\n",
        "etc/fstab": f"{first} / ext4 errors=remount-ro 0 1\n{esp}{swap}",
        "usr/local/sbin/lab-report": _SCRIPT,
        "etc/systemd/system/lab-report.service": _UNIT,
        "etc/systemd/network/80-all.network": "[Match]\nType=ether\n[Network]\nDHCP=yes\n",
    }
    if kind != "uefi-systemd-boot":
        files["etc/default/grub"] = _DEFAULT_GRUB.format(words=words)
        files["boot/grub/grub.cfg"] = (
            f"search --no-floppy --fs-uuid --set=root {ROOT_UUID}\nmenuentry 'Debian GNU/Linux' {{\n"
            f"linux /boot/vmlinuz-{version} root={first} ro {words}\ninitrd /boot/initrd.img-{version}\n}}\n"
        )
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (root / "usr/local/sbin/lab-report").chmod(0o755)
    (root / "boot/efi").mkdir(exist_ok=True)
    if (root / "usr/lib/grub/i386-pc").is_dir():
        shutil.copytree(root / "usr/lib/grub/i386-pc", root / "boot/grub/i386-pc", dirs_exist_ok=True)
    idle = ["apt-daily.timer", "apt-daily-upgrade.timer", "e2scrub_all.timer", "e2scrub_reap.service", "fstrim.timer"]
    # A login on the line hangs it up first, and with it who is reporting there.
    run(["chroot", root, "systemctl", "-q", "mask", *idle, "serial-getty@ttyS0.service"])
    run(["chroot", root, "systemctl", "-q", "enable", "lab-report.service"])
    with rootfs.mounted_system(root):
        _initramfs(kind, root, version)


def _initramfs(kind: Kind, root: Path, version: str) -> None:
    image = f"/boot/initrd.img-{version}"
    if kind == "bios-dracut":
        (root / "etc/dracut.conf.d/10-old.conf").write_text('hostonly="yes"\n')
        words = ["--force", "--no-hostonly", "--drivers", " ".join(_OLD_DRIVERS)]
        run(["chroot", root, "dracut", *words, image, version], timeout=1200)
        return
    settings = root / "tmp/initramfs-tools"
    shutil.copytree(root / "etc/initramfs-tools", settings)
    (settings / "initramfs.conf").write_text("MODULES=list\nCOMPRESS=zstd\nRESUME=none\n")
    (settings / "modules").write_text("\n".join(_OLD_DRIVERS) + "\n")
    run(["chroot", root, "mkinitramfs", "-d", "/tmp/initramfs-tools", "-o", image, version], timeout=1200)  # noqa: S108
    shutil.rmtree(settings)
    (root / "etc/initramfs-tools/conf.d/modules").write_text("MODULES=dep\n")


def _make_esp(kind: Kind, disk: Path, part: Part, root: Path) -> None:
    words = ["mkfs.vfat", "-F", "32", "-s", "1", "-i", "5EEDC0DE", "-n", "ESP", "--offset", str(part.start // 512)]
    run([*words, disk, str(part.size // 1024)])
    with tempfile.TemporaryDirectory() as scratch:
        tree = Path(scratch)
        for name, content in _esp_files(kind, root).items():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            (tree / name).write_bytes(content)
        run(["mcopy", "-s", "-i", f"{disk}@@{part.start}", *sorted(tree.iterdir()), "::"])


def _esp_files(kind: Kind, root: Path) -> dict[str, bytes]:
    """As Debian's installer and ``bootctl install`` leave an ESP; the first without a fallback path."""
    if kind == "uefi-grub":
        lead = f"search.fs_uuid {ROOT_UUID} root\nset prefix=($root)'/boot/grub'\nconfigfile $prefix/grub.cfg\n"
        signed = root / "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed"
        return {
            "EFI/debian/shimx64.efi": (root / "usr/lib/shim/shimx64.efi.signed").read_bytes(),
            "EFI/debian/mmx64.efi": (root / "usr/lib/shim/mmx64.efi.signed").read_bytes(),
            "EFI/debian/grubx64.efi": signed.read_bytes(),
            "EFI/debian/grub.cfg": lead.encode(),
        }
    version = rootfs.kernel_version(root)
    loader = (root / "usr/lib/systemd/boot/efi/systemd-bootx64.efi.signed").read_bytes()
    entry = (
        f"title Debian GNU/Linux 13 (trixie)\nversion {version}\nmachine-id {MACHINE_ID}\nsort-key debian\n"
        f"options root=/dev/vda2 ro {_CONSOLE} resume=/dev/disk/by-id/ata-GONE_0815-part3\n"
        f"linux /{MACHINE_ID}/{version}/linux\ninitrd /{MACHINE_ID}/{version}/initrd.img-{version}\n"
    )
    return {
        "EFI/systemd/systemd-bootx64.efi": loader,
        "EFI/BOOT/BOOTX64.EFI": loader,
        "loader/loader.conf": b"timeout 1\nconsole-mode keep\n",
        f"loader/entries/{MACHINE_ID}-{version}.conf": entry.encode(),
        f"{MACHINE_ID}/{version}/linux": (root / f"boot/vmlinuz-{version}").read_bytes(),
        f"{MACHINE_ID}/{version}/initrd.img-{version}": (root / f"boot/initrd.img-{version}").read_bytes(),
    }


def report(serial: str) -> dict[str, str]:
    """What the host said. Empty when it said nothing whole. Pure."""
    begin, end = serial.rfind("LAB-REPORT-BEGIN"), serial.rfind("LAB-REPORT-END")
    if not 0 <= begin < end:
        return {}
    pairs = (line.strip().partition("=") for line in serial[begin:end].splitlines())
    return {name: value.strip() for name, equals, value in pairs if equals}
