"""The bytes of a request's body and the range it asks for."""

from __future__ import annotations

import re
from io import BufferedIOBase

from recovery.errors import IntegrityError, UsageError
from recovery.units import MIB
from rekindle_server.app import HttpError
from rekindle_server.objects import Torn

#: A refused upload up to this size is read to its end, or the client would see a broken connection instead of why.
MAX_DRAIN = 256 * MIB
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


class Body:
    """The body of a request: ``length`` bytes, read once."""

    def __init__(self, source: BufferedIOBase, length: int) -> None:
        self._source = source
        self.length = length
        self.left = length

    def readinto(self, view: memoryview, /) -> int:
        """Fill ``view`` as far as the body goes; 0 at its end. Raises Torn when the client went away."""
        view = view[: self.left]
        filled = 0
        try:
            while filled < len(view):
                count = self._source.readinto(view[filled:])
                if not count:
                    raise Torn
                filled += count
        except (OSError, ValueError) as error:
            raise Torn from error
        self.left -= filled
        return filled

    def read(self, limit: int) -> bytes:
        """All of it. Raises HttpError 413 above ``limit``, Torn."""
        if self.length > limit:
            raise HttpError(413, UsageError(f"At most {limit} bytes are allowed here."))
        data = bytearray(self.length)
        self.readinto(memoryview(data))
        return bytes(data)

    def drain(self) -> bool:
        """Read and drop the rest; False when that is too much or fails: the connection must be closed."""
        if self.left > MAX_DRAIN:
            return False
        sink = memoryview(bytearray(min(MIB, max(self.left, 1))))
        try:
            while self.left:
                self.readinto(sink[: self.left])
        except Torn:
            return False
        return True


def parse_range(header: str, size: int) -> tuple[int, int] | None:
    """Start and end of the one range asked for in an object of ``size`` bytes; None for the whole object.

    Several ranges and other units mean the whole object, too (RFC 9110). Raises HttpError 416.
    """
    match = _RANGE.fullmatch(header.replace(" ", ""))
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), min(size, int(last) + 1) if last else size
    if start >= size or end <= start:
        error = IntegrityError(
            f"The object has only {size} bytes.", hint="Check the repository with 'rekindle repo check'."
        )
        raise HttpError(416, error, {"Content-Range": f"bytes */{size}"})
    return start, end
