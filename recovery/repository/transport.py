"""Requests to our server that survive its restarts: one connection per thread, bounded retries, bodies read in place.

By http.client itself: a request costs 0.06 ms of the processor, 0.28 by the library requests, and a process starts
30 ms sooner. What that one does besides (redirects, proxies, passwords from the environment) is not wanted here.
"""

from __future__ import annotations

import contextlib
import http.client
import random
import select
import socket
import threading
import time
import weakref
from collections.abc import Iterator, Mapping
from email.message import Message
from typing import Protocol

import msgspec

from recovery.errors import (
    AccessError,
    CancelledError,
    IntegrityError,
    RekindleError,
    UnreachableError,
)
from recovery.repository.attention import DEFAULT_PATIENCE, RetryListener
from recovery.repository.http_attempt import Broken, Failed, Request, check_range
from recovery.repository.http_wire import error_of, round_trip_of
from recovery.repository.tls import CONNECT_SECONDS, Trust, connection_context, explain, parse_url
from recovery.units import GIB, MIB

#: Seconds to wait for the next byte: a server may be syncing 64 MiB to a slow disk.
_READ_SECONDS = 120.0
_LONGEST_PAUSE = 5.0
#: An answer that makes no sense (500, another range than asked for) is a bug or a broken disk when it stays for so
#: long; an object shorter than it should be stays so: a few attempts tell.
_SENSELESS_SECONDS = 20.0
_ATTEMPTS_SHORT = 3
#: Bytes of a body that are received at once; of the answer to a request without a buffer for it (the largest is the
#: map of a disk of tens of TiB); and of what a refusal says.
_PIECE, _LARGEST, _LONGEST_REPORT = 4 * MIB, 4 * GIB, MIB
#: What Retry-After may ask for at most.
_LONGEST_ASKED = 60.0


class TokenProvider(Protocol):
    """Where tokens come from. ``recovery.repository.http_session.Session`` is one."""

    def current(self) -> str:
        """The token to use now; may renew it."""

    def refused(self, token: str) -> bool:
        """The server did not take ``token``; True when ``current()`` has a better one now."""


class Reply(msgspec.Struct, frozen=True):
    """What came back. ``body`` is empty when the bytes went into the caller's buffer."""

    status: int
    headers: Message
    body: bytes = b""


class Transport:
    """The way to one server. Thread-safe; ``close()`` ends its connections."""

    def __init__(
        self,
        url: str,
        trust: Trust,
        *,
        tokens: TokenProvider | None = None,
        patience: float = DEFAULT_PATIENCE,
        on_retry: RetryListener | None = None,
        cancel: threading.Event | None = None,
    ) -> None:
        """Asks for the CA when ``trust`` has a fingerprint. Raises AccessError, UnreachableError, UsageError."""
        self.address = parse_url(url)
        self._context = connection_context(url, trust)
        self._tokens = tokens
        self._patience = patience
        self._on_retry = on_retry
        self._cancel = cancel or threading.Event()
        #: Seconds to the server and back, as the newest small answer came; 0: not known yet.
        self.round_trip = 0.0
        self._local = threading.local()
        #: Weak: a thread that ends takes its connection along.
        self._connections: weakref.WeakSet[http.client.HTTPConnection] = weakref.WeakSet()

    @contextlib.contextmanager
    def attended(
        self, on_retry: RetryListener, cancel: threading.Event, patience: float | None = None
    ) -> Iterator[None]:
        """See ``recovery.repository.attention.Attentive``."""
        before = self._on_retry, self._cancel, self._patience
        self._on_retry, self._cancel = on_retry, cancel
        self._patience = before[2] if patience is None else patience
        try:
            yield
        finally:
            self._on_retry, self._cancel, self._patience = before

    def tell(self, why: str, attempt: int, pause: float) -> None:
        """Let who listens now hear of an attempt that failed."""
        if self._on_retry:
            self._on_retry(why, attempt, pause)

    def close(self) -> None:
        """End every thread's connection. Its own thread closes it: another one would take it away under its hands."""
        for connection in list(self._connections):
            if (sock := connection.sock) is not None:
                with contextlib.suppress(OSError):
                    # Not SSLSocket's own, which ends the TLS session that the other thread is reading from.
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        data: bytes | bytearray | memoryview | None = None,
        range_from: int = 0,
        into: memoryview | None = None,
        token: str | None = None,
        patience: float | None = None,
    ) -> Reply:
        """Send a request until it is answered. All our requests may be repeated: objects never change.

        With ``into`` the object's bytes from ``range_from`` fill the buffer; a connection that breaks is taken up
        where it broke. ``token`` is used instead of the provider's. Raises the server's error, or UnreachableError
        after ``patience`` seconds without progress.
        """
        # As they are now: a thread that its run left alone must not go on in the name of the next one.
        on_retry, cancel = self._on_retry, self._cancel
        patience = self._patience if patience is None else patience
        filled = attempt = short = 0
        begin = senseless = 0.0
        renewed = False
        while True:
            if cancel.is_set():
                raise CancelledError("Stopped while waiting for the server.")
            provider = self._tokens if token is None else None
            asked = 0.0
            try:
                sent_token = provider.current() if provider else token or ""
                request = Request(method, path, params, data, sent_token)
                if into is not None:
                    request.range = (range_from + filled, range_from + len(into) - 1)
                return self._once(request, into[filled:] if into is not None else None)
            except Broken as broken:
                if broken.progress:
                    filled += broken.progress
                    attempt = 0
                problem = broken.error
            except Failed as failed:
                problem, asked = failed.error, failed.wait
                if failed.status == 401 and provider and not renewed:
                    try:
                        renewed = provider.refused(sent_token)
                    except UnreachableError as error:  # while it logged in again: as any other outage
                        problem = error
                    else:
                        if renewed:
                            continue
                        raise failed.error from None
                elif failed.status == 500:
                    senseless = senseless or time.monotonic()
                    if time.monotonic() - senseless > min(patience, _SENSELESS_SECONDS):
                        raise failed.error from None
                elif isinstance(failed.error, IntegrityError) and failed.status < 300:
                    short += 1
                    if short >= _ATTEMPTS_SHORT:
                        raise failed.error from None
                # Too many requests: of one who is logged in. At the login it is the guard against guessing.
                elif failed.status not in (502, 503, 504) and not (failed.status == 429 and provider):
                    raise failed.error from None
            now = time.monotonic()
            if attempt == 0:
                begin = now
            # At once the first time: often only an idle connection was closed.
            pause = 0.0 if attempt == 0 else min(_LONGEST_PAUSE, 0.1 * 2 ** min(attempt, 9)) * random.uniform(0.7, 1.3)  # noqa: S311
            pause = max(pause, min(asked, _LONGEST_ASKED))
            if now + pause > begin + patience or isinstance(problem, AccessError):
                raise problem
            attempt += 1
            if on_retry:
                on_retry(problem.message, attempt, pause)
            cancel.wait(pause)

    def _once(self, request: Request, into: memoryview | None) -> Reply:
        filled, whole = 0, False
        response: http.client.HTTPResponse | None = None
        connection = self._connection()
        try:
            _connect(connection)
            early = _send(connection, request)
            response = connection.getresponse()
            if not 200 <= response.status < 300:
                error, wait = _refusal(response)
                whole = not early
                raise Failed(response.status, error, wait)
            if into is None:
                self.round_trip = round_trip_of(connection) or self.round_trip
                if (response.length or 0) > _LARGEST:
                    raise http.client.HTTPException(f"an answer of {response.length} bytes")
                reply = Reply(response.status, response.headers, response.read())
            else:
                check_range(response, request, len(into), self.address)
                while filled < len(into):
                    # A piece at a time: what came before a connection broke is not asked for again.
                    count = response.readinto(into[filled : filled + _PIECE])
                    if not count:
                        raise ConnectionResetError("the connection ended early")
                    filled += count
                reply = Reply(response.status, response.headers)
            whole = not early
            return reply
        except (http.client.HTTPException, OSError) as error:
            raise Broken(explain(error, self.address), filled) from error
        except ValueError as error:
            # http.client keeps what it could not send for the next request.
            self._local.connection = None
            raise UnreachableError(
                f"What answers at {self.address.base} gave a login that cannot be sent.",
                hint="Is it a Rekindle server?",
            ) from error
        finally:
            # The rest of an answer that was not read to its end would be taken for that of the next request.
            if not whole or response is None or not response.isclosed():
                connection.close()
                if response is not None:
                    response.close()

    def _connection(self) -> http.client.HTTPConnection:
        connection: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
        if connection is None:
            host, port = self.address.host, self.address.port
            if self._context is None:
                connection = http.client.HTTPConnection(host, port, timeout=CONNECT_SECONDS)
            else:
                connection = http.client.HTTPSConnection(host, port, timeout=CONNECT_SECONDS, context=self._context)
            self._local.connection = connection
            self._connections.add(connection)
        return connection


def _connect(connection: http.client.HTTPConnection) -> None:
    """Have the connection open: a new one where there is none, or the server has closed it while it was idle."""
    if connection.sock is not None:
        waiting = select.poll()
        waiting.register(connection.sock, select.POLLIN)
        if not waiting.poll(0):
            return
        connection.close()
    connection.connect()
    sock: socket.socket = connection.sock
    sock.settimeout(_READ_SECONDS)


def _send(connection: http.client.HTTPConnection, request: Request) -> bool:
    """Send the request; True when the other side hung up before it had read all of it, perhaps with an answer: a
    proxy that takes no body of that size does so."""
    try:
        connection.request(request.method, request.path, request.body(), request.headers())
    except (BrokenPipeError, ConnectionResetError):
        if request.data is None:
            raise
        return True
    return False


def _refusal(response: http.client.HTTPResponse) -> tuple[RekindleError, float]:
    """The error that an answer means, and the seconds that the server asks to be left alone."""
    if response.status < 200:
        raise http.client.HTTPException(f"HTTP status {response.status}")
    report = response.read(_LONGEST_REPORT) or response.headers.get("Rekindle-Error", "").encode()
    wait = response.headers.get("Retry-After", "")
    return error_of(response.status, report), float(wait) if wait.isdigit() else 0.0
