"""One attempt of a request: what is sent, how it may fail, and whether the answer is what was asked for."""

from __future__ import annotations

import re
from collections.abc import Mapping

import requests

from recovery.errors import IntegrityError, RekindleError, UnreachableError
from recovery.repository.http_wire import body_of


class Request:
    """One attempt: what to send."""

    def __init__(
        self,
        method: str,
        url: str,
        params: Mapping[str, str] | None,
        data: bytes | bytearray | memoryview | None,
        token: str,
    ) -> None:
        self.method = method
        self.url = url
        self.params = params
        # requests takes bytes as they are, and streams other buffers without copying; an empty one must be bytes.
        self.data = bytes(data) if data is not None and len(data) < 65536 else data
        self.range: tuple[int, int] | None = None
        self._token = token

    def headers(self) -> dict[str, str]:
        headers = {"Accept-Encoding": "identity", "User-Agent": "rekindle"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        if self.range is not None:
            headers["Range"] = f"bytes={self.range[0]}-{self.range[1]}"
        return headers


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


def read_all(response: requests.Response, method: str) -> bytes:
    """The whole body, without a copy where it is large."""
    length = max(0, _length(response.headers))
    if method == "HEAD" or length < 1024 * 1024:
        return response.content
    data = memoryview(bytearray(length))
    filled = 0
    source = body_of(response)
    while filled < length:
        count = source.readinto(data[filled:])
        if not count:
            raise ConnectionResetError("the connection ended early")
        filled += count
    response.raw.release_conn()
    return bytes(data)


def _length(headers: Mapping[str, str]) -> int:
    """Content-Length; -1 when it is missing or no number."""
    text = headers.get("Content-Length", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else -1


def is_range(status: int, content_range: str, content_length: str, start: int, wanted: int) -> bool:
    """Whether these are the status and the headers of just the ``wanted`` bytes from ``start``."""
    return status == 206 and _range(content_range) == (start, start + wanted) and content_length == str(wanted)


def _range(content_range: str) -> tuple[int, int]:
    found = re.match(r"bytes (\d{1,18})-(\d{1,18})/", content_range)
    return (int(found[1]), int(found[2]) + 1) if found else (-1, -1)


def check_range(response: requests.Response, request: Request, wanted: int) -> None:
    """Raises Failed when the answer is not the ``wanted`` bytes that the request asked for."""
    start = request.range[0] if request.range else 0
    length = _length(response.headers)
    if response.status_code == 200 and start == 0 and length == wanted:  # a plain web server, the whole object
        return
    given = _range(response.headers.get("Content-Range", ""))
    if response.status_code != 206 or given != (start, start + length) or length > wanted:
        raise Failed(
            500,
            UnreachableError(
                f"What answers at {response.url.split('/v1/')[0]} sends other bytes than those asked for.",
                hint="Is a proxy between that does not know byte ranges? Give the server's own address.",
            ),
        )
    if length != wanted:
        raise Failed(
            response.status_code,
            IntegrityError(
                f"The server sent {length} bytes where {wanted} were asked for: the object is shorter than it "
                "should be.",
                hint="Check the repository with 'rekindle repo check'.",
            ),
        )
