"""Pure: where everything of a source lies on its disk, how it is named there, and the files that say so."""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass

from recovery.units import MIB
from tests.e2e.lab.accel import KERNEL_PARAMETER
from tests.e2e.matrix.model import Names, Part, Source, Volume

_GPT_TYPES = {
    "bios": "21686148-6449-6E6F-744E-656564454649",
    "esp": "C12A7328-F81F-11D2-BA4B-00A0C93EC93B",
    "linux": "0FC63DAF-8483-4772-8E79-3D69D8477DE4",
    "swap": "0657FD6D-A4AB-43C4-84E5-0933C84B4F4F",
    "lvm": "E6D6D379-F507-44C2-A23C-238F2A3DF928",
}
_MBR_TYPES = {"esp": "ef", "linux": "83", "swap": "82", "lvm": "8e", "extended": "f"}
#: The backup table of a GPT fits in it; MBR needs nothing, and the same end keeps both alike.
_TAIL = MIB
_CONSOLE = f"console=tty0 console=ttyS0,115200 {KERNEL_PARAMETER}"
SERIAL_ROOT = {
    "sata": "ata-QEMU_HARDDISK_{serial}",
    "virtio": "virtio-{serial}",
    "scsi": "scsi-0QEMU_QEMU_HARDDISK_{serial}",
}
#: The first disk on q35: port 0 of its AHCI; slots as the lab's hardware.py gives them.
PATH_ROOT = {
    "sata": "pci-0000:00:1f.2-ata-1", "virtio": "pci-0000:00:10.0", "scsi": "pci-0000:00:1b.0-scsi-0:0:0:0",
}  # fmt: skip
KERNEL_ROOT = {"sata": "sda", "virtio": "vda", "scsi": "sda"}


@dataclass(frozen=True)
class Placed:
    """A partition with its number and place. Bytes."""

    number: int
    part: Part
    start: int
    size: int


def place(source: Source) -> tuple[Placed, ...]:
    """Partitions one after the other from 1 MiB on; logical ones begin 1 MiB behind their own table."""
    found: list[Placed] = []
    at, end = MIB, source.disk * MIB - _TAIL
    inside = False
    for index, part in enumerate(source.parts):
        if inside:
            at += MIB
        number = 5 + sum(p.number >= 5 for p in found) if inside else index + 1
        size = part.size * MIB if part.size else end - at
        if at + size > end:
            raise ValueError(f"{source.name}: partition {number} does not fit on {source.disk} MiB")
        found.append(Placed(number, part, at, size))
        if part.role == "extended":
            inside, end = True, at + size
        else:
            at += size
    return tuple(found)


def identifier(source: Source, what: str) -> str:
    """A UUID that is the same for each build of a source."""
    return str(uuid.UUID(bytes=hashlib.sha256(f"{source.name} {what}".encode()).digest()[:16], version=4))


def volume_uuid(source: Source, volume: Volume) -> str:
    """The UUID of what lies there; a FAT has a short one."""
    whole = identifier(source, f"volume {volume.at}")
    return f"{whole[:4]}-{whole[4:8]}".upper() if volume.kind == "vfat" else whole


def part_uuid(source: Source, number: int) -> str:
    """What PARTUUID= names: an MBR's partitions are numbered behind the disk's signature."""
    if source.table == "mbr":
        return f"{mbr_id(source)}-{number:02x}"
    return identifier(source, f"partition {number}")


def mbr_id(source: Source) -> str:
    """An MBR's signature, 8 hex digits."""
    return identifier(source, "table")[:8]


def sfdisk_script(source: Source) -> str:
    """The table for sfdisk, sectors of 512 bytes."""
    lines = ["label: gpt", f"label-id: {identifier(source, 'table')}"]
    if source.table == "mbr":
        lines = ["label: dos", f"label-id: 0x{mbr_id(source)}"]
    placed = place(source)
    boot = source.boot.at
    for one in placed:
        line = f"{one.number} : start={one.start // 512}, size={one.size // 512}"
        if source.table == "gpt":
            line += f", type={_GPT_TYPES[one.part.role]}, uuid={part_uuid(source, one.number)}"
        else:
            active = boot == str(one.number) or (one.number == 1 and "/" in boot)
            line += f", type={_MBR_TYPES[one.part.role]}" + (", bootable" if active else "")
        lines.append(line)
    return "\n".join(lines) + "\n"


def device_name(source: Source, volume: Volume, names: Names) -> str:
    """The host's name for a volume in this style; logical volumes have names of their own."""
    if "/" in volume.at:
        group, _, name = volume.at.partition("/")
        if names == "uuid":
            return f"UUID={volume_uuid(source, volume)}"
        return f"/dev/mapper/{group.replace('-', '--')}-{name.replace('-', '--')}"
    number = int(volume.at)
    match names:
        case "partuuid":
            return f"PARTUUID={part_uuid(source, number)}"
        case "label" if volume.label:
            return f"LABEL={volume.label}"
        case "by-id":
            return f"/dev/disk/by-id/{SERIAL_ROOT[source.bus].format(serial=source.serial)}-part{number}"
        case "by-path":
            return f"/dev/disk/by-path/{PATH_ROOT[source.bus]}-part{number}"
        case "kernel":
            return f"/dev/{KERNEL_ROOT[source.bus]}{number}"
        case _:
            return f"UUID={volume_uuid(source, volume)}"


def depth(point: str) -> int:
    """How deep a mount point lies: 0 for the root, and for what is not mounted."""
    return len([part for part in point.split("/") if part])


def volume_depth(volume: Volume) -> int:
    """The depth of a volume's shallowest mount point."""
    return min(map(depth, volume.subvolumes or (volume.point,)))


def fstab(source: Source) -> str:
    """``/etc/fstab``."""
    rows = []
    for volume in source.volumes:
        name = device_name(source, volume, source.names)
        if volume.kind == "swap":
            rows.append((name, "none", "swap", "sw", "0 0"))
        for point, subvolume in volume.subvolumes.items():
            rows.append((name, point, volume.kind, f"defaults,subvol={subvolume}", "0 0"))
        if volume.point:
            check = "0 1" if volume.point == "/" else "0 2"
            options = "umask=0077" if volume.kind == "vfat" else "errors=remount-ro" if check == "0 1" else "defaults"
            rows.append((name, volume.point, volume.kind, options if volume.kind != "xfs" else "defaults", check))
    if source.swap_file:
        rows.append(("/swapfile", "none", "swap", "sw", "0 0"))
    rows.sort(key=lambda row: (row[1] == "none", depth(row[1]), row[1]))
    return "".join("{} {} {} {} {}\n".format(*row) for row in rows)


def kernel_words(source: Source) -> str:
    """The kernel's command line but for ``root=``: what default/grub says."""
    swap = next((v for v in source.volumes if v.kind == "swap"), None)
    words = source.words.format(swap=device_name(source, swap, source.names) if swap else "")
    return " ".join(filter(None, (words, _CONSOLE)))


def root_words(source: Source) -> str:
    """``root=...`` and what else names the root."""
    root = source.root
    words = f"root={device_name(source, root, source.root_names or source.names)}"
    if "/" in root.subvolumes:
        words += f" rootflags=subvol={root.subvolumes['/']}"
    return words


def boot_folder(source: Source) -> str:
    """``/boot`` as GRUB sees it: from the top of the filesystem that holds it."""
    if source.boot is not source.root:
        return ""
    top = source.root.subvolumes.get("/")
    return f"/{top}/boot" if top else "/boot"


def grub_config(source: Source, version: str) -> str:
    """``/boot/grub/grub.cfg`` as ``update-grub`` writes it, in short."""
    folder = boot_folder(source)
    return f"""\
set timeout=1
insmod part_gpt
insmod part_msdos
insmod {source.boot.kind if source.boot.kind != "ext4" else "ext2"}
{"insmod lvm" if "/" in source.boot.at else ""}
insmod serial
serial --speed=115200
terminal_input console serial
terminal_output console serial
search --no-floppy --fs-uuid --set=root {volume_uuid(source, source.boot)}
menuentry 'Debian GNU/Linux' --class debian {{
    linux {folder}/vmlinuz-{version} {root_words(source)} ro {kernel_words(source)}
    initrd {folder}/initrd.img-{version}
}}
"""


def grub_prefix(source: Source) -> str:
    """GRUB's own name for the folder with its files, for a core image on the disk."""
    folder = f"{boot_folder(source)}/grub"
    if "/" in source.boot.at:
        return f"(lvm/{source.boot.at.replace('/', '-')}){folder}"
    return f"(hd0,{'gpt' if source.table == 'gpt' else 'msdos'}{source.boot.at}){folder}"


def grub_modules(source: Source) -> list[str]:
    """What a BIOS core image needs to read its prefix."""
    modules = ["biosdisk", "part_gpt" if source.table == "gpt" else "part_msdos"]
    modules += ["lvm"] if "/" in source.boot.at else []
    modules.append({"ext4": "ext2"}.get(source.boot.kind, source.boot.kind))
    return [*modules, "normal", "linux", "search", "search_fs_uuid", "configfile"]


def esp_config(source: Source) -> str:
    """What Debian's signed GRUB reads on the ESP."""
    return (
        f"search.fs_uuid {volume_uuid(source, source.boot)} root\n"
        f"set prefix=($root)'{boot_folder(source)}/grub'\nconfigfile $prefix/grub.cfg\n"
    )
