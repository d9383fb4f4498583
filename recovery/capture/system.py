"""The operating system on the captured disks: which volume is its root, what mounts where, what boots it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from recovery.capture.network import read_network
from recovery.capture.tree import Tree
from recovery.capture.volumes import Volume, find_volume
from recovery.layout import SystemFacts

#: Where a distribution keeps its root inside a btrfs: the top, or a subvolume.
ROOT_FOLDERS = ("", "@", "@rootfs", "root")


@dataclass(frozen=True)
class FstabLine:
    """One mount of ``/etc/fstab``."""

    spec: str
    point: str
    kind: str
    options: tuple[str, ...]

    @property
    def subvolume(self) -> str:
        """The btrfs subvolume it mounts, without a leading slash."""
        return next((option[7:].lstrip("/") for option in self.options if option.startswith("subvol=")), "")


def parse_fstab(text: str) -> list[FstabLine]:
    """The lines of an fstab that mount something, in order."""
    lines: list[FstabLine] = []
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 3 and not words[0].startswith("#"):
            options = tuple(words[3].split(",")) if len(words) > 3 else ()
            lines.append(FstabLine(words[0], words[1].replace("\\040", " "), words[2], options))
    return lines


def parse_os_release(text: str) -> dict[str, str]:
    """``ID``, ``PRETTY_NAME`` ... of ``/etc/os-release``."""
    facts: dict[str, str] = {}
    for line in text.splitlines():
        match = re.fullmatch(r"([A-Z_]+)=(.*)", line.strip())
        if match:
            facts[match[1]] = match[2].strip().strip("\"'")
    return facts


def rank_as_root(tree: Tree, volume: Volume, volumes: Sequence[Volume]) -> int:
    """How surely this filesystem is the host's own root; 0 when it is none.

    A host's disks may also hold the roots of its VMs (an LV with a bare filesystem), so the fstab must agree.
    """
    if not (tree.exists("/etc/os-release") or tree.exists("/usr/lib/os-release")):
        return 0
    mounts = parse_fstab(tree.text("/etc/fstab"))
    own = any(line.point == "/" and find_volume(line.spec, volumes) == volume for line in mounts)
    boots = tree.names("/boot") != [] or any(line.point == "/boot" for line in mounts)
    return 1 + (8 if own else 0) + (2 if boots else 0) + (1 if tree.exists("/etc/libvirt") else 0)


def read_system(tree: Tree, where: dict[str, str], esp: str, esp_files: Sequence[str]) -> SystemFacts:
    """The facts of a system whose filesystems are mounted in ``tree``; ``where`` maps mount point -> volume name."""
    release = parse_os_release(tree.text("/etc/os-release") or tree.text("/usr/lib/os-release"))
    return SystemFacts(
        os_name=release.get("PRETTY_NAME", release.get("NAME", "")),
        os_id=release.get("ID", ""),
        architecture=_architecture(tree),
        root=where.get("/", ""),
        boot=where.get(tree.mount_of("/boot"), ""),
        esp=esp,
        mounts=dict(sorted(where.items())),
        kernels=_kernels(tree),
        initramfs=_initramfs(tree),
        bootloader=_bootloader(tree, esp_files),
        network=read_network(tree),
    )


def _architecture(tree: Tree) -> str:
    # e_machine of the ELF header of a program that every system has.
    for program in ("/bin/sh", "/usr/bin/env", "/sbin/init"):
        head = tree.head(program, 20)
        if head[:4] == b"\x7fELF":
            names = {0x3E: "x86_64", 0xB7: "aarch64", 0x03: "i686", 0xF3: "riscv64", 0x15: "ppc64le", 0x16: "s390x"}
            return names.get(int.from_bytes(head[18:20], "little" if head[5] == 1 else "big"), "unknown")
    return "x86_64"


def _kernels(tree: Tree) -> tuple[str, ...]:
    """Kernel versions that have an image in /boot, newest last by their numbers."""
    versions = {match[1] for name in tree.names("/boot") if (match := re.fullmatch(r"vmlinu[xz]-(\d.*)", name))}
    return tuple(sorted(versions, key=lambda text: [int(part) for part in re.findall(r"\d+", text)]))


def _initramfs(tree: Tree) -> str:
    programs = (
        ("update-initramfs", "initramfs-tools"),
        ("dracut", "dracut"),
        ("mkinitcpio", "mkinitcpio"),
    )
    for program, name in programs:
        if any(tree.exists(f"{folder}/{program}") for folder in ("/usr/sbin", "/usr/bin", "/sbin", "/bin")):
            return name
    return ""


def _bootloader(tree: Tree, esp_files: Sequence[str]) -> str:
    if any(tree.exists(path) for path in ("/boot/grub/grub.cfg", "/boot/grub2/grub.cfg", "/etc/default/grub")):
        return "grub"
    if any("/SYSTEMD/SYSTEMD-BOOT" in path for path in esp_files) or tree.exists("/boot/loader/loader.conf"):
        return "systemd-boot"
    if any(tree.exists(path) for path in ("/boot/extlinux/extlinux.conf", "/boot/syslinux/syslinux.cfg")):
        return "extlinux"
    return ""
