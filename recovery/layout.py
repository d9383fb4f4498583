"""What lies on disks, as plain data: partition tables, filesystems, LVM, md and LUKS, and the VMs of a host.

Two rooms speak of it without knowing each other: a recovery point records the layout of a captured host, and
``recovery.machine`` describes the layout of the machine in front of us. Offsets and sizes are bytes.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Firmware = Literal["bios", "uefi", "unknown"]
TableKind = Literal["gpt", "mbr", "none"]


class Content(msgspec.Struct, frozen=True, kw_only=True):
    """What a partition, a whole disk or a logical volume holds, as blkid names it.

    ``kind`` is blkid's TYPE: ``ext4``, ``xfs``, ``btrfs``, ``vfat``, ``swap``, ``ntfs``, ``LVM2_member``,
    ``linux_raid_member``, ``crypto_LUKS`` ...; empty when nothing was recognised.
    """

    kind: str = ""
    uuid: str = ""
    label: str = ""
    block_size: int = 0
    used: int | None = None
    """Bytes in use by the filesystem, where that is known."""
    minimum: int | None = None
    """Bytes that the filesystem's own tool says it can be shrunk to, where it was asked (ext2/3/4, btrfs)."""
    unclean: str = ""
    """Why only its own system may write to it, as a clause (NTFS that was not shut down); empty when it was."""


class Partition(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of a partition table. ``number`` counts from 1 as the kernel does; ``type`` is the GPT type GUID
    (lower case) or the MBR type as two hex digits."""

    number: int
    start: int
    size: int
    type: str = ""
    uuid: str = ""
    name: str = ""
    flags: tuple[str, ...] = ()
    content: Content = Content()


class PartitionTable(msgspec.Struct, frozen=True, kw_only=True):
    """The partition table of one disk, partitions in the order of their start."""

    kind: TableKind = "none"
    uuid: str = ""
    partitions: tuple[Partition, ...] = ()


#: What becomes of a partition on the target: the same bytes; made smaller by its filesystem's own tool; a filesystem
#: made anew with the same files; room only, whose content another step writes (GRUB's BIOS boot partition).
PlacementWay = Literal["copy", "shrink", "remake", "room"]


class LvmSegment(msgspec.Struct, frozen=True, kw_only=True):
    """``size`` bytes of a logical volume that lie ``offset`` bytes behind the start of its group's physical volume."""

    offset: int
    size: int


class VolumePlacement(msgspec.Struct, frozen=True, kw_only=True):
    """Where a logical volume lies on a physical volume that is shrunk: what was in ``old`` (``old_size`` bytes) is
    ``size`` bytes in one piece there, ``start`` bytes behind the physical volume's start."""

    name: str
    group: str
    old: tuple[LvmSegment, ...]
    old_size: int
    start: int
    size: int
    content: Content = Content()


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    """Where a captured partition lies on a target that cannot hold it as it was: ``old_size`` bytes from ``old_start``
    of the captured disk become ``size`` bytes from ``start``. ``number`` 0: the whole disk, which has no table."""

    number: int
    old_start: int
    old_size: int
    start: int
    size: int
    way: PlacementWay
    content: Content = Content()
    volumes: tuple[VolumePlacement, ...] = ()
    """The logical volumes on it, where it is a physical volume that is shrunk."""

    @property
    def moved(self) -> bool:
        """It does not begin where it did."""
        return self.start != self.old_start


class Landing(msgspec.Struct, frozen=True, kw_only=True):
    """How a captured disk lies on a target of another size or sector size: ``table`` is what that one gets (starts and
    sizes in bytes, as everywhere), for sectors of ``sector_size`` bytes. ``placements`` are in the order of the disk;
    an MBR's extended partitions are in the table only."""

    sector_size: int
    table: PartitionTable
    placements: tuple[Placement, ...]


class GrowPlace(msgspec.Struct, frozen=True, kw_only=True):
    """Where the room of a larger target goes: to partition ``number`` (0: the whole disk) of the point's disk ``disk``
    and what lies on it; of a volume group there to ``volume`` (``vg0/data``), or to none of its volumes (``vg0``)."""

    disk: str
    number: int
    volume: str = ""


class LogicalVolume(msgspec.Struct, frozen=True, kw_only=True):
    """An LV; ``segment`` is LVM's segment type (``linear``, ``thin``, ``thin-pool``, ``raid1`` ...)."""

    name: str
    size: int
    uuid: str = ""
    segment: str = "linear"
    content: Content = Content()
    segments: tuple[LvmSegment, ...] = ()
    """Where its bytes lie, in their order; known of linear volumes of a group with one physical volume only."""


class VolumeGroup(msgspec.Struct, frozen=True, kw_only=True):
    """A VG with the PV UUIDs that form it. ``extent_size`` (0: not known) is what it counts in; ``extents_start`` the
    bytes before the first extent of its only PV."""

    name: str
    uuid: str = ""
    size: int = 0
    free: int = 0
    extent_size: int = 0
    extents_start: int = 0
    pv_uuids: tuple[str, ...] = ()
    volumes: tuple[LogicalVolume, ...] = ()


class MdArray(msgspec.Struct, frozen=True, kw_only=True):
    """An md array as its members' superblocks describe it. ``devices`` is how many it should have.

    ``members`` are those that were found and in step, by the name of what they lie on (``disk1:2``); ``volume`` is the
    array's own name where a name is wanted (``md/0``); ``content`` what it holds, where that could be read.
    """

    uuid: str
    level: str
    name: str = ""
    devices: int = 0
    members: tuple[str, ...] = ()
    volume: str = ""
    content: Content = Content()


class LuksVolume(msgspec.Struct, frozen=True, kw_only=True):
    """An encrypted volume by its header alone. ``on`` is what it lies on (``disk1:3``, ``md/0``, ``vg0/data``).

    ``memory`` is the most bytes that the key derivation of a key slot needs (Argon2; 0 without); ``tokens`` are the
    LUKS2 tokens' types (``systemd-tpm2``, ``clevis`` ...), which bind a slot to a machine or a device. The header
    starts at byte ``offset`` of the disk ``disk`` (empty: not known) and, with the key slots, takes ``header`` bytes.
    """

    on: str
    uuid: str
    version: int
    disk: str = ""
    offset: int = 0
    header: int = 0
    cipher: str = ""
    slots: int = 0
    memory: int = 0
    tokens: tuple[str, ...] = ()


class DiskExtents(msgspec.Struct, frozen=True, kw_only=True):
    """Which bytes of disk ``disk`` of the point hold something; ``runs`` as ``format/extents.py`` packs them."""

    disk: str
    runs: bytes


class Occupancy(msgspec.Struct, frozen=True, kw_only=True):
    """Where something of ``size`` bytes lies on the disks of the point; what is in no extent reads as zeros."""

    size: int
    disks: tuple[DiskExtents, ...] = ()


class VmDisk(msgspec.Struct, frozen=True, kw_only=True):
    """A virtual disk of a domain: where it lies on the host. ``source`` is a path or a device name; ``on`` the volume
    that holds it (``disk1:2``, ``vg0/data``), empty when not known.

    ``occupies`` is which bytes of the host's disks its file or volume has (of a qcow2 those of the file); None in
    older points, or where ``unmapped`` says why that is not known."""

    target: str
    source: str
    format: str = "raw"
    size: int | None = None
    on: str = ""
    occupies: Occupancy | None = None
    unmapped: str = ""


#: How a VM's disks are in a point: its guest agent froze its filesystems; as after a power cut; it was shut off;
#: empty: not known.
GuestConsistency = Literal["", "application", "crash", "offline"]


#: Whose guest it is, which says what its definition is: a domain's XML; Proxmox' file of a VM, of a container.
Manager = Literal["libvirt", "proxmox", "proxmox-container"]


class VirtualMachine(msgspec.Struct, frozen=True, kw_only=True):
    """A VM of the host: a libvirt domain, or a guest of Proxmox (a container as well). ``memory`` is bytes;
    ``definition`` is the domain's XML, or Proxmox' configuration file.

    ``state`` is what was known at capture: ``running``, ``shut off``, ``saved`` (libvirt: suspended to disk), another
    word of its hypervisor's, or ``unknown`` for an offline capture. ``unquiesced`` is why ``consistency`` is ``crash``
    or not known.
    """

    name: str
    uuid: str = ""
    memory: int = 0
    vcpus: int = 0
    autostart: bool = False
    state: str = "unknown"
    disks: tuple[VmDisk, ...] = ()
    definition: str = ""
    consistency: GuestConsistency = ""
    unquiesced: str = ""
    manager: Manager = "libvirt"


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """A network interface as the captured host's configuration names it."""

    interface: str
    mac: str = ""
    addresses: tuple[str, ...] = ()
    dhcp: bool = False


class SystemFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The operating system found on the captured disks: enough to choose a point and to plan its adaptation.

    ``root`` and ``boot`` name where they lie: ``disk1:2`` is partition 2 of the point's disk ``disk1``,
    ``vg0/root`` an LV, ``md/0`` an md array; empty when not found. ``mounts`` has the same for each mount point of
    fstab whose place was found (points of older releases have none). ``initramfs`` and ``bootloader`` are the tools'
    names (``initramfs-tools``, ``dracut``; ``grub``, ``systemd-boot``).
    """

    os_name: str = ""
    os_id: str = ""
    architecture: str = "x86_64"
    root: str = ""
    boot: str = ""
    esp: str = ""
    mounts: dict[str, str] = {}
    kernels: tuple[str, ...] = ()
    initramfs: str = ""
    bootloader: str = ""
    network: tuple[Address, ...] = ()


class WindowsSystem(msgspec.Struct, frozen=True, kw_only=True):
    """A Windows found on the captured disks. ``volume`` is where (``disk1:3``).

    ``drivers`` are the storage drivers that it has (services of its registry whose file is there); None where its
    registry could not be looked into, and ``problem`` is why, in a sentence. ``hibernated``: a session sleeps in it
    (hibernation, or Windows' fast start); ``unclean`` is why else only Windows may write to its volume, as a clause.
    """

    volume: str
    name: str = "Windows"
    drivers: tuple[str, ...] | None = None
    problem: str = ""
    damaged: bool = False
    """The problem is of its registry, not of the machine that looked."""
    hibernated: bool = False
    unclean: str = ""


#: ``SystemFacts.os_id`` of a host that is Windows; Linux has its ID of os-release.
WINDOWS = "windows"
