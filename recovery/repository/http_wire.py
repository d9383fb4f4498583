"""What is particular about requests, urllib3 and http.client: our TLS context, reading in place, what went wrong."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import warnings
from typing import Any

import msgspec
import requests
import urllib3
from requests.adapters import HTTPAdapter

from recovery.errors import (
    AccessError,
    BusyError,
    ErrorReport,
    IntegrityError,
    NotFoundError,
    RekindleError,
    SpaceError,
    UnreachableError,
    from_report,
)

# A clock that is years off is told once, with by how much (``clock``); urllib3 only guesses, and at each connection.
warnings.filterwarnings("ignore", category=urllib3.exceptions.SystemTimeWarning)


#: include/uapi/linux/tcp.h, struct tcp_info: up to tcpi_min_rtt (Linux 4.6), in microseconds. The least of all, for
#: the others have the time in them that a peer waits with an acknowledgement.
_TCP_INFO, _UNMEASURED = struct.Struct("148xI"), 0xFFFFFFFF


class PinnedAdapter(HTTPAdapter):
    """Uses our TLS context, and keeps requests from adding its own CA bundle to it."""

    def __init__(self, context: ssl.SSLContext | None) -> None:
        self._context = context
        super().__init__(pool_maxsize=1, max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        if self._context is not None:
            kwargs["ssl_context"] = self._context
        super().init_poolmanager(*args, **kwargs)

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        conn.cert_reqs = "CERT_REQUIRED"
        conn.ca_certs = conn.ca_cert_dir = None


def body_of(response: requests.Response) -> Any:
    """What to readinto() from: http.client's response, which fills the buffer without a copy (urllib3's makes one)."""
    inner = getattr(response.raw, "_fp", None)
    return inner if hasattr(inner, "readinto") else response.raw


def round_trip_of(response: requests.Response) -> float:
    """The fewest seconds from a packet to its acknowledgement, as the kernel measures them on the connection that the
    response comes by; 0 where that is not known."""
    connection = getattr(getattr(response.raw, "_connection", None), "sock", None)
    if connection is None:
        return 0.0
    try:
        facts = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
        least = int(_TCP_INFO.unpack(facts)[0])
        return 0.0 if least == _UNMEASURED else least / 1e6
    except (OSError, struct.error):
        return 0.0


def error_of(status: int, body: bytes) -> RekindleError:
    """The error that the server reported, or one made from the status."""
    with contextlib.suppress(msgspec.MsgspecError):
        return from_report(msgspec.json.decode(body, type=ErrorReport))
    classes: dict[int, type[RekindleError]] = {
        401: AccessError,
        403: AccessError,
        404: NotFoundError,
        409: BusyError,
        416: IntegrityError,
        429: UnreachableError,
        507: SpaceError,
        502: UnreachableError,
        503: UnreachableError,
        504: UnreachableError,
    }
    return classes.get(status, RekindleError)(
        f"The server answered with HTTP status {status}.", hint="Is this the address of a Rekindle server?"
    )


def cause_of(error: BaseException) -> BaseException:
    """The innermost socket or TLS error: requests and urllib3 wrap it several times."""
    seen: set[int] = set()
    best: BaseException = error
    todo: list[Any] = [error]
    while todo:
        current = todo.pop()
        if not isinstance(current, BaseException) or id(current) in seen:
            continue
        seen.add(id(current))
        if isinstance(current, OSError) and not isinstance(current, requests.RequestException):
            best = current
            if isinstance(current, ssl.SSLError):
                return current
        if isinstance(current, requests.Timeout | urllib3.exceptions.TimeoutError):
            best = TimeoutError()
        todo += [current.__cause__, current.__context__, getattr(current, "reason", None), *current.args]
    return best
