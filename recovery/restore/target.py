"""The disk that is written: a block device or a file, with O_DIRECT, safe to use from many threads."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import stat
import struct
from pathlib import Path
from types import TracebackType
from typing import Self

from recovery.errors import AccessError, BusyError, DeviceError, NotFoundError, SpaceError, UnsafeTargetError
from recovery.restore.buffers import page_buffer
from recovery.units import MIB, format_size

#: linux/fs.h: BLKGETSIZE64 = _IOR(0x12, 114, size_t), BLKZEROOUT = _IO(0x12, 127), BLKSSZGET = _IO(0x12, 104)
_BLKGETSIZE64, _BLKZEROOUT, _BLKSSZGET = 0x80081272, 0x127F, 0x1268
#: linux/falloc.h
_KEEP_SIZE, _PUNCH_HOLE = 1, 2
#: O_DIRECT wants addresses, offsets and lengths in whole blocks: a device's sectors; 4096 satisfies any filesystem.
ALIGNMENT = 4096
_ZERO_STEP = 4 * 1024 * 1024
_FAKE = "The disk is failing, or has less room than it says: choose another one."

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_longlong, ctypes.c_longlong]


class Target:
    """An open target disk. ``blank`` says that all of it reads as zeros already (a file made here)."""

    def __init__(self, path: str, size: int) -> None:
        """Open ``path`` to hold ``size`` bytes; a file that is missing is made.

        Raises NotFoundError, BusyError (mounted or held), UnsafeTargetError (too small), AccessError, SpaceError.
        """
        self.path = path
        self.blank = False
        self._alignment = ALIGNMENT
        self._direct = self._plain = -1
        try:
            self._open(path, size)
        except OSError as error:
            self.close()
            raise _open_error(error, path) from error
        except BaseException:
            self.close()
            raise

    def _open(self, path: str, size: int) -> None:
        try:
            mode = Path(path).stat().st_mode
        except FileNotFoundError:
            if path.startswith("/dev/"):
                raise
            mode = stat.S_IFREG
            Path(path).touch(mode=0o600)
            self.blank = True
        self.is_device = stat.S_ISBLK(mode)
        if not self.is_device and not stat.S_ISREG(mode):
            raise UnsafeTargetError(f"'{path}' is neither a block device nor a file.", hint="Choose a whole disk.")
        # O_EXCL on a block device fails while a filesystem, LVM, md or another program holds it or a partition of it.
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_EXCL if self.is_device else 0)
        self._plain = os.open(path, flags)
        if self.is_device:
            self.size = struct.unpack("Q", fcntl.ioctl(self._plain, _BLKGETSIZE64, bytes(8)))[0]
            # So that the end of a disk whose size is no multiple of 4096 is written, and read back, directly as well.
            self._alignment = struct.unpack("i", fcntl.ioctl(self._plain, _BLKSSZGET, bytes(4)))[0]
        else:
            fcntl.flock(self._plain, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(self._plain).st_size < size:
                os.ftruncate(self._plain, size)
            self.size = os.fstat(self._plain).st_size
        if self.size < size:
            raise UnsafeTargetError(
                f"'{path}' has {format_size(self.size)} ({self.size} bytes), less than the {format_size(size)} "
                f"({size} bytes) of the captured disk.",
                hint="Choose a disk that is at least as large.",
            )
        # A filesystem without O_DIRECT (tmpfs) is written through its cache.
        with contextlib.suppress(OSError):
            self._direct = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_DIRECT)

    def write(self, offset: int, data: memoryview) -> None:
        """Write all of ``data``; ``data`` lies in page-aligned memory. Raises DeviceError, SpaceError.

        The first sector of the disk comes last, on its own: a disk writes a sector wholly or not at all, so that
        should the power fail in the middle, there is nothing to boot from.
        """
        first = self._alignment
        if offset == 0 and len(data) > first:
            self._write(first, data[first:])
            self.sync()
            data = data[:first]
        self._write(offset, data)

    def _write(self, offset: int, data: memoryview) -> None:
        descriptor = self._descriptor(offset, len(data))
        written = 0
        while written < len(data):
            try:
                written += os.pwrite(descriptor, data[written:], offset + written)
            except OSError as error:
                raise _write_error(error, self.path, offset + written) from error
            if written % self._alignment:
                descriptor = self._plain

    def read(self, offset: int, buffer: memoryview) -> None:
        """Fill ``buffer`` (page-aligned memory) from the disk itself where O_DIRECT works. Raises DeviceError."""
        descriptor = self._descriptor(offset, len(buffer))
        if descriptor == self._plain:
            # The unaligned end of a file: what is on stable storage leaves the cache, and comes from the disk.
            os.posix_fadvise(descriptor, offset, -(-len(buffer) // ALIGNMENT) * ALIGNMENT, os.POSIX_FADV_DONTNEED)
        filled = 0
        while filled < len(buffer):
            try:
                count = os.preadv(descriptor, [buffer[filled:]], offset + filled)
            except OSError as error:
                raise DeviceError(
                    f"'{self.path}' cannot be read at byte {offset + filled}: {error.strerror}.",
                    hint="The disk is failing; choose another one.",
                ) from error
            if count == 0:
                raise DeviceError(f"'{self.path}' ends at byte {offset + filled}, earlier than it should.", hint=_FAKE)
            filled += count

    def zero(self, offset: int, length: int) -> None:
        """Make a range read as zeros, whatever it held: by the device or a hole where possible, else by writing."""
        if self.is_device:
            with contextlib.suppress(OSError):
                # Zeroes by the device's own command, unmapping where it guarantees zeros; the kernel writes otherwise.
                fcntl.ioctl(self._plain, _BLKZEROOUT, struct.pack("QQ", offset, length))
                return
        elif _libc.fallocate(self._plain, _PUNCH_HOLE | _KEEP_SIZE, offset, length) == 0:
            return
        zeros = page_buffer(_ZERO_STEP)
        while length:
            step = min(length, _ZERO_STEP)
            Target.write(self, offset, zeros[:step])
            offset, length = offset + step, length - step

    def wipe_ends(self) -> None:
        """Make the first and the last MiB of the target zeros, and that on stable storage: no partition table, boot
        sector or signature of a RAID is left at either end."""
        Target.zero(self, 0, min(MIB, self.size))
        tail = max(0, (self.size - MIB) // MIB * MIB)
        if tail:
            Target.zero(self, tail, self.size - tail)
        self.sync()

    def sync(self) -> None:
        """Everything written is on stable storage. Raises DeviceError."""
        try:
            os.fsync(self._plain)
        except OSError as error:
            raise DeviceError(
                f"'{self.path}' could not write its cache: {error.strerror}.", hint="The disk is failing."
            ) from error

    def _descriptor(self, offset: int, length: int) -> int:
        aligned = offset % self._alignment == 0 and length % self._alignment == 0
        return self._direct if aligned and self._direct >= 0 else self._plain

    def close(self) -> None:
        """Release the disk."""
        for descriptor in (self._direct, self._plain):
            if descriptor >= 0:
                os.close(descriptor)
        self._direct = self._plain = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _open_error(error: OSError, path: str) -> Exception:
    if error.errno == errno.ENOENT:
        return NotFoundError(f"There is no disk '{path}'.", hint="'rekindle machine' lists the disks.")
    if error.errno in (errno.EBUSY, errno.EAGAIN):
        return BusyError(
            f"'{path}' is in use: a filesystem on it is mounted, or LVM, md or another program holds it.",
            hint="Unmount it and stop what uses it; 'lsblk' and 'fuser -v' show what that is.",
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return AccessError(
            f"'{path}' may not be written: {error.strerror}.", hint="Run as root; is it write-protected?"
        )
    if error.errno in (errno.ENOSPC, errno.EFBIG):
        return SpaceError(
            f"There is no room for '{path}': {error.strerror}.", hint="Make room, or choose another disk."
        )
    return DeviceError(f"'{path}' cannot be opened: {error.strerror}.", hint="See the kernel's log.")


def _write_error(error: OSError, path: str, offset: int) -> Exception:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return SpaceError(f"There is no room left for '{path}' at byte {offset}.", hint="Make room and run it again.")
    return DeviceError(
        f"'{path}' cannot be written at byte {offset}: {error.strerror}.",
        hint="The disk is failing or was removed; choose another one.",
    )
