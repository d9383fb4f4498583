"""New files that are seen all at once or not at all: hidden while they are written, renamed when all are whole."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from types import TracebackType

from recovery.errors import BusyError, DeviceError, UsageError

_ELSEWHERE = "Make room there, or choose another folder or another disk."


class NewFiles:
    """The files of one folder. A context manager: what was not published when it ends is gone, also the folder if it
    was made here. ``overwrite``: names that are there already are replaced.

    A power cut may leave hidden files (``.NAME.part``); the next attempt takes them over.
    """

    def __init__(self, folder: Path, *, overwrite: bool = False) -> None:
        self.folder = folder
        self._overwrite = overwrite
        self._unfinished: dict[Path, Path] = {}
        self._locks: list[int] = []
        self._made: list[Path] = []

    def __enter__(self) -> NewFiles:
        """Make the folder. Raises DeviceError."""
        try:
            missing = [self.folder, *self.folder.parents]
            for folder in reversed([path for path in missing if not path.exists()]):
                folder.mkdir(mode=0o755)
                self._made.append(folder)
        except OSError as error:
            self.drop()
            raise DeviceError(
                f"The folder {self.folder} cannot be made: {error.strerror}.", hint=_ELSEWHERE
            ) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.drop()

    def create(self, name: str) -> int:
        """A descriptor of the new file ``name``, hidden until ``publish``; the caller closes it.

        Raises UsageError when the name is taken and must not be overwritten, BusyError, DeviceError.
        """
        final = self.folder / name
        self._refuse_taken(final)
        hidden = final.with_name(f".{name}.part")
        try:
            # As tight as the disk was on the host: a guest's files are in it.
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(hidden, flags, 0o600)
        except OSError as error:
            raise DeviceError(f"{hidden} cannot be made: {error.strerror}.", hint=_ELSEWHERE) from error
        lock = os.dup(descriptor)
        self._locks.append(lock)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.truncate(descriptor, 0)
        except OSError as error:
            os.close(descriptor)
            if isinstance(error, BlockingIOError):
                raise BusyError(f"{final} is being written by another run.", hint="Wait for its end.") from error
            raise DeviceError(f"{hidden} cannot be written: {error.strerror}.", hint=_ELSEWHERE) from error
        with contextlib.suppress(OSError):  # FAT has no modes; one that was left behind may have another
            os.fchmod(descriptor, 0o600)
        self._unfinished[final] = hidden
        return descriptor

    def write(self, name: str, data: bytes) -> None:
        """A small file as a whole. Raises as ``create``."""
        descriptor = self.create(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise DeviceError(f"{self.folder / name} cannot be written: {error.strerror}.", hint=_ELSEWHERE) from error

    def publish(self) -> None:
        """Give all files their names. When one cannot have it, none has. Raises UsageError, DeviceError."""
        for final in self._unfinished:
            self._refuse_taken(final)
        named: list[Path] = []
        try:
            for final, hidden in list(self._unfinished.items()):
                fresh = not final.exists()
                hidden.rename(final)
                del self._unfinished[final]
                if fresh:
                    named.append(final)
            _flush_folder(self.folder)
        except OSError as error:
            for path in named:
                path.unlink(missing_ok=True)
            raise DeviceError(
                f"The files in {self.folder} could not be renamed: {error.strerror}.", hint=_ELSEWHERE
            ) from error
        self._made = []

    def drop(self) -> None:
        """What is not published is gone, at once: a file that is still being written loses its name."""
        for hidden in self._unfinished.values():
            with contextlib.suppress(OSError):
                hidden.unlink(missing_ok=True)
        self._unfinished = {}
        while self._locks:
            os.close(self._locks.pop())
        for folder in reversed(self._made):
            with contextlib.suppress(OSError):
                folder.rmdir()
        self._made = []

    def _refuse_taken(self, final: Path) -> None:
        if (final.exists() or final.is_symlink()) and not self._overwrite:
            raise UsageError(f"{final} is there already, and nothing is overwritten.", hint="Name another folder.")


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):  # not every filesystem can
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
