"""The sources, and the axes of the targets: what the matrix is made of. Add a row here and it is in the matrix.

A source is chosen so that a few of them differ in as much as possible at once; its title says in what.
"""

from __future__ import annotations

from typing import Any

from tests.e2e.lab.hardware import known_devices
from tests.e2e.matrix.model import Cell, Group, Part, Source, Target, Volume
from tests.e2e.matrix.pairwise import Row, pairwise

_ESP = Volume("2", "vfat", "/boot/efi")

SOURCES: dict[str, Source] = {
    source.name: source
    for source in (
        Source(
            "d13-bridge", "GPT for BIOS and UEFI, ext4, swap partition, UUIDs, vmbr0 by ifupdown, MODULES=dep",
            "trixie", "gpt", 1536, (Part("bios", 1), Part("esp", 64), Part("swap", 128), Part("linux")),
            (_ESP, Volume("4", "ext4", "/", "root"), Volume("3", "swap")),
            "uuid", "ifupdown-bridge", ("bios", "uefi"),
        ),
        Source(
            "d13-logical", "MBR, /boot primary, root and swap logical, /dev/sdX names, MODULES=most",
            "trixie", "mbr", 1664, (Part("linux", 256), Part("extended"), Part("swap", 128), Part("linux")),
            (Volume("1", "ext4", "/boot"), Volume("6", "ext4", "/"), Volume("5", "swap")),
            "kernel", "ifupdown", ("bios",), initramfs="most",
        ),
        Source(
            "d13-xfs", "GPT for BIOS and UEFI, /boot ext4, root and /home xfs, swap file, PARTUUIDs, networkd by name",
            "trixie", "gpt", 2432,
            (Part("bios", 1), Part("esp", 64), Part("linux", 256), Part("linux", 320), Part("linux")),
            (_ESP, Volume("3", "ext4", "/boot"), Volume("4", "xfs", "/home"), Volume("5", "xfs", "/")),
            "partuuid", "networkd", ("uefi", "bios"), swap_file=64,
        ),
        Source(
            "d13-btrfs", "GPT for UEFI, btrfs with subvolumes, labels, bridge and VLAN by networkd, MODULES=dep",
            "trixie", "gpt", 1792, (Part("swap", 64), Part("esp", 64), Part("linux")),
            (
                _ESP, Volume("1", "swap", label="swap0"),
                Volume("3", "btrfs", label="system", subvolumes={"/": "@rootfs", "/home": "@home"}),
            ),
            "label", "networkd-bridge", ("uefi",),
        ),
        Source(
            "d13-lvm", "GPT for BIOS and UEFI, /boot ext4, root, /var and swap on LVM, bridge by netplan, resume=",
            "trixie", "gpt", 2560, (Part("bios", 1), Part("esp", 64), Part("linux", 256), Part("lvm")),
            (
                _ESP, Volume("3", "ext4", "/boot"), Volume("vg-host/root", "ext4", "/"),
                Volume("vg-host/var", "ext4", "/var"), Volume("vg-host/swap", "swap"),
            ),
            "mapper", "netplan-bridge", ("bios", "uefi"),
            groups=(Group("vg-host", 4, {"root": 1280, "var": 512, "swap": 128}),), words="resume={swap}",
        ),
        Source(
            "d12-byid", "Debian 12, GPT for UEFI, ext4, swap partition, by-id names, NetworkManager keyfile",
            "bookworm", "gpt", 1792, (Part("swap", 128), Part("esp", 64), Part("linux")),
            (_ESP, Volume("3", "ext4", "/"), Volume("1", "swap")),
            "by-id", "nm-keyfile", ("uefi",), words="resume={swap}",
        ),
        Source(
            "d12-bypath", "Debian 12, MBR, ext4, by-path names, virtio, bond below vmbr0 by ifupdown, MODULES=dep",
            "bookworm", "mbr", 1792, (Part("linux", 1600), Part("swap")),
            (Volume("1", "ext4", "/"), Volume("2", "swap")),
            "by-path", "ifupdown-bond", ("bios",), bus="virtio",
        ),
        Source(
            "d12-lvm", "Debian 12, MBR, all of it on LVM in a logical partition, networkd by MAC address",
            "bookworm", "mbr", 2048, (Part("linux", 64), Part("extended"), Part("lvm")),
            (
                Volume("1", "ext4", "/srv"), Volume("vg0/root", "ext4", "/"), Volume("vg0/swap", "swap"),
            ),
            "uuid", "networkd-mac", ("bios",), root_names="mapper",
            groups=(Group("vg0", 5, {"root": 1536, "swap": 128}),),
        ),
        Source(
            "d13-nmbond", "GPT for UEFI, ext4 with /home, swap partition last, PARTUUIDs, bond by NetworkManager",
            "trixie", "gpt", 1920, (Part("linux", 1408), Part("esp", 64), Part("linux", 256), Part("swap")),
            (_ESP, Volume("1", "ext4", "/"), Volume("3", "ext4", "/home"), Volume("4", "swap")),
            "partuuid", "nm-bond", ("uefi",), initramfs="most",
        ),
        Source(
            "d13-vlan", "MBR, xfs alone, swap file, label, VLAN by ifupdown, SCSI",
            "trixie", "mbr", 1792, (Part("linux"),), (Volume("1", "xfs", "/", "rootxfs"),),
            "label", "ifupdown-vlan", ("bios",), bus="scsi", swap_file=64,
        ),
    )
}  # fmt: skip

#: The first value of an axis is the plainest.
AXES: dict[str, tuple[Any, ...]] = {
    "source": tuple(SOURCES),
    "bus": ("virtio", "nvme", "sata", "scsi", "megasas", "mptsas", "pvscsi", "usb"),
    "firmware": ("bios", "uefi", "uefi-sb"),
    "nic": ("virtio-net-pci", "e1000e", "vmxnet3", "rtl8139"),
    "size": ("equal", "larger", "smaller"),
    "sector": ("512", "512e", "4Kn"),
    "chipset": ("q35", "i440fx"),
    # Debian's minimum is the first 64-bit processor; QEMU's translator gives all that it can as "".
    "cpu": ("", "qemu64", "Nehalem"),
    "memory": (1024, 4096),
    "nvram": ("kept", "lost"),
}
#: QEMU has it from 8.0 on. Cells of their own, so that the others are the same on older ones.
LATER_AXES: dict[str, tuple[Any, ...]] = {**AXES, "nic": ("igb",)}


def possible(row: Row) -> bool:
    """Whether such a machine exists in the lab at all; ``row`` may lack axes."""
    firmware, bus, sector = row.get("firmware"), row.get("bus"), row.get("sector")
    impossible = (
        # What QEMU's firmware cannot do. SeaBIOS reads sectors of 512 bytes only; Debian's OVMF has no drivers for
        # MegaRAID, MPT SAS and PVSCSI, and its Secure Boot build wants q35; QEMU's SATA disks have sectors of 512
        # bytes.
        firmware == "bios" and sector == "4Kn",
        firmware in ("uefi", "uefi-sb") and bus in ("megasas", "mptsas", "pvscsi"),
        firmware == "uefi-sb" and row.get("chipset") == "i440fx",
        bus == "sata" and sector == "4Kn",
        # A BIOS has no variables to lose.
        firmware == "bios" and row.get("nvram") == "lost",
    )
    return not any(impossible)


def moves(row: Row) -> bool:
    """A move that converts nothing: another firmware mode, sector size or a smaller disk is a conversion."""
    if row.get("size") == "smaller" or row.get("sector") == "4Kn":
        return False
    if "source" in row and "firmware" in row:
        boots = SOURCES[row["source"]].boots
        if ("bios" if row["firmware"] == "bios" else "uefi") not in boots:
            return False
    return possible(row)


def converts(row: Row) -> bool:
    """A conversion, on a machine that is plain otherwise. Rows with missing axes may still become one."""
    plain = {"nic": "virtio-net-pci", "chipset": "q35", "cpu": "", "memory": 1024}
    if any(row.get(axis, value) != value for axis, value in plain.items()) or not possible(row):
        return False
    if row.get("nvram", "kept") != "kept" or row.get("bus", "nvme") != "nvme" or row.get("sector") == "512e":
        return False
    complete = {"source", "firmware", "size", "sector"} <= row.keys()
    return not complete or not moves({**row, "nvram": "kept"})


def _later(row: Row) -> bool:
    """A card that only a newer QEMU has, on a machine that is plain otherwise."""
    plain = {"bus": "virtio", "size": "equal", "sector": "512", "chipset": "q35", "cpu": "", "memory": 1024}
    wanted = {**plain, "nvram": "kept"}
    if row.get("firmware") == "uefi-sb" or any(row.get(axis, value) != value for axis, value in wanted.items()):
        return False
    if row.get("firmware") == "uefi" and row.get("source") and "bios" in SOURCES[row["source"]].boots:
        return False
    return moves(row)


def cells(*, everything: bool = False) -> dict[str, Cell]:
    """The cells of the matrix by name: pairwise moves, then pairwise conversions, then what wants a newer QEMU.

    ``everything`` is the product of all axes: thousands, for machines that have weeks.
    """
    selected = [*pairwise(AXES, moves), *pairwise(AXES, converts), *pairwise(LATER_AXES, _later)]
    rows = _all_rows() if everything else selected
    made = (cell_of(row) for row in rows)
    return {cell.name: cell for cell in made}


def cell_of(row: Row) -> Cell:
    """The cell of a complete row."""
    return Cell(row["source"], Target(**{axis: value for axis, value in row.items() if axis != "source"}))


def _all_rows() -> list[Row]:
    rows: list[Row] = [{}]
    for axis, values in AXES.items():
        rows = [new for row in rows for value in values if possible(new := {**row, axis: value})]
    return rows


def parse_name(name: str) -> Cell | None:
    """The cell that a name means, whether it is among the selected ones or not; None when it is none."""
    source, plus, rest = name.partition("+")
    words = rest.split(".")
    axes = ("firmware", "bus", "sector", "size", "nic", "memory", "chipset", "cpu", "nvram")
    if source not in SOURCES or not plus or len(words) != len(axes):
        return None
    row: Row = {"source": source}
    for axis, word in zip(axes, words, strict=True):
        known = {str(value) or "max": value for value in (*AXES[axis], *LATER_AXES[axis])}
        if word not in known:
            return None
        row[axis] = known[word]
    return cell_of(row) if possible(row) else None


def untestable(target: Target) -> str:
    """Why this machine's QEMU cannot emulate the target; empty when it can. Raises CommandError."""
    return "" if target.nic in known_devices() else f"this QEMU has no {target.nic}"
