"""Where the disks of VMs lie at the moment of a point: files are opened before the freeze, asked under it.

A file that grows has other extents a second later, so those of the inventory, minutes before, would be wrong.
"""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from recovery.capture.btrfschunks import UnmappedError
from recovery.capture.busy import Mount, parse_mountinfo
from recovery.capture.fiemap import file_runs
from recovery.capture.live.hostmounts import kernel_name
from recovery.capture.live.rawread import RawDisk
from recovery.capture.ranges import Extent
from recovery.capture.tracking.model import TrackedDisk
from recovery.capture.vmplaces import Found, Key, VmPlace, occupancy
from recovery.capture.volumes import Volume
from recovery.errors import RekindleError
from recovery.format.extents import Run
from recovery.units import MIB

#: Bytes of a journal point for all extents: one a minute must not weigh more than what changed.
MOST_A_MINUTE = 16 * 1024
#: What tells how a disk is divided: the partition table at its start (GPT: 34 sectors, of 4096 bytes 6), LVM's label
#: and metadata at that of a PV (its header says of each change).
_TABLE, _PV_HEAD = 24 * 1024, MIB


@dataclass
class _Open:
    place: VmPlace
    volume: Volume
    descriptor: int


class VmSurvey:
    """A Beside. ``found`` is what the last freeze showed: for each disk of a VM its extents, or why they are not
    known. One thread uses it; it lasts from a keyframe to the next one."""

    def __init__(self, places: Sequence[VmPlace], volumes: Sequence[Volume], disks: Sequence[TrackedDisk]) -> None:
        """``places`` and ``volumes`` of the inventory. Raises DeviceError."""
        self._places, self._disks = list(places), list(disks)
        self._names: Mapping[Path, str] = {disk.path: disk.name for disk in disks}
        self._arrays = [extent for each in volumes if each.name.startswith("md/") for extent in each.extents]
        divided = {volume.name.partition(":")[0] for volume in volumes if ":" in volume.name}
        self._heads = [(disk.name, 0, min(_TABLE, disk.size)) for disk in disks if disk.name in divided]
        for volume in volumes:
            if volume.content.kind == "LVM2_member" and volume.extents:
                first = volume.extents[0]
                self._heads.append((self._names[first.path], first.offset, min(_PV_HEAD, first.length)))
        self._layout = self._read_layout() if self._places else b""
        self._open: list[_Open] = []
        self._asked: dict[Key, tuple[Volume, list[Run], int]] = {}
        self.found: dict[Key, Found] = {}

    def before(self) -> None:
        """Open the files, by the host's own mounts."""
        self.found, self._asked = {}, {}
        mounts = parse_mountinfo(Path("/proc/self/mountinfo").read_text()) if self._places else []
        by_name = {disk.name: disk for disk in self._disks}
        for place in self._places:
            volume = place.volume
            if place.why or volume is None:
                self.found[place.key] = place.why
            elif any(_overlap(extent, other) for extent in volume.extents for other in self._arrays):
                self.found[place.key] = "it lies on an md array, which may have lost a disk since"
            elif volume.thin is not None:
                # The point itself tells, by its pool's metadata at that moment: they are read when it is restored.
                self.found[place.key] = "it is a thin volume, whose pool gives out room all the time"
            elif place.here is None:
                self._asked[place.key] = (volume, [Run(0, 0, volume.size)], volume.size)
            else:
                descriptor = _open_file(place, kernel_name(volume, by_name), mounts)
                if descriptor is None:
                    self.found[place.key] = "its file is not to be seen in the host's own mounts"
                else:
                    self._open.append(_Open(place, volume, descriptor))

    def frozen(self, deadline: float) -> None:
        """Ask for the extents."""
        for each in self._open:
            key = each.place.key
            try:
                size = os.fstat(each.descriptor).st_size
                runs = file_runs(each.descriptor, each.volume.content.kind, lambda: time.monotonic() < deadline)
                self._asked[key] = (each.volume, runs, size)
            except (RekindleError, UnmappedError, OSError) as error:
                self.found[key] = error.message if isinstance(error, RekindleError) else str(error)

    def after(self) -> None:
        """Let go of the files; extents are of the disks only if these are divided as they were."""
        for each in self._open:
            os.close(each.descriptor)
        self._open = []
        try:
            same = not self._asked or self._read_layout() == self._layout
        except (RekindleError, UnmappedError):
            same = False
        for key, (volume, runs, size) in self._asked.items():
            try:
                if not same:
                    raise UnmappedError("partitions or logical volumes were changed since the last keyframe began")
                self.found[key] = occupancy(volume, runs, size, self._names)
            except UnmappedError as error:
                self.found[key] = str(error)
        self._asked = {}

    def _read_layout(self) -> bytes:
        """A digest of what tells how the disks are divided, past the page cache. Raises DeviceError."""
        hashed, sizes = hashlib.sha256(), {disk.name: disk.size for disk in self._disks}
        with contextlib.ExitStack() as stack:
            raw: dict[str, RawDisk] = {}
            for disk in self._disks:
                raw[disk.name] = RawDisk(disk)
                stack.callback(raw[disk.name].close)
            for name, offset, length in self._heads:
                start = offset // 4096 * 4096
                # Whole pages of the disk, in memory that is aligned to pages.
                end = min(-(-(offset + length) // 4096) * 4096, sizes[name])
                buffer = memoryview(mmap.mmap(-1, end - start))
                raw[name].read_into(start, buffer)
                hashed.update(buffer)
        return hashed.digest()


def _overlap(one: Extent, other: Extent) -> bool:
    return (
        one.path == other.path
        and one.offset < other.offset + other.length
        and other.offset < one.offset + one.length
    )  # fmt: skip


def host_paths(inside: str, device: str, mounts: Sequence[Mount]) -> Iterator[str]:
    """By which paths of the host a file can be reached, ``inside`` being its path from the top of the filesystem of
    the device with that kernel name: any mount, bind or subvolume that shows it."""
    for mount in mounts:
        root = mount.root.rstrip("/")
        if device and Path(mount.source).resolve().name == device and (inside + "/").startswith(root + "/"):
            yield mount.point.rstrip("/") + inside[len(root) :]


def _open_file(place: VmPlace, device: str, mounts: Sequence[Mount]) -> int | None:
    for path in host_paths(place.inside, device, mounts):
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            continue
        facts = os.fstat(descriptor)
        # Another filesystem may be mounted over it.
        if stat.S_ISREG(facts.st_mode) and facts.st_dev == place.device:
            return descriptor
        os.close(descriptor)
    return None
