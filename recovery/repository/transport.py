"""Requests to our server that survive its restarts: one session per thread, bounded retries, bodies read in place."""

from __future__ import annotations

import contextlib
import http.client
import random
import threading
import time
import weakref
from collections.abc import Iterator, Mapping
from typing import Protocol

import msgspec
import requests
import urllib3

from recovery.errors import (
    AccessError,
    CancelledError,
    IntegrityError,
    UnreachableError,
)
from recovery.repository.attention import DEFAULT_PATIENCE, RetryListener
from recovery.repository.http_attempt import Broken, Failed, Request, check_range, read_all
from recovery.repository.http_wire import PinnedAdapter, body_of, cause_of, error_of, round_trip_of
from recovery.repository.tls import CONNECT_SECONDS, Trust, connection_context, explain, parse_url

#: Seconds to wait for the next byte: a server may be syncing 64 MiB to a slow disk.
_READ_SECONDS = 120.0
_LONGEST_PAUSE = 5.0
#: An answer that makes no sense (500, another range than asked for) is a bug or a broken disk when it stays for so
#: long; an object shorter than it should be stays so: a few attempts tell.
_SENSELESS_SECONDS = 20.0
_ATTEMPTS_SHORT = 3
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
    headers: Mapping[str, str]
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
        self._sessions: weakref.WeakSet[requests.Session] = weakref.WeakSet()

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
        """Close every thread's connections."""
        for session in list(self._sessions):
            session.close()

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
                request = Request(method, self.address.base + path, params, data, sent_token)
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
        filled = 0
        response: requests.Response | None = None
        try:
            response = self._session().request(
                request.method,
                request.url,
                params=request.params,
                data=request.data,  # type: ignore[arg-type] # any buffer is sent as it is
                headers=request.headers(),
                stream=True,
                allow_redirects=False,
                timeout=(CONNECT_SECONDS, _READ_SECONDS),
            )
            if response.status_code >= 300:
                report = response.content or response.headers.get("Rekindle-Error", "").encode()
                wait = response.headers.get("Retry-After", "")
                error = error_of(response.status_code, report)
                raise Failed(response.status_code, error, float(wait) if wait.isdigit() else 0.0)
            if into is None:
                self.round_trip = round_trip_of(response) or self.round_trip
                return Reply(response.status_code, response.headers, read_all(response, request.method))
            check_range(response, request, len(into))
            source = body_of(response)
            while filled < len(into):
                count = source.readinto(into[filled:])
                if not count:
                    raise ConnectionResetError("the connection ended early")
                filled += count
            response.raw.release_conn()
            return Reply(response.status_code, response.headers)
        except (requests.RequestException, urllib3.exceptions.HTTPError, http.client.HTTPException, OSError) as error:
            raise Broken(explain(cause_of(error), self.address), filled) from error
        finally:
            if response is not None:
                # Closes what was not read to its end; does nothing to a connection that was given back.
                response.close()

    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None:
            session = requests.Session()
            # No proxies, .netrc passwords or CA bundles from the environment: only what the operator said.
            session.trust_env = False
            session.mount("https://", PinnedAdapter(self._context))
            self._local.session = session
            self._sessions.add(session)
        return session
