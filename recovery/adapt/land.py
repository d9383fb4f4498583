"""After the restore of a disk that is laid out anew: what is to be smaller is shrunk, what counts in sectors is made
anew, and last of all the partition table is written. Until then the disk has none, and cannot boot half-done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from recovery.adapt.composed import Composed, ReadOnly, write_all
from recovery.adapt.fat import remake
from recovery.adapt.lvmhead import new_head
from recovery.adapt.model import Moved
from recovery.adapt.newtable import new_table
from recovery.adapt.ntfs import moved_boot
from recovery.adapt.resize import shrink_filesystem
from recovery.errors import RekindleError
from recovery.format.point import Point, PointDisk
from recovery.layout import Landing, Placement
from recovery.restore.fuse import shown
from recovery.restore.placed import Extent
from recovery.restore.view import PointView
from recovery.units import MIB, format_size

#: (what is done, with what content) -> the programs that it takes; each is also shown its filesystem by FUSE.
TOOLS: dict[tuple[str, str], tuple[str, ...]] = {
    **{("shrink", kind): ("e2fsck", "resize2fs") for kind in ("ext2", "ext3", "ext4")},
    ("shrink", "btrfs"): ("btrfs", "losetup"),
    ("shrink", "swap"): ("umount",),
    ("remake", "vfat"): ("mkfs.vfat", "mcopy", "mdir"),
}
#: Of the captured disk: its boot sector and GPT in sectors of up to 4096 bytes.
_HEAD = 64 * 1024


@dataclass(frozen=True)
class Land:
    """One disk of a point on its way to a target of another size or sector size. ``size`` is the target's.

    ``begin`` hears a sentence of each long work before it, ``tell`` of what was done, ``note`` what tools print.
    """

    source: PointDisk
    landing: Landing
    view: PointView
    target: str
    size: int
    begin: Callable[[str], None]
    tell: Callable[[str], None]
    note: Callable[[str], None]

    def finish(self) -> None:
        """Raises CommandError, IntegrityError, DeviceError, UnreachableError: the disk has no table then."""
        for placed in self.landing.placements:
            try:
                if placed.way == "shrink":
                    self._shrink(placed)
                elif placed.way == "remake":
                    self._remake(placed)
                elif placed.moved and placed.content.kind == "ntfs":
                    self._begin_ntfs(placed)
            except RekindleError as error:
                error.message = f"{self._name(placed)} of {self.source.name}: {error.message}"
                error.args = (error.message,)
                raise
        self.view.stop_if_asked()
        head = self.view.read(0, _HEAD)
        write_all(self.target, list(new_table(self.landing, self.size, head, self.source.sector_size)))

    def _shrink(self, placed: Placement) -> None:
        if placed.volumes:
            self._shrink_volumes(placed)
            return
        self.begin(
            f"{self._name(placed)} ({placed.content.kind}) is being shrunk to {format_size(placed.size)}: what lies "
            "beyond is moved. That may take minutes."
        )
        composed = Composed(
            self.target, placed.start, placed.size,
            view=self.view, old_start=placed.old_start, size=placed.old_size,
        )  # fmt: skip
        with composed:
            with shown(composed, writable=True) as file:
                shrink_filesystem(file.path, placed.content.kind, placed.size, self.note)
            composed.sync()
        self.tell(
            f"{self._name(placed)} ({placed.content.kind}) was shrunk from {format_size(placed.old_size)} to "
            f"{format_size(placed.size)}."
        )

    def _shrink_volumes(self, placed: Placement) -> None:
        """The volumes' filesystems, then the group's metadata: until then there is no physical volume."""
        for volume in placed.volumes:
            name = f"{volume.group}/{volume.name}"
            if volume.size == volume.old_size:
                continue
            self.begin(f"Logical volume {name} ({volume.content.kind}) is being shrunk to {format_size(volume.size)}.")
            composed = Composed(
                self.target, placed.start + volume.start, volume.size,
                view=self.view, old_start=placed.old_start + volume.old[0].offset, size=volume.old_size,
            )  # fmt: skip
            with composed:
                with shown(composed, writable=True) as file:
                    shrink_filesystem(file.path, volume.content.kind, volume.size, self.note)
                composed.sync()
            self.tell(
                f"Logical volume {name} ({volume.content.kind}) was shrunk from {format_size(volume.old_size)} to "
                f"{format_size(volume.size)}."
            )
        start = min(volume.start for volume in placed.volumes)
        old = self.view.read(placed.old_start, start)
        write_all(self.target, [(placed.start, new_head(old, placed.size, placed.volumes))])
        self.tell(
            f"{self._name(placed)} (LVM) was shrunk from {format_size(placed.old_size)} to {format_size(placed.size)}."
        )

    def _remake(self, placed: Placement) -> None:
        old = ReadOnly(self.view, placed.old_start, placed.old_size)
        with Composed(self.target, placed.start, placed.size) as new:
            with shown(old, writable=False) as there, shown(new, writable=True) as here:
                count = remake(there.path, here.path, placed.size, self.landing.sector_size, placed.content)
            new.sync()
        self.tell(
            f"{self._name(placed)} (FAT) was made anew for sectors of {self.landing.sector_size} bytes, with its "
            f"{count} files."
        )

    def _begin_ntfs(self, placed: Placement) -> None:
        """Its boot sector says where it begins, for code of a BIOS; the copy of that sector ends the partition."""
        old = self.view.read(placed.old_start, 512)
        new = moved_boot(old, placed.old_start, placed.start)
        if new is None:
            return
        sectors = int.from_bytes(old[0x28:0x30], "little") * int.from_bytes(old[0x0B:0x0D], "little")
        there = self.view.read(placed.old_start + sectors, 512) if sectors + 512 <= placed.old_size else b""
        copies = [(placed.start, new)] + ([(placed.start + sectors, new)] if there == old else [])
        write_all(self.target, copies)
        self.tell(f"{self._name(placed)} (NTFS) says that it begins at byte {placed.start} of the disk.")

    def _name(self, placed: Placement) -> str:
        return f"Partition {placed.number}" if placed.number else "What lies on the disk"


def extents(source: PointDisk, landing: Landing) -> list[Extent]:
    """What of the captured disk is written where, in its order. Pure.

    Before the first partition of an MBR GRUB keeps its core image; the boot sector itself is part of the table.
    """
    found = [
        Extent(placed.old_start, min(placed.old_size, placed.size), placed.start)
        for placed in landing.placements
        if placed.way in ("copy", "shrink") and not placed.volumes
    ]
    found += [extent for placed in landing.placements for extent in _of_volumes(placed)]
    found.sort()
    if landing.table.kind == "mbr" and landing.sector_size == source.sector_size and landing.placements:
        first = landing.placements[0]
        end = min(first.old_start, first.start, MIB)
        if end > source.sector_size:
            found.insert(0, Extent(source.sector_size, end - source.sector_size, source.sector_size))
    return found


def tools_for(landing: Landing) -> set[str]:
    """The programs that laying it out takes. Pure."""
    wanted: set[str] = set()
    for placed in landing.placements:
        wanted.update(TOOLS.get((placed.way, placed.content.kind), ()))
        for volume in placed.volumes:
            if volume.size < volume.old_size:
                wanted.update(TOOLS.get(("shrink", volume.content.kind), ()))
    return wanted


def _of_volumes(placed: Placement) -> list[Extent]:
    """The pieces of the volumes of a shrunk physical volume, each as far as it is kept. Its head is written last."""
    found: list[Extent] = []
    for volume in placed.volumes:
        at = 0
        for piece in volume.old:
            length = min(piece.size, volume.size - at)
            if length > 0:
                found.append(Extent(placed.old_start + piece.offset, length, placed.start + volume.start + at))
            at += piece.size
    return found


def converted(point: Point, landings: dict[str, Landing]) -> tuple[str, ...]:
    """The disks that had an MBR and have a GPT now. Pure."""
    return tuple(name for name, found in landings.items() if found.table.kind != point.disk(name).table.kind)


def moved(landings: dict[str, Landing]) -> tuple[Moved, ...]:
    """The partitions that begin elsewhere now. Pure."""
    return tuple(
        Moved(disk=name, number=placed.number, old_start=placed.old_start, start=placed.start)
        for name, landing in landings.items()
        for placed in landing.placements
        if placed.moved
    )


def landed(point: Point, landings: dict[str, Landing]) -> Point:
    """The point as it lies on its targets: what the adaptation must find there. Pure."""
    disks = tuple(
        msgspec.structs.replace(disk, table=landing.table, sector_size=landing.sector_size)
        if (landing := landings.get(disk.name))
        else disk
        for disk in point.body.disks
    )
    return msgspec.structs.replace(point, body=msgspec.structs.replace(point.body, disks=disks))
