"""Ranges of packs by plain HTTP and signed requests, where the operator chose that; over TLS when anything is wrong.

What arrives this way is believed in nothing but the bytes, and these are verified when they are decoded: no error that
somebody on the way could have made up ends a restore, and no answer makes the client wait or take more than it asked.
"""

from __future__ import annotations

import http.client
import threading
import time
import weakref
from collections.abc import Sequence

import msgspec

from recovery.errors import AccessError, NotFoundError, RekindleError, UnreachableError
from recovery.repository.http_attempt import is_range
from recovery.repository.http_signed import LIFETIME, SignedReads, parts_name, signed_path
from recovery.repository.protocols import Part
from recovery.repository.tls import explain
from recovery.repository.transport import Transport

#: Seconds for a connection, and until the next byte: TLS is waiting.
_SECONDS = 10.0
#: After a failure: so long everything goes over TLS.
_ASIDE = 30.0


class _Refused(Exception):
    """The server does not take the signature."""


class PlainReads:
    """Signed reads from the server of a Transport. Thread-safe; every thread has its own connection."""

    def __init__(self, transport: Transport) -> None:
        """Asks for a key. Raises NotFoundError when the server does not offer this, AccessError, UnreachableError."""
        self._transport = transport
        self._lock = threading.Lock()
        self._local = threading.local()
        self._connections: weakref.WeakSet[http.client.HTTPConnection] = weakref.WeakSet()
        self._aside = 0.0
        #: The key, and when it was asked for.
        self._given: tuple[SignedReads, float]
        self._doubtful = False
        self._ask()

    def close(self) -> None:
        """Close every thread's connection."""
        for connection in list(self._connections):
            connection.close()

    def read_into(self, name: str, offset: int, buffer: memoryview) -> bool:
        """Fill ``buffer``; False when it has to be read over TLS. Raises what asking for a key over TLS raises."""
        return self._read(name, offset, b"", buffer)

    def read_parts(self, parts: Sequence[Part], buffer: memoryview) -> bool:
        """Fill ``buffer`` with parts of packs, as read_into()."""
        body = msgspec.json.encode(parts)
        return self._read(parts_name(body), 0, body, buffer)

    def _read(self, name: str, offset: int, body: bytes, buffer: memoryview) -> bool:
        if time.monotonic() < self._aside:
            return False
        problem: RekindleError | None = None
        asked = False
        # A connection may have been closed while it was idle, and a key may have ended: each is tried anew, once.
        while True:
            given = self._given
            try:
                # After a failure also the port may be another one: the server may have been started anew.
                if self._doubtful or (isinstance(problem, AccessError) and not asked):
                    asked = True
                    self._ask(given)
                    given = self._given
                self._once(*given, name, offset, body, buffer)
                return True
            except _Refused:
                self._drop()
                problem = AccessError("The server does not take signed reads.")
                if asked:
                    break
            except NotFoundError as error:  # it was started again without offering this
                problem = error
                break
            except (OSError, http.client.HTTPException) as error:
                fresh = self._drop()
                problem = explain(
                    error, msgspec.structs.replace(self._transport.address, secure=False, port=given[0].port)
                )
                if fresh:
                    break
        self._put_aside(problem)
        return False

    def _put_aside(self, problem: RekindleError) -> None:
        with self._lock:
            told = time.monotonic() < self._aside
            self._aside = time.monotonic() + _ASIDE
            self._doubtful = True
        if not told:
            self._transport.tell(f"{problem.message} Packs are read over TLS for {_ASIDE:.0f} s.", 1, 0.0)

    def _ask(self, old: tuple[SignedReads, float] | None = None) -> None:
        """A new key, unless another thread has got one instead of ``old``."""
        with self._lock:
            if old is not None and self._given is not old:
                return
            # The clock of before: the server's is later than computed from it, never earlier.
            at = time.monotonic()
            reply = self._transport.call("POST", "/v1/signed", data=b"")
            try:
                self._given = msgspec.json.decode(reply.body, type=SignedReads), at
            except msgspec.MsgspecError:
                raise UnreachableError(
                    "What the server says about signed reads makes no sense.", hint="Check the address and the port."
                ) from None
            self._doubtful = False

    def _once(
        self, given: SignedReads, at: float, name: str, offset: int, body: bytes,
        buffer: memoryview,
    ) -> None:  # fmt: skip
        connection: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
        self._local.fresh = connection is None
        if connection is None:
            connection = http.client.HTTPConnection(self._transport.address.host, given.port, timeout=_SECONDS)
            self._local.connection = connection
            self._connections.add(connection)
        wanted = f"bytes={offset}-{offset + len(buffer) - 1}"
        path = signed_path(given, name, wanted, given.now + int(time.monotonic() - at) + LIFETIME)
        connection.request(
            "POST" if body else "GET", path, body or None, {"Range": wanted, "Accept-Encoding": "identity"}
        )
        response = connection.getresponse()
        if response.status == 403:
            raise _Refused
        headers = response.headers.get("Content-Range", ""), response.headers.get("Content-Length", "")
        if not is_range(response.status, *headers, offset, len(buffer)):
            raise http.client.HTTPException("not the bytes that were asked for")
        filled = 0
        while filled < len(buffer):
            count = response.readinto(buffer[filled:])
            if not count:
                raise ConnectionResetError("the connection ended early")
            filled += count

    def _drop(self) -> bool:
        """Close this thread's connection; whether it was made for the read that just failed."""
        connection: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
        if connection is not None:
            connection.close()
            self._local.connection = None
        return bool(self._local.fresh)
