"""The matrix as data: what a source image holds, what a target machine is made of, and a cell of both."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from tests.e2e.lab.hardware import Chipset, DiskBus, Firmware

Table = Literal["gpt", "mbr"]
Suite = Literal["trixie", "bookworm"]
#: How fstab and the kernel's command line name devices.
Names = Literal["uuid", "partuuid", "label", "by-id", "by-path", "kernel", "mapper"]
Network = Literal[
    "ifupdown", "ifupdown-bridge", "ifupdown-bond", "ifupdown-vlan", "networkd", "networkd-mac", "networkd-bridge",
    "netplan-bridge", "nm-keyfile", "nm-bond",
]  # fmt: skip
Size = Literal["equal", "larger", "smaller"]
Sector = Literal["512", "512e", "4Kn"]


@dataclass(frozen=True)
class Part:
    """A partition. ``size`` in MiB, 0 for the rest of the disk. ``role`` decides its type.

    An ``extended`` partition contains all that come after it; their numbers begin at 5.
    """

    role: Literal["bios", "esp", "linux", "swap", "lvm", "extended"]
    size: int = 0


@dataclass(frozen=True)
class Group:
    """A volume group on partition ``part`` with linear ``volumes`` (name -> MiB)."""

    name: str
    part: int
    volumes: dict[str, int]

    def __hash__(self) -> int:
        return hash((self.name, self.part, tuple(self.volumes.items())))


@dataclass(frozen=True)
class Volume:
    """A filesystem or swap area. ``at`` is a partition's number (``2``) or a logical volume (``vg0/root``).

    ``point`` is where it is mounted; empty for swap. ``subvolumes`` (btrfs): mount point -> subvolume.
    """

    at: str
    kind: Literal["ext4", "xfs", "btrfs", "swap", "vfat"]
    point: str = ""
    label: str = ""
    subvolumes: dict[str, str] = field(default_factory=dict)

    def __hash__(self) -> int:
        return hash((self.at, self.kind, self.point))


@dataclass(frozen=True)
class Source:
    """A system that is captured. ``disk`` in MiB; ``swap_file`` in MiB, 0 for none.

    ``boots`` are the firmware modes that it has a boot loader for; the first is the one of its own machine.
    ``bus`` is its own machine's. ``words`` are added to its kernel command line (``{swap}``: the swap area's name).
    """

    name: str
    title: str
    suite: Suite
    table: Table
    disk: int
    parts: tuple[Part, ...]
    volumes: tuple[Volume, ...]
    names: Names
    network: Network
    boots: tuple[Literal["bios", "uefi"], ...]
    groups: tuple[Group, ...] = ()
    root_names: Names | None = None
    """How the kernel's command line names the root; None: as fstab does."""
    initramfs: Literal["dep", "most"] = "dep"
    bus: Literal["sata", "virtio", "scsi"] = "sata"
    swap_file: int = 0
    words: str = ""
    packages: tuple[str, ...] = ()
    """Debian packages beside the base's."""

    @property
    def root(self) -> Volume:
        """The volume that holds ``/``."""
        return next(v for v in self.volumes if v.point == "/" or "/" in v.subvolumes)

    @property
    def boot(self) -> Volume:
        """The volume that holds kernels and GRUB's files."""
        return next((v for v in self.volumes if v.point == "/boot"), self.root)

    @property
    def points(self) -> tuple[str, ...]:
        """Everything that fstab mounts."""
        found = [p for v in self.volumes for p in (v.subvolumes or {v.point: ""}) if p]
        return tuple(sorted(found))

    @property
    def swaps(self) -> int:
        """How many swap areas are on."""
        return sum(v.kind == "swap" for v in self.volumes) + bool(self.swap_file)

    @property
    def serial(self) -> str:
        """The serial number of its own disk."""
        return "OLDDISK01"


@dataclass(frozen=True)
class Target:
    """A machine that a source is restored onto. ``memory`` in MiB; ``nvram`` kept: the one that adaptation wrote."""

    firmware: Firmware = "bios"
    bus: DiskBus = "virtio"
    sector: Sector = "512"
    size: Size = "equal"
    nic: str = "virtio-net-pci"
    memory: int = 1024
    chipset: Chipset = "q35"
    cpu: str = ""
    nvram: Literal["kept", "lost"] = "kept"


@dataclass(frozen=True)
class Cell:
    """A source on a target."""

    source: str
    target: Target

    @property
    def name(self) -> str:
        """Names it for ever: ``d13-lvm+uefi.nvme.512.larger.e1000e.1024.q35.max.kept``."""
        t = self.target
        words = (t.firmware, t.bus, t.sector, t.size, t.nic, t.memory, t.chipset, t.cpu or "max", t.nvram)
        return f"{self.source}+" + ".".join(str(word) for word in words)
