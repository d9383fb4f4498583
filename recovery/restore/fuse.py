"""Something that can be read and written by offset, shown as a file: for filesystem tools, which work on files.

Speaks the kernel's FUSE protocol (linux/fuse.h, version 7.31) on /dev/fuse itself: one file, which is the mount's
root, needs five operations, and no library is on every machine. As root only.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import logging
import os
import struct
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from recovery.commands import run
from recovery.errors import CommandError, DeviceError, RekindleError
from recovery.units import MIB

log = logging.getLogger("rekindle.fuse")

_IN = struct.Struct("<IIQQIIIHH")
_OUT = struct.Struct("<IiQ")
_READ = struct.Struct("<QQIIQII")
_ATTR = struct.Struct("<QIIQQQQQQIIIIIIIIII")
_SETATTR_SIZE = 1 << 3
_LOOKUP, _FORGET, _GETATTR, _SETATTR, _OPEN, _READ_OP, _WRITE, _STATFS = 1, 2, 3, 4, 14, 15, 16, 17
_RELEASE, _FSYNC, _FLUSH, _INIT, _ACCESS, _INTERRUPT, _DESTROY, _BATCH_FORGET = 18, 20, 25, 26, 34, 36, 38, 42
#: FUSE_ASYNC_READ, FUSE_BIG_WRITES, FUSE_MAX_PAGES
_FLAGS = 1 << 0 | 1 << 5 | 1 << 22
_MAX = MIB
_SECONDS_VALID = 3600
#: linux/prctl.h PR_SET_IO_FLUSHER: who serves a disk must not wait for what is to be written to that disk.
_PR_SET_IO_FLUSHER = 57
#: linux/mount.h
_NOSUID_NODEV = 2 | 4

_libc = ctypes.CDLL(None, use_errno=True)


class Backing(Protocol):
    """What is shown. ``size`` in bytes. What is raised (OSError, RekindleError) becomes an I/O error for the tool."""

    size: int

    def read(self, offset: int, length: int) -> bytes:
        """All of ``length`` bytes, which lie within the size."""

    def write(self, offset: int, data: memoryview) -> None:
        """Keep the bytes."""

    def sync(self) -> None:
        """What was written is on stable storage."""


class Shown:
    """A Backing shown at ``path``. ``problem`` is the first error that a tool only saw as an I/O error."""

    def __init__(self, path: Path, backing: Backing, *, writable: bool) -> None:
        self.path = path
        self.problem: Exception | None = None
        self._backing, self._writable, self._size = backing, writable, backing.size
        self._fuse = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        options = f"fd={self._fuse},rootmode=100600,user_id=0,group_id=0,allow_other,max_read={_MAX}"
        words = (b"rekindle", os.fsencode(path), b"fuse", _NOSUID_NODEV, options.encode())
        if _libc.mount(words[0], words[1], words[2], ctypes.c_ulong(words[3]), words[4]):
            code = ctypes.get_errno()
            os.close(self._fuse)
            raise CommandError(
                f"A disk of the recovery point cannot be shown as a file: {os.strerror(code)}.",
                hint="This needs root, and a kernel with FUSE ('modprobe fuse').",
            )
        self._thread = threading.Thread(target=self._serve, name="fuse", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Nothing is shown any more. Tools that still have it open get errors."""
        if not run(["umount", self.path], check=False, timeout=60):
            run(["umount", "--lazy", self.path], check=False, timeout=60)
        self._thread.join(timeout=60)
        os.close(self._fuse)

    def check(self) -> None:
        """Raises the error behind the I/O error that a tool saw, if there was one; of the system's as DeviceError."""
        if isinstance(self.problem, RekindleError):
            raise self.problem
        if self.problem is not None:
            raise DeviceError(f"A tool could not go on: {self.problem}.", hint="See the log, and 'dmesg'.")

    def _serve(self) -> None:
        _libc.prctl(_PR_SET_IO_FLUSHER, 1, 0, 0, 0)  # of this thread; kernels before 5.6 do without
        buffer = bytearray(_MAX + 4096)
        view = memoryview(buffer)
        while True:
            try:
                count = os.readv(self._fuse, [buffer])
            except OSError as error:
                if error.errno in (errno.EINTR, errno.EAGAIN, errno.ENOENT):
                    continue
                return  # ENODEV: unmounted
            _, opcode, unique, _, _, _, _, _, _ = _IN.unpack_from(buffer)
            if opcode in (_FORGET, _BATCH_FORGET, _INTERRUPT):
                continue
            try:
                answer, code = self._answer(opcode, view[_IN.size : count]), 0
            except OSError as error:
                answer, code = b"", error.errno or errno.EIO
                if opcode in (_READ_OP, _WRITE, _FSYNC):
                    self._note(error)
            except Exception as error:
                # Whatever it is, the tool must not hang: a request without an answer waits for ever.
                answer, code = b"", errno.EIO
                self._note(error)
            with contextlib.suppress(OSError):
                os.writev(self._fuse, [_OUT.pack(_OUT.size + len(answer), -code, unique), answer])

    def _note(self, error: Exception) -> None:
        log.warning("a tool gets an I/O error: %s", error)
        self.problem = self.problem or error

    def _answer(self, opcode: int, body: memoryview) -> bytes:
        if opcode == _READ_OP:
            _, offset, length, *_ = _READ.unpack_from(body)
            length = max(0, min(length, self._size - offset))
            return self._backing.read(offset, length) if length else b""
        if opcode == _WRITE:
            return self._write(body)
        simple: dict[int, Callable[[memoryview], bytes]] = {
            _INIT: _init, _GETATTR: lambda _: self._attributes(), _SETATTR: self._set_attributes,
            _OPEN: lambda _: struct.pack("<QII", 0, 0, 0), _STATFS: lambda _: bytes(80),
            _RELEASE: lambda _: b"", _FLUSH: lambda _: b"", _ACCESS: lambda _: b"", _DESTROY: lambda _: b"",
            _FSYNC: lambda _: self._sync(),
        }  # fmt: skip
        if opcode not in simple:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        return simple[opcode](body)

    def _write(self, body: memoryview) -> bytes:
        _, offset, length, *_ = _READ.unpack_from(body)
        if not self._writable:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        if offset + length > self._backing.size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._backing.write(offset, body[_READ.size : _READ.size + length])
        self._size = max(self._size, offset + length)
        return struct.pack("<II", length, 0)

    def _sync(self) -> bytes:
        if self._writable:
            self._backing.sync()
        return b""

    def _set_attributes(self, body: memoryview) -> bytes:
        valid, _, _, size = struct.unpack_from("<IIQQ", body)
        if valid & _SETATTR_SIZE:
            # resize2fs cuts a file to the size of its filesystem; what lies behind is not shown any more.
            if size > self._backing.size or not self._writable:
                raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
            self._size = size
        return self._attributes()

    def _attributes(self) -> bytes:
        mode = 0o100600 if self._writable else 0o100400
        blocks = -(-self._size // 512)
        return _ATTR.pack(_SECONDS_VALID, 0, 0, 1, self._size, blocks, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)


def _init(body: memoryview) -> bytes:
    major, minor, ahead, flags = struct.unpack_from("<IIII", body)
    if major != 7:
        raise OSError(errno.EPROTO, os.strerror(errno.EPROTO))
    answer = struct.pack("<IIIIHHIIHHI", 7, min(minor, 31), ahead, flags & _FLAGS, 16, 12, _MAX, 1, _MAX // 4096, 0, 0)
    return answer.ljust(64, b"\0")


@contextlib.contextmanager
def shown(backing: Backing, *, writable: bool) -> Iterator[Shown]:
    """The backing as a file for the block. Raises CommandError when the kernel does not let us."""
    folder = Path(tempfile.mkdtemp(prefix="rekindle-shown-"))
    path = folder / "disk"
    path.touch(mode=0o600)
    try:
        try:
            file = Shown(path, backing, writable=writable)
        except OSError as error:
            raise CommandError(
                f"A disk of the recovery point cannot be shown as a file: {error.strerror}.",
                hint="This needs root, and a kernel with FUSE ('modprobe fuse').",
            ) from error
        try:
            # Until it is asked for, the kernel holds the size for 0: a loop device on it was empty (Linux 6.12).
            path.stat()
            yield file
        except RekindleError:
            # The tool failed because of what it could not read: that is what a person must know.
            file.check()
            raise
        finally:
            file.close()
    finally:
        with contextlib.suppress(OSError):
            path.unlink()
            folder.rmdir()
