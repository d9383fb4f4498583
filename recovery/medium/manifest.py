"""The checksums that a medium carries in itself, covering every byte of it, and the check of a medium against them.

The manifest is a text file of the image (``/rekindle/MANIFEST``), one line for each region: offset, length, SHA-256
and name. Where it lies, and its own SHA-256, stand in the field "application use" of the ISO 9660 volume descriptor
(ECMA-119, 8.4.32: 512 bytes at byte 883 of sector 16, nobody else's). These 512 bytes and the manifest itself are the
only bytes that no region covers; the first are checked by what they say, the second by the first.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from recovery.errors import AccessError, CancelledError, DeviceError, IntegrityError, NotFoundError, UsageError
from recovery.events import Listener, Progress

#: Where the pointer to the manifest stands.
POINTER_OFFSET, POINTER_SIZE = 16 * 2048 + 883, 512
_MAGIC = "REKINDLE MANIFEST 1"
_POINTER = re.compile(rf"{_MAGIC} (\d+) (\d+) ([0-9a-f]{{64}}) *")
_LINE = re.compile(r"(\d+) (\d+) ([0-9a-f]{64}) ([^\n]+)")
#: A region is at most this large, so that damage is told to 4 MiB.
PIECE = 4 * 1024 * 1024
_LARGEST = 1 << 20

Read = Callable[[int, int], bytes]
"""(offset, length) -> bytes, fewer at the end of what is read. Raises OSError."""


@dataclass(frozen=True)
class Region:
    """A part of the image, bytes, and what it is to a person."""

    offset: int
    length: int
    sha256: str
    name: str


@dataclass(frozen=True)
class Manifest:
    """All regions in order. ``size`` is the image's in bytes."""

    regions: tuple[Region, ...]
    size: int


def cut(
    named: Iterable[tuple[int, int, str]], holes: Iterable[tuple[int, int]], size: int
) -> list[tuple[int, int, str]]:
    """(offset, length, name) of pieces that together cover ``size`` bytes but for ``holes`` (offset, length).

    ``named`` are the known parts; what lies between them is called by what an ISO has there. Pure.
    """
    holes = sorted(holes)
    pieces: list[tuple[int, int, str]] = []
    at = 0
    for offset, length, name in [*sorted(named), (size, 0, "")]:
        if offset > at:
            pieces += [(start, stop - start, _between(start)) for start, stop in ((at, offset),)]
        start = max(offset, at)
        if offset + length > start:
            pieces.append((start, offset + length - start, name))
        at = max(at, offset + length)
    return [part for piece in pieces for part in _split(*piece, holes)]


def _between(offset: int) -> str:
    return "boot sector and partition table" if offset < 16 * 2048 else "directories"


def _split(offset: int, length: int, name: str, holes: list[tuple[int, int]]) -> Iterator[tuple[int, int, str]]:
    at, end = offset, offset + length
    while at < end:
        hole = next(((start, size) for start, size in holes if start + size > at and start < end), None)
        stop = min(end, at + PIECE, hole[0] if hole and hole[0] > at else end)
        if hole and hole[0] <= at:
            at = hole[0] + hole[1]
            continue
        yield at, stop - at, name
        at = stop


def encode(regions: Iterable[Region]) -> bytes:
    """The manifest's text."""
    return "".join(f"{r.offset} {r.length} {r.sha256} {r.name}\n" for r in regions).encode()


def encode_pointer(offset: int, length: int, manifest: bytes) -> bytes:
    """The 512 bytes of the volume descriptor."""
    text = f"{_MAGIC} {offset} {length} {hashlib.sha256(manifest).hexdigest()}"
    return text.encode().ljust(POINTER_SIZE)


def read_manifest(read: Read, what: str) -> Manifest:
    """The manifest of the image that ``read`` reads. Raises NotFoundError when it has none, IntegrityError when it is
    damaged, DeviceError."""
    found = _POINTER.fullmatch(_try(read, POINTER_OFFSET, POINTER_SIZE, what).decode("ascii", errors="replace"))
    if not found:
        raise NotFoundError(
            f"{what} is no Rekindle medium, or its beginning is damaged: it has no description of itself.",
            hint="A medium of an older version is checked with: sha256sum -c FILE.iso.sha256",
        )
    offset, length, digest = int(found[1]), int(found[2]), found[3]
    text = _try(read, offset, min(length, _LARGEST), what)
    if hashlib.sha256(text).hexdigest() != digest:
        raise IntegrityError(
            f"{what} is damaged: its list of checksums, at byte {offset}, is not what was written.",
            hint="Write it anew, on another stick: rekindle iso write",
        )
    lines = (_LINE.fullmatch(line) for line in text.decode().splitlines() if line)
    regions = tuple(Region(int(m[1]), int(m[2]), m[3], m[4]) for m in lines if m)
    return Manifest(regions, max(offset + length, *(r.offset + r.length for r in regions)))


def _try(read: Read, offset: int, length: int, what: str) -> bytes:
    try:
        return read(offset, length)
    except OSError as error:
        raise DeviceError(
            f"{what} cannot be read at byte {offset}: {error.strerror}.", hint="The stick or drive is failing."
        ) from error


@dataclass(frozen=True)
class Damage:
    """Bytes that are not what was written (or cannot be read: ``why``)."""

    name: str
    offset: int
    length: int
    why: str = ""

    def __str__(self) -> str:
        """``/rekindle/base.squashfs: bytes 4194304 to 8388607 of the image are not what was written``."""
        what = self.why or "are not what was written"
        return f"{self.name}: bytes {self.offset} to {self.offset + self.length - 1} of the image {what}"


def check(
    read: Read, manifest: Manifest, listener: Listener, cancelled: Callable[[], bool] = lambda: False
) -> list[Damage]:
    """Every damaged region, neighbours of one name joined. Raises CancelledError."""
    found: list[Damage] = []
    done, total = 0, sum(region.length for region in manifest.regions)
    for region in manifest.regions:
        if cancelled():
            raise CancelledError("The check was stopped.")
        why = ""
        try:
            data = read(region.offset, region.length)
        except OSError as error:
            data, why = b"", f"cannot be read ({error.strerror})"
        if len(data) < region.length and not why:
            why = "are missing: the image ends before them"
        if why or hashlib.sha256(data).hexdigest() != region.sha256:
            last = found[-1] if found else None
            if last and (last.name, last.why, last.offset + last.length) == (region.name, why, region.offset):
                found[-1] = Damage(last.name, last.offset, last.length + region.length, why)
            else:
                found.append(Damage(region.name, region.offset, region.length, why))
        done += region.length
        listener(Progress(step="check", done=done, total=total))
    return found


class Image:
    """A file or a device opened for checking. Raises NotFoundError, DeviceError.

    ``read`` reads from the drive itself, not from the cache where whoever wrote it has left it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise NotFoundError(
                f"'{path}' does not exist.", hint="Name an ISO file or a drive such as /dev/sdb."
            ) from error
        except PermissionError as error:
            raise AccessError(
                f"'{path}' may not be read.",
                hint="Run as root; as root already, the system forbids it (a container?).",
            ) from error
        except OSError as error:
            raise DeviceError(
                f"'{path}' cannot be opened: {error.strerror}.", hint="Is there a medium in the drive?"
            ) from error
        if stat.S_ISDIR(os.fstat(self._descriptor).st_mode):
            os.close(self._descriptor)
            raise UsageError(f"'{path}' is a directory.", hint="Name an ISO file or a drive such as /dev/sdb.")

    def read(self, offset: int, length: int) -> bytes:
        """See ``Read``."""
        os.posix_fadvise(self._descriptor, offset, length, os.POSIX_FADV_DONTNEED)
        data = b""
        while len(data) < length and (more := os.pread(self._descriptor, length - len(data), offset + len(data))):
            data += more
        return data

    def __enter__(self) -> Image:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)
