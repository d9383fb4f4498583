"""What bounds a consistent point, and the errors that end one."""

from __future__ import annotations

import msgspec

from recovery.capture.tracking.model import Doubt
from recovery.errors import BusyError, DeviceError


class FreezeLimits(msgspec.Struct, frozen=True, kw_only=True):
    """``freeze`` is the most seconds that programs may wait: then all is thawed, the attempt is void, and the pre-copy
    goes on, ``attempts`` times at most. ``passes``: the most passes of the pre-copy before each freeze; then it is
    given up. ``memory`` is the most bytes read under the freeze, ``held`` the most bytes of chunks that are kept
    because they change all the time; both are taken only as needed, and given back.
    """

    freeze: float = 0.5
    attempts: int = 3
    memory: int = 64 * 1024 * 1024
    held: int = 512 * 1024 * 1024
    passes: int = 10


class DoubtError(DeviceError):
    """The changes of a disk are not known completely, so what was copied is void: only a full read will do."""

    def __init__(self, disk: str, doubt: Doubt) -> None:
        super().__init__(
            f"What changed on {disk} is not known completely: {doubt.text}.",
            hint="All of the disk must be read and compared again.",
        )
        self.disk = disk
        self.doubt = doubt


class NotStillError(BusyError):
    """The disks did not come to rest: too much is written, or something writes past the frozen filesystems.
    ``hopeless``: as much was written during the last pass as it read."""

    def __init__(self, message: str, hint: str, *, hopeless: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.hopeless = hopeless
