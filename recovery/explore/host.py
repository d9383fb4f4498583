"""The volumes and files of a captured host, as its own fstab and LVM put them together."""

from __future__ import annotations

import stat
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path, PurePosixPath

from recovery.capture.lvm import PhysicalVolume, read_groups, read_pv
from recovery.capture.ranges import Extent
from recovery.capture.system import parse_fstab
from recovery.capture.thin import thin_runs
from recovery.capture.volumes import Volume, find_volume
from recovery.errors import IntegrityError, NotFoundError, UsageError
from recovery.explore.chunks import ChunkSource
from recovery.explore.ext4 import Ext4, Inode, missing
from recovery.explore.mapped import Mapped, Piece, of_extents, of_runs
from recovery.format.extents import decode_runs
from recovery.format.point import Point, PointDisk
from recovery.layout import Content, Occupancy
from recovery.repository.content import disk_content
from recovery.repository.repository import Repository
from recovery.units import MIB

#: LVM's label and metadata lie before the first extent, which is at 1 MiB unless somebody asked for more.
_PV_HEAD = 4 * MIB
_MAX_LINKS = 40
_READABLE = ("ext2", "ext3", "ext4")


class HostView:
    """A point's host. Extents name disks of the point where those of a capture name devices."""

    def __init__(self, repository: Repository, point: Point) -> None:
        self._repository, self._point = repository, point
        self._disks: dict[str, ChunkSource] = {}
        self._places: dict[str, Mapped] = {}
        self._filesystems: dict[str, Ext4] = {}
        self._mounts: dict[str, Volume] = {}

    @cached_property
    def volumes(self) -> list[Volume]:
        """Disks, partitions and logical volumes. Reads LVM's metadata, so only where it is needed."""
        found = self._partitions()
        return found + self._logical(found)

    def disk(self, name: str) -> ChunkSource:
        """A disk of the point."""
        if name not in self._disks:
            self._disks[name] = ChunkSource(self._repository, disk_content(self._repository, self._point, name), name)
        return self._disks[name]

    def read(self, mapped: Mapped, offset: int, length: int) -> bytes:
        """Bytes of what is mapped; fewer only at its end."""
        data = bytearray(max(0, min(length, mapped.size - offset)))
        for piece in mapped.part(offset, length):
            data[piece.at : piece.at + piece.length] = self.disk(piece.disk).read(piece.offset, piece.length)
        return bytes(data)

    def occupied(self, occupancy: Occupancy) -> Mapped:
        """What the point itself says where something lies; nothing is read. Raises IntegrityError."""
        pieces: list[Piece] = []
        for part in occupancy.disks:
            try:
                size = self._disk_of(part.disk).size
            except KeyError as error:
                raise IntegrityError(f"The point has extents on '{part.disk}', which is not in it.") from error
            pieces += [Piece(run.at, part.disk, run.offset, run.length)
                       for run in decode_runs(part.runs, occupancy.size, size)]  # fmt: skip
        return Mapped(occupancy.size, tuple(sorted(pieces, key=lambda piece: piece.at)))

    def volume(self, name: str) -> Mapped:
        """The bytes of volume ``name`` (``disk1:2``, ``vg0/db``). Raises NotFoundError, UsageError, IntegrityError."""
        found = next((volume for volume in self.volumes if volume.name == name), None)
        if found is None:
            raise NotFoundError(f"The point has no volume {name}.")
        return self._place(found)

    def file(self, path: str) -> Mapped:
        """Where a file of the host lies, by its own path, links followed. Raises NotFoundError, UsageError."""
        volume, inode = self._locate(path)
        if not stat.S_ISREG(inode.mode):
            raise UsageError(f"{path} is not a regular file.")
        pieces: list[Piece] = []
        for run in self._filesystem(volume).runs(inode):
            pieces += self._place(volume).part(run.offset, run.length, run.at)
        return Mapped(inode.size, tuple(pieces))

    # --- volumes ----------------------------------------------------------------------------------------------

    def _partitions(self) -> list[Volume]:
        found: list[Volume] = []
        for disk in self._point.body.disks:
            for part in disk.table.partitions:
                extents = (Extent(Path(disk.name), part.start, part.size),)
                found.append(
                    Volume(f"{disk.name}:{part.number}", part.size, extents, part.content, part.uuid, part.name)
                )
            if not disk.table.partitions:
                found.append(Volume(disk.name, disk.size, (Extent(Path(disk.name), 0, disk.size),), disk.content))
        return found

    def _logical(self, volumes: Sequence[Volume]) -> list[Volume]:
        """LVs, by LVM's own metadata as it was captured."""
        contents = {
            f"{group.name}/{volume.name}": volume.content
            for group in self._point.body.volume_groups
            for volume in group.volumes
        }
        if not contents:
            return []
        pvs: list[PhysicalVolume] = []
        with tempfile.TemporaryDirectory(prefix="rekindle-lvm-") as folder:
            for volume in volumes:
                if volume.content.kind != "LVM2_member":
                    continue
                # The reader of the capture wants files: sparse ones, in which nothing but the metadata is there.
                (extent,) = volume.extents
                path = Path(folder, extent.path.name)
                with path.open("r+b" if path.exists() else "wb") as file:
                    file.truncate(self._disk_of(extent.path.name).size)
                    file.seek(extent.offset)
                    file.write(self.read(of_extents(volume.extents), 0, min(_PV_HEAD, volume.size)))
                pv = read_pv([Extent(path, extent.offset, extent.length)])
                pvs += [pv] if pv else []
            _, mapped = read_groups(pvs)
        return [
            Volume(
                lv.name, lv.volume.size, _on_disks(lv.extents), contents.get(lv.name, Content()),
                thin=lv.thin and replace(lv.thin, metadata=_on_disks(lv.thin.metadata), data=_on_disks(lv.thin.data)),
            )
            for lv in mapped
        ]  # fmt: skip

    def _place(self, volume: Volume) -> Mapped:
        """Where a volume lies. Raises UsageError when that is not known, IntegrityError for the map of a thin pool."""
        if volume.name not in self._places:
            self._places[volume.name] = self._thin(volume) if volume.thin else of_extents(volume.extents)
        found = self._places[volume.name]
        if found.size < volume.size:
            raise UsageError(
                f"Where the bytes of {volume.name} lie is not known: it, or its thin pool, is not linear (RAID, "
                "cached, a snapshot that is no thin one), or a disk of its volume group was not captured.",
                hint="Restore the disks into files and activate the volume group there.",
            )
        return found

    def _thin(self, volume: Volume) -> Mapped:
        if volume.thin is None:
            return Mapped(0, ())
        metadata, data = of_extents(volume.thin.metadata), of_extents(volume.thin.data)
        try:
            runs = thin_runs(lambda at, n: self.read(metadata, at, n), volume.thin, volume.size)
            return of_runs(runs, data, volume.size)
        except (IntegrityError, ValueError) as error:
            raise IntegrityError(
                f"Where the bytes of {volume.name} lie cannot be read: {error}",
                hint="Take another point; or restore the disks into files and look at the pool with 'thin_check'.",
            ) from error

    def _disk_of(self, name: str) -> PointDisk:
        return self._point.disk(name)

    # --- files ------------------------------------------------------------------------------------------------

    def _filesystem(self, volume: Volume) -> Ext4:
        if volume.name not in self._filesystems:
            if volume.content.kind not in _READABLE:
                raise UsageError(
                    f"{volume.name} holds {volume.content.kind or 'nothing that is known'}; files are read off "
                    f"{', '.join(_READABLE)} only.",
                    hint="Restore its disk into a file ('rekindle restore --target disk1=FILE') and mount that.",
                )
            where = self._place(volume)
            self._filesystems[volume.name] = Ext4(lambda at, length: self.read(where, at, length))
        return self._filesystems[volume.name]

    def _mounted(self) -> dict[str, Volume]:
        """Mount point -> volume, by the fstab of the root."""
        if not self._mounts:
            name = self._point.body.system.root
            root = next((volume for volume in self.volumes if name and volume.name == name), None)
            if root is None:
                raise UsageError("The point does not say where its host's root lies, so its files cannot be found.")
            self._mounts = {"/": root}
            try:
                where, inode = self._locate("/etc/fstab")
                text = self._filesystem(where).content(inode, MIB).decode("utf-8", "replace")
            except NotFoundError:
                text = ""
            for line in parse_fstab(text):
                other = find_volume(line.spec, self.volumes)
                if other is not None and line.point.startswith("/") and line.point != "/":
                    self._mounts[line.point.rstrip("/")] = other
        return self._mounts

    def _locate(self, path: str) -> tuple[Volume, Inode]:
        mounts = self._mounted()
        waiting = [part for part in reversed(PurePosixPath(path).parts) if part != "/"]
        there: list[str] = []
        links = 0
        at = self._top(mounts["/"])
        trail = [at]
        while waiting:
            part = waiting.pop()
            if part == "..":
                if there:
                    there.pop()
                    trail.pop()
                continue
            step = "/" + "/".join([*there, part])
            volume, folder = trail[-1]
            if step in mounts:
                trail.append(self._top(mounts[step]))
                there.append(part)
                continue
            inode = self._filesystem(volume).entry(folder, part)
            if inode is None:
                raise missing(path)
            target = self._filesystem(volume).link(inode)
            if not target:
                trail.append((volume, inode))
                there.append(part)
                continue
            links += 1
            if links > _MAX_LINKS:
                raise missing(path)
            if target.startswith("/"):
                there, trail = [], trail[:1]
            waiting += [piece for piece in reversed(PurePosixPath(target).parts) if piece != "/"]
        return trail[-1]

    def _top(self, volume: Volume) -> tuple[Volume, Inode]:
        return volume, self._filesystem(volume).root()


def _on_disks(extents: Sequence[Extent]) -> tuple[Extent, ...]:
    """Extents of the files that the reader of LVM was given, as those of the disks of these names."""
    return tuple(Extent(Path(extent.path.name), extent.offset, extent.length) for extent in extents)
