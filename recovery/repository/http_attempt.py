"""One attempt of a request: what is sent, how it may fail, and whether the answer is what was asked for."""

from __future__ import annotations

import http.client
import re
from collections.abc import Iterator, Mapping
from email.message import Message
from urllib.parse import urlencode

from recovery.errors import IntegrityError, RekindleError, UnreachableError
from recovery.repository.tls import Address
from recovery.units import KIB

#: Bytes sent at once.
_PIECE = 256 * KIB


class Request:
    """One attempt: what to send."""

    def __init__(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None,
        data: bytes | bytearray | memoryview | None,
        token: str,
    ) -> None:
        self.method = method
        self.path = f"{path}?{urlencode(params)}" if params else path
        self.data = memoryview(data).cast("B") if data else None
        self.range: tuple[int, int] | None = None
        self._token = token

    def headers(self) -> dict[str, str]:
        """As they go out."""
        headers = {"Accept-Encoding": "identity", "User-Agent": "rekindle"}
        if self.data is not None:
            headers["Content-Length"] = str(len(self.data))
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        if self.range is not None:
            headers["Range"] = f"bytes={self.range[0]}-{self.range[1]}"
        return headers

    def body(self) -> Iterator[memoryview] | None:
        """In pieces: a time limit of a socket is one for all that is sent at once."""
        data = self.data
        return None if data is None else (data[at : at + _PIECE] for at in range(0, len(data), _PIECE))


class Broken(Exception):
    """The connection failed; ``progress`` bytes had arrived."""

    def __init__(self, error: RekindleError, progress: int) -> None:
        super().__init__(error.message)
        self.error = error
        self.progress = progress


class Failed(Exception):
    """The server answered with an error, or with what was not asked for (status 500 then). ``wait``: seconds that it
    asks to be left alone."""

    def __init__(self, status: int, error: RekindleError, wait: float = 0.0) -> None:
        super().__init__(error.message)
        self.status = status
        self.error = error
        self.wait = wait


def _length(headers: Message) -> int:
    """Content-Length; -1 when it is missing or no number."""
    text = headers.get("Content-Length", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else -1


def is_range(status: int, content_range: str, content_length: str, start: int, wanted: int) -> bool:
    """Whether these are the status and the headers of just the ``wanted`` bytes from ``start``."""
    return status == 206 and _range(content_range) == (start, start + wanted) and content_length == str(wanted)


def _range(content_range: str) -> tuple[int, int]:
    found = re.match(r"bytes (\d{1,18})-(\d{1,18})/", content_range)
    return (int(found[1]), int(found[2]) + 1) if found else (-1, -1)


def check_range(response: http.client.HTTPResponse, request: Request, wanted: int, server: Address) -> None:
    """Raises Failed when the answer is not the ``wanted`` bytes that the request asked for."""
    start = request.range[0] if request.range else 0
    length = _length(response.headers)
    if response.status == 200 and start == 0 and length == wanted:  # a plain web server, the whole object
        return
    given = _range(response.headers.get("Content-Range", ""))
    if response.status != 206 or given != (start, start + length) or length > wanted:
        raise Failed(
            500,
            UnreachableError(
                f"What answers at {server.base} sends other bytes than those asked for.",
                hint="Is a proxy between that does not know byte ranges? Give the server's own address.",
            ),
        )
    if length != wanted:
        raise Failed(
            response.status,
            IntegrityError(
                f"The server sent {length} bytes where {wanted} were asked for: the object is shorter than it "
                "should be.",
                hint="Check the repository with 'rekindle repo check'.",
            ),
        )
