"""The ISO 9660 image that boots: from CD or USB stick, by BIOS, UEFI, and UEFI with Secure Boot.

The chain is Debian's: shim (signed by Microsoft's key), GRUB and kernel (signed by Debian's). Menu and initramfs are
not part of the signed chain, so no key of ours is needed.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from datetime import UTC, datetime
from pathlib import Path

from rekindle_image.base import Base
from rekindle_image.checksums import add_manifest, reserve
from rekindle_image.request import ImageRequest
from rekindle_image.workshop import HERE, Workshop, settle_times

#: The volume's name, by which the initramfs finds it. REKINDLE alone is an operator's own volume with answers.
#: At most 32 of A-Z, 0-9 and _.
LABEL = "REKINDLE_ISO"
#: EFI system partition, Microsoft basic data: GPT types.
_ESP_TYPE = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
_DATA_TYPE = "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7"
#: Shim, GRUB and MokManager need 4.3 MiB; a FAT16 of this size has room for the next versions.
_ESP_SIZE_KIB = 8192
#: Seconds for a person to choose another entry of the menu.
_TIMEOUT = 3


def fill(template: str, values: dict[str, str]) -> str:
    """Replace each ``@NAME@``. Raises KeyError when the template has a name that is not given."""
    return re.sub(r"@([A-Z_]+)@", lambda match: values[match.group(1)], template)


def menu_values(request: ImageRequest) -> dict[str, str]:
    """What the boot menus are filled with."""
    # In single quotes GRUB takes every character as it is; ``site.parse_word`` lets no quote through.
    words = " ".join(f"'{word}'" for word in request.unattended)
    return {
        "SERIAL": request.serial, "SERIAL_UNIT": request.serial.removeprefix("ttyS"), "TIMEOUT": str(_TIMEOUT),
        "UNATTENDED": words, "PARAMETERS": " ".join(request.kernel_parameters),
    }  # fmt: skip


def parameters_of(menu: str) -> str:
    """The kernel parameters that a filled menu gives, for a boot that reads no menu of GRUB. Pure."""
    found = re.search(r'^set parameters="(.*)"$', menu, re.MULTILINE)
    return found[1] if found else ""


def sha256_of(file: Path) -> str:
    """The SHA-256 of a file's content, in hex."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def lay_tree(request: ImageRequest, base: Base, code: Path, tree: Path) -> None:
    """The files of the ISO. GRUB's CD edition looks for ``/.disk/info``, our BIOS one for ``/.disk/rekindle``."""
    for name in ("rekindle", "netboot", "boot/grub", ".disk"):
        (tree / name).mkdir(parents=True)
    for source, name in (
        (base.path / "vmlinuz", "rekindle/vmlinuz"),
        (base.path / "initrd.img", "rekindle/initrd.img"),
        (base.squashfs, "rekindle/base.squashfs"),
        (code, "rekindle/rekindle.squashfs"),
        (base.path / "boot/memtest86+x64.bin", "boot/memtest86+x64.bin"),
        (base.path / "boot/memtest86+x64.efi", "boot/memtest86+x64.efi"),
        (base.path / "boot/eltorito.img", "boot/grub/eltorito.img"),
        # What `rekindle iso netboot` lays out beside them (netboot.py).
        (base.path / "boot/shimx64.efi", "netboot/bootx64.efi"),
        (base.path / "boot/grubnetx64.efi", "netboot/grubx64.efi"),
        (base.path / "boot/bios.pxe", "netboot/bios.pxe"),
    ):
        shutil.copyfile(source, tree / name)
    # The initramfs lays the file systems over each other in this order, the last on top.
    (tree / "rekindle/filesystem.module").write_text("base.squashfs\nrekindle.squashfs\n")
    sums = ((file.name, sha256_of(file)) for file in sorted((tree / "rekindle").iterdir()))
    (tree / "rekindle/SHA256SUMS").write_text("".join(f"{digest}  {name}\n" for name, digest in sums))
    info = f"Rekindle recovery medium {request.date}, firmware {request.firmware}, kernel {base.kernel_version}\n"
    (tree / ".disk/info").write_text(info)
    (tree / ".disk/rekindle").write_text(info)
    menu = (HERE / "boot" / "grub.cfg").read_text()
    (tree / "boot/grub/grub.cfg").write_text(fill(menu, menu_values(request)))
    reserve(tree)
    settle_times(tree, request.epoch)


def make_esp(shop: Workshop, base: Base, target: Path) -> None:
    """The EFI system partition: a FAT with shim, GRUB and MokManager under their fallback names."""
    with target.open("wb") as file:
        file.truncate(_ESP_SIZE_KIB * 1024)
    shop.run(["mkfs.vfat", "--invariant", "-n", "REKINDLEEFI", target])
    files = shop.scratch("esp")
    for source, name in (("shimx64.efi", "bootx64.efi"), ("gcdx64.efi", "grubx64.efi"), ("mmx64.efi", "mmx64.efi")):
        shutil.copyfile(base.path / "boot" / source, files / name)
    settle_times(files, shop.epoch)
    shop.run(["mmd", "-i", target, "::EFI", "::EFI/boot"])
    shop.run(["mcopy", "-m", "-i", target, *sorted(files.iterdir()), "::EFI/boot/"])


def make_iso(shop: Workshop, request: ImageRequest, base: Base, tree: Path, esp: Path, target: Path) -> None:
    """One file that is a CD and a disk: El Torito for both firmwares, an MBR boot sector, a GPT with the ESP."""
    stamp = _iso_stamp(request.epoch)
    shop.run([
        "xorriso", "-as", "mkisofs", "-quiet", "-o", target, "-V", LABEL, "-r",
        "--modification-date=" + stamp, "--set_all_file_dates", "set_to_mtime",
        "-partition_offset", "16", "-iso_mbr_part_type", _DATA_TYPE,
        "--grub2-mbr", base.path / "boot/boot_hybrid.img", "--mbr-force-bootable",
        "-append_partition", "2", _ESP_TYPE, esp, "-appended_part_as_gpt",
        "-c", "/boot/grub/boot.cat",
        "-b", "/boot/grub/eltorito.img", "-no-emul-boot", "-boot-load-size", "4", "-boot-info-table",
        "--grub2-boot-info",
        "-eltorito-alt-boot", "-e", "--interval:appended_partition_2:all::", "-no-emul-boot",
        tree,
    ])  # fmt: skip
    add_manifest(shop, target)


def _iso_stamp(epoch: int) -> str:
    return datetime.fromtimestamp(epoch, UTC).strftime("%Y%m%d%H%M%S00")
