"""GRUB for BIOS put on a disk image without booting it: what ``grub-install`` does, on a file.

``grub-install`` needs device nodes for partitions, which this machine's kernel may not make. The two places that it
patches are fixed by GRUB's boot sectors (``grub-core/boot/i386/pc``): the address of the core image in ``boot.img``,
and the address of the core image's rest in its own first sector.
"""

from __future__ import annotations

import struct
from pathlib import Path

from recovery.commands import run

SECTOR = 512
_KERNEL_SECTOR = 0x5C  # boot.img: where the core image starts, 64 bits
_DRIVE_CHECK = 0x66  # boot.img: a jump over the code that mistrusts the BIOS's drive number
_TABLE_START = 0x1B8  # boot.img ends here: disk signature and partition table follow
_BLOCK_LIST = 0x1F4  # first sector of the core image: start (64 bits), length (16 bits), segment of the rest


def make_core(root: Path, prefix: str, modules: list[str], config: str = "") -> bytes:
    """A BIOS core image made by the GRUB that is installed in ``root``. Raises CommandError."""
    scratch = root / "tmp"
    (scratch / "early.cfg").write_text(config)
    argv = ["chroot", root, "grub-mkimage", "-O", "i386-pc", "-o", "/tmp/core.img", "-p", prefix]  # noqa: S108
    run([*map(str, argv), *(["-c", "/tmp/early.cfg"] if config else []), *modules])  # noqa: S108 - inside root
    core = (scratch / "core.img").read_bytes()
    for name in ("early.cfg", "core.img"):
        (scratch / name).unlink()
    return core.ljust(-(-len(core) // SECTOR) * SECTOR, b"\0")


def install_bios(disk: Path, root: Path, core: bytes, at: int) -> None:
    """Write boot code into the first sector of ``disk`` and ``core`` at byte ``at``; partition tables stay."""
    boot = bytearray((root / "usr/lib/grub/i386-pc/boot.img").read_bytes()[:SECTOR])
    struct.pack_into("<Q", boot, _KERNEL_SECTOR, at // SECTOR)
    boot[_DRIVE_CHECK : _DRIVE_CHECK + 2] = b"\x90\x90"
    patched = bytearray(core)
    struct.pack_into("<Q", patched, _BLOCK_LIST, at // SECTOR + 1)
    with disk.open("r+b") as file:
        file.write(boot[:_TABLE_START])
        file.seek(at)
        file.write(patched)
