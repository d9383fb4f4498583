"""Objects in a directory or on a USB disk: the ObjectStore over obstore, and what obstore leaves out.

An object is on stable storage (file and directory synced) before the put returns, appears under its name in one step,
and is read by ``preadv`` straight into the caller's buffer.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkstemp

from obstore.store import LocalStore

from recovery.errors import AccessError, BusyError, NotFoundError, SpaceError, UnreachableError
from recovery.repository.bucket import BucketStore, refuse_other_bytes, short_object

#: Open files kept for reading: a restore walks pack by pack with a few workers.
_OPEN_FILES = 64
#: In the directory itself, so that a finished file only needs a link to get its name.
_SCRATCH = ".writing"
_SCRATCH_SECONDS = 24 * 3600


class DirectoryStore(BucketStore):
    """An ObjectStore in a directory."""

    #: It may be a USB disk: one that reads packs from end to end.
    readers = 1
    #: No latency to hide: so much that more of it stays in the processor's cache until it is decoded.
    request = 8 * 1024 * 1024

    def __init__(self, root: Path, *, create: bool = False) -> None:
        self.root = root.absolute()
        if create:
            try:
                # Not for everybody: the wrapped keys in it can be tried against a list of passphrases.
                self.root.mkdir(mode=0o750, parents=True, exist_ok=True)
            except OSError as error:
                raise AccessError(
                    f"The directory '{root}' cannot be made: {error.strerror}.",
                    hint="Choose another one, or another user.",
                ) from error
        if not self.root.is_dir():
            raise NotFoundError(
                f"There is no directory '{root}'.", hint="Check the path; is the disk with the repository mounted?"
            )
        super().__init__(LocalStore(self.root), str(root))
        self._files: OrderedDict[str, int] = OrderedDict()
        self._lock = threading.Lock()
        self._scratch_is_ready = False

    def read_into(self, name: str, offset: int, buffer: memoryview) -> None:
        """Fill ``buffer`` from ``offset`` of the object's file."""
        with self._opened(name) as file:
            filled = 0
            while filled < len(buffer):
                try:
                    count = os.preadv(file, [buffer[filled:]], offset + filled)
                except OSError as error:
                    raise _os_error(error, name, self.location) from error
                if count == 0:
                    raise short_object(name)
                filled += count

    @contextlib.contextmanager
    def _opened(self, name: str) -> Iterator[int]:
        # A descriptor is taken out while it is in use, so that another thread never closes it under us.
        with self._lock:
            file = self._files.pop(name, -1)
        if file >= 0 and os.fstat(file).st_nlink == 0:
            # The object was removed, or healed by a new file, since it was opened.
            os.close(file)
            file = -1
        if file < 0:
            try:
                file = os.open(self.root / name, os.O_RDONLY | os.O_CLOEXEC)
            except OSError as error:
                raise _os_error(error, name, self.location) from error
        try:
            yield file
        finally:
            with self._lock:
                spare = self._files.pop(name, -1)
                self._files[name] = file
                oldest = self._files.popitem(last=False)[1] if len(self._files) > _OPEN_FILES else -1
            for unused in (spare, oldest):
                if unused >= 0:
                    os.close(unused)

    def put_if_absent(self, name: str, data: bytes | bytearray | memoryview) -> bool:
        """Write a temporary file, sync it, link it to its name, sync the directory."""
        path = self.root / name
        if path.exists():
            return self._settle_existing(name, data)
        try:
            _make_folder(path.parent, self.root)
            temporary = self._write_temporary(path, data)
            try:
                _link(temporary, path)
            except FileExistsError:
                return self._settle_existing(name, data)
            finally:
                temporary.unlink(missing_ok=True)
            _sync_directory(path.parent)
        except OSError as error:
            raise _os_error(error, name, self.location) from error
        return True

    def _settle_existing(self, name: str, data: bytes | bytearray | memoryview) -> bool:
        path = self.root / name
        try:
            if path.read_bytes() == data:
                # It may have been written a moment ago by somebody who has not synced it yet.
                _sync_directory(path)
                _sync_directory(path.parent)
                return False
            refuse_other_bytes(name)
            self._write_temporary(path, data).replace(path)
            _sync_directory(path.parent)
        except OSError as error:
            raise _os_error(error, name, self.location) from error
        return True

    def _write_temporary(self, path: Path, data: bytes | bytearray | memoryview) -> Path:
        descriptor, temporary_name = mkstemp(prefix=f"{path.name[:16]}-", dir=self._scratch_folder())
        temporary = Path(temporary_name)
        try:
            view = memoryview(data)
            written = 0
            while written < len(view):
                written += os.write(descriptor, view[written : written + 16 * 1024 * 1024])
            # Not for everybody, wherever the directory lies: wrapped keys can be tried against a list of passphrases.
            os.fchmod(descriptor, 0o640)
            os.fsync(descriptor)
        except BaseException:
            temporary.unlink()
            raise
        finally:
            os.close(descriptor)
        return temporary

    def _scratch_folder(self) -> Path:
        """Where objects are written before they get their names; what a killed process left there goes after a day."""
        folder = self.root / _SCRATCH
        if not self._scratch_is_ready:
            _make_folder(folder, self.root)
            for left in folder.iterdir():
                with contextlib.suppress(OSError):
                    if left.stat().st_mtime < time.time() - _SCRATCH_SECONDS:
                        left.unlink()
            self._scratch_is_ready = True
        return folder

    @contextlib.contextmanager
    def exclusive(self, host: str) -> Iterator[None]:
        """Nobody else commits a point of ``host`` meanwhile, and nothing is pruned (advisory locks; gone when their
        holder dies)."""
        folder = self.root / "points" / host
        try:
            _make_folder(folder, self.root)
        except OSError as error:
            raise _os_error(error, f"points/{host}", self.location) from error
        with self._locked(self.root, fcntl.LOCK_SH), self._locked(folder, fcntl.LOCK_EX):
            yield

    @contextlib.contextmanager
    def alone(self, patience: float) -> Iterator[None]:
        """Nobody commits a point of any host meanwhile. Raises BusyError after ``patience`` seconds."""
        with self._locked(self.root, fcntl.LOCK_EX, patience):
            yield

    @contextlib.contextmanager
    def _locked(self, folder: Path, how: int, patience: float | None = None) -> Iterator[None]:
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise _os_error(error, folder.name, self.location) from error
        try:
            end = None if patience is None else time.monotonic() + patience
            while True:
                try:
                    fcntl.flock(descriptor, how if end is None else how | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if end is not None and time.monotonic() >= end:
                        raise BusyError(
                            f"Somebody uses {self.location} all the time.", hint="Try again when no capture ends."
                        ) from None
                    time.sleep(0.05)
            yield
        finally:
            os.close(descriptor)


def open_local(path: Path, *, create: bool = False) -> DirectoryStore:
    """The ObjectStore in a directory. Raises NotFoundError when there is none."""
    return DirectoryStore(path, create=create)


def _make_folder(folder: Path, root: Path) -> None:
    missing = []
    while not folder.is_dir() and folder != root:
        missing.append(folder)
        folder = folder.parent
    for path in reversed(missing):
        path.mkdir(exist_ok=True)
        _sync_directory(path.parent)


def _link(temporary: Path, path: Path) -> None:
    try:
        os.link(temporary, path)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK):
            raise
        # A filesystem without hard links (FAT on a USB disk). Content has its own name, so a race does no harm.
        if path.exists():
            raise FileExistsError(path) from error
        temporary.rename(path)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _os_error(error: OSError, name: str, location: str) -> Exception:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return SpaceError(
            f"There is no room left in {location} for '{name}'.",
            hint="Make room or add storage, then run it again: what was stored already is not sent again.",
        )
    if error.errno == errno.ENOENT:
        return NotFoundError(f"There is no object '{name}' in {location}.")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return AccessError(f"'{name}' in {location} may not be read or written: {error.strerror}.")
    return UnreachableError(
        f"The storage at {location} failed for '{name}': {error.strerror}.", hint="See the kernel's log for the disk."
    )
