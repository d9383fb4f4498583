"""The target disks belong to this run from its first look to its last write.

Hours lie between the operator's word and the first write to the second disk. Meanwhile a disk may be pulled and
another plugged in, and udev may start LVM or RAID across a disk that is restored and one that is still the old one.
An open descriptor keeps the kernel from giving a disk's name to another disk; an exclusive one keeps everybody else
(mount, LVM, md, ZFS) from the disk and its partitions. Both are read-only, so closing them tells udev nothing.
"""

from __future__ import annotations

import contextlib
import errno
import os
from types import TracebackType

from recovery.errors import BusyError, DeviceError, UnsafeTargetError
from recovery.plan.model import RestorePlan


class Claims:
    """A context manager. Entered before the last look: names stay. ``take`` after it: the disks are ours."""

    def __init__(self, plan: RestorePlan) -> None:
        self._paths = [a.target.path for a in plan.assignments if a.target.bus != "file"]
        self._pins: dict[str, int] = {}
        self._held: dict[str, int] = {}

    def __enter__(self) -> Claims:
        for path in self._paths:
            # A disk that is not there any more is told by the look at the targets.
            with contextlib.suppress(OSError):
                self._pins[path] = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release_all()
        while self._pins:
            os.close(self._pins.popitem()[1])

    def take_all(self) -> None:
        """Claim every target. Raises BusyError when something holds one, UnsafeTargetError, DeviceError."""
        for path in self._paths:
            self.take(path)

    def take(self, path: str) -> None:
        """Claim a target (again)."""
        if path not in self._paths:
            return
        try:
            held = os.open(path, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC)
        except OSError as error:
            if error.errno == errno.EBUSY:
                raise BusyError(
                    f"{path} is in use: something holds it or a part of it. Nothing was written to it.",
                    hint="Stop what uses it (see 'lsblk', 'dmsetup ls', 'zpool list'), then plan again.",
                ) from error
            raise DeviceError(
                f"{path} cannot be opened: {error.strerror}. Nothing was written to it.", hint="Check the cabling."
            ) from error
        self._held[path] = held
        pin = self._pins.get(path)
        if pin is None or os.fstat(pin).st_rdev != os.fstat(held).st_rdev:
            raise UnsafeTargetError(
                f"{path} is another disk than a moment ago. Nothing was written to it.", hint="Plan again."
            )

    def release(self, path: str) -> None:
        """Let the restore of this disk have it; its name still stays."""
        if path in self._held:
            os.close(self._held.pop(path))

    def release_all(self) -> None:
        """Let the adaptation have the disks."""
        for path in list(self._held):
            self.release(path)
