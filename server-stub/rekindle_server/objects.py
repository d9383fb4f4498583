"""The directory with the objects: checked uploads that appear whole or not at all, reads, sorted listings, deletion.

An upload goes to ``.incoming`` in the same directory, is hashed on the way, synced, and only then gets its name.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Literal

from blake3 import blake3

from recovery.errors import AccessError, BusyError, IntegrityError, NotFoundError, RekindleError, SpaceError
from recovery.format.names import ObjectName, parse_name
from recovery.repository.protocols import ObjectInfo
from recovery.units import MIB, format_size
from rekindle_server.names import TOP_LEVEL

BLOCK = MIB
#: Uploads are refused while less than this would be left: logging in for a restore must not fail on a full disk.
RESERVE = 64 * MIB

Outcome = Literal["created", "same", "repaired"]
#: Fills the buffer with the next bytes of an upload; returns how many, 0 at the end.
ReadInto = Callable[[memoryview], int]


class Torn(Exception):
    """The client went away in the middle of an upload. Nobody is left to be told."""


class Objects:
    """The objects below ``root``. Thread-safe; other processes may add objects at the same time."""

    def __init__(self, root: Path, reserve: int = RESERVE) -> None:
        """Raises NotFoundError when there is no repository, BusyError when another server serves it."""
        if not (root / "repo.json").is_file():
            raise NotFoundError(
                f"There is no repository in {root}.", hint=f"Create one with 'rekindle repo init {root}'."
            )
        self.root = root
        self._reserve = reserve
        self._incoming = root / ".incoming"
        self.writable = self._take_over()

    def _take_over(self) -> bool:
        try:
            self._incoming.mkdir(mode=0o700, exist_ok=True)
            self._lock = open(self._incoming / "lock", "w")  # noqa: SIM115 - held as long as the server lives
        except OSError as error:
            if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
                return False
            raise
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(f"Another server serves {self.root} already.", hint="Stop it first.") from None
        # What is left here was never acknowledged.
        for leftover in self._incoming.glob("upload-*"):
            leftover.unlink(missing_ok=True)
        return True

    def close(self) -> None:
        """Give the directory back."""
        if self.writable:
            self._lock.close()

    def free(self) -> int:
        """Bytes free for us on the filesystem."""
        facts = os.statvfs(self.root)
        return facts.f_bavail * facts.f_frsize

    def size(self, name: str) -> int | None:
        """Bytes of the object, or None."""
        try:
            return (self.root / name).stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return None

    def open(self, name: str) -> tuple[BinaryIO, int]:
        """The open file and its size. Raises NotFoundError."""
        try:
            file = open(self.root / name, "rb", buffering=0)  # noqa: SIM115 - the caller closes it
        except (FileNotFoundError, NotADirectoryError):
            raise NotFoundError(f"There is no object {name}.") from None
        except OSError as error:
            raise self._failed(error, 0) from error
        return file, os.fstat(file.fileno()).st_size

    def read(self, name: str) -> bytes:
        """The whole object. Raises NotFoundError."""
        file, _ = self.open(name)
        with file:
            return file.read()

    def receive(
        self, name: str, parsed: ObjectName, length: int, read_into: ReadInto, check: Callable[[Path], None]
    ) -> Outcome:
        """Take an upload of ``length`` bytes in.

        ``check`` sees the whole file before it gets its name and raises to refuse it. Raises IntegrityError (wrong
        bytes), SpaceError, BusyError (the name exists with other bytes), AccessError (read-only), Torn.
        """
        if not self.writable:
            raise AccessError("The repository is read-only on the server.")
        if self.free() - length < self._reserve:
            raise self._no_room(length)
        try:
            fd, temporary = tempfile.mkstemp(prefix="upload-", dir=self._incoming)
        except OSError as error:
            raise self._failed(error, length) from error
        path = Path(temporary)
        try:
            with os.fdopen(fd, "wb", buffering=0) as file:
                digest = _copy(file, length, read_into)
                if parsed.digest and parsed.kind != "key" and digest != parsed.digest:
                    raise IntegrityError(
                        f"The bytes sent for {name} do not have that hash: they were damaged on the way.",
                        hint="Send them again.",
                    )
                check(path)
                os.fchmod(fd, 0o640)
                os.fsync(fd)
            return self._publish(path, name, hashed=parsed.kind in ("pack", "map", "journal", "point"))
        except OSError as error:
            if isinstance(error, ConnectionError | TimeoutError):
                raise Torn from error
            raise self._failed(error, length) from error
        finally:
            path.unlink(missing_ok=True)

    def _publish(self, path: Path, name: str, *, hashed: bool) -> Outcome:
        target = self.root / name
        for folder in reversed(target.relative_to(self.root).parents[:-1]):
            with contextlib.suppress(FileExistsError):
                (self.root / folder).mkdir(mode=0o750)
                _sync_directory((self.root / folder).parent)
        outcome: Outcome = "created"
        if not _link(path, target):
            if _equal(path, target):
                outcome = "same"
            elif hashed:
                # The name is the hash of what was just sent, so what lies there is damaged: put the right bytes back.
                path.rename(target)
                outcome = "repaired"
            else:
                raise BusyError(f"{name} exists already with other content.", hint="It is never overwritten.")
        _sync_directory(target.parent)
        return outcome

    def delete(self, name: str) -> None:
        """Remove an object. Raises NotFoundError, AccessError."""
        try:
            (self.root / name).unlink()
            _sync_directory((self.root / name).parent)
        except FileNotFoundError:
            raise NotFoundError(f"There is no object {name}.") from None
        except OSError as error:
            raise self._failed(error, 0) from error

    def list(self, prefix: str, after: str = "") -> Iterator[ObjectInfo]:
        """Objects whose name begins with ``prefix`` and sorts behind ``after``, sorted by name."""
        for top in TOP_LEVEL:
            yield from self._walk(top, prefix, after)

    def _walk(self, name: str, prefix: str, after: str) -> Iterator[ObjectInfo]:
        path = self.root / name
        if path.is_dir():
            folder = name + "/"
            # Skip whole folders: outside of the prefix, or wholly before the place to go on from ('0' follows '/').
            if not (folder.startswith(prefix) or prefix.startswith(folder)) or name + "0" <= after:
                return
            with os.scandir(path) as entries:
                names = sorted(entry.name + "/" * entry.is_dir() for entry in entries)
            for entry in names:
                yield from self._walk(folder + entry.rstrip("/"), prefix, after)
        elif name.startswith(prefix) and name > after and parse_name(name) is not None:
            size = self.size(name)
            if size is not None:
                yield ObjectInfo(name, size)

    def _no_room(self, length: int) -> SpaceError:
        return SpaceError(
            f"The server has no room for {format_size(length)} more: {format_size(self.free())} are free.",
            hint="Make room on the server's disk, or prune old points; then start the capture again: it continues.",
        )

    def _failed(self, error: OSError, length: int) -> RekindleError:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return self._no_room(length)
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            return AccessError("The server may not use a file of its repository.", hint="Check its owner there.")
        return RekindleError(f"The server's disk failed: {error.strerror}.", hint="Look into the server's kernel log.")


def _copy(file: BinaryIO, length: int, read_into: ReadInto) -> str:
    hasher = blake3()
    buffer = memoryview(bytearray(min(BLOCK, max(length, 1))))
    if length:
        # Find out about a full disk before the bytes are sent, and keep the file in one piece.
        os.posix_fallocate(file.fileno(), 0, length)
    left = length
    while left:
        count = read_into(buffer[: min(left, BLOCK)])
        if count == 0:
            raise Torn
        hasher.update(buffer[:count])
        written = 0
        while written < count:
            written += file.write(buffer[written:count])
        left -= count
    return hasher.hexdigest()


def _link(path: Path, target: Path) -> bool:
    """Give the file its name unless the name is taken."""
    try:
        os.link(path, target)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK):
            raise
        # A filesystem without hard links (a USB disk): the lock on .incoming keeps other servers away.
        if target.exists():
            return False
        path.rename(target)
    return True


def _equal(one: Path, other: Path) -> bool:
    with open(one, "rb", buffering=0) as first, open(other, "rb", buffering=0) as second:
        if os.fstat(first.fileno()).st_size != os.fstat(second.fileno()).st_size:
            return False
        while block := first.read(BLOCK):
            if block != second.read(BLOCK):
                return False
    return True


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
