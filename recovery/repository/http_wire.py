"""What is particular about one connection to our server: how far away it is, and what its error answers mean."""

from __future__ import annotations

import contextlib
import http.client
import socket
import struct

import msgspec

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

#: include/uapi/linux/tcp.h, struct tcp_info: up to tcpi_min_rtt (Linux 4.6), in microseconds. The least of all, for
#: the others have the time in them that a peer waits with an acknowledgement.
_TCP_INFO, _UNMEASURED = struct.Struct("148xI"), 0xFFFFFFFF


def round_trip_of(connection: http.client.HTTPConnection) -> float:
    """The fewest seconds from a packet to its acknowledgement, as the kernel measures them; 0 where that is not
    known."""
    if connection.sock is None:
        return 0.0
    try:
        facts = connection.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
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
