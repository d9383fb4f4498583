"""Being logged in at our server: a token from a password or a one-time code, renewed in time."""

from __future__ import annotations

import contextlib
import logging
import secrets
import threading
import time

import msgspec

from recovery.errors import AccessError, RekindleError, UnreachableError
from recovery.repository import clock
from recovery.repository.tls import Trust, parse_url
from recovery.repository.transport import Reply, Transport

log = logging.getLogger("rekindle.repository")

#: Logging in is interactive: nobody waits longer for it than this many seconds.
LOGIN_PATIENCE = 15.0
#: After a renewal that failed.
_TRY_AGAIN = 30.0


class _Issued(msgspec.Struct, frozen=True):
    token: str
    role: str
    hosts: tuple[str, ...]
    seconds: float


class Session:
    """A login, and the TokenProvider of stores. Thread-safe. Token and password stay in memory.

    ``role`` and ``hosts`` (globs) are what the server granted. ``clock_lag``: seconds that this machine's clock was
    behind the server's at the login (negative: ahead), 0 when they agree. The token is renewed after half of its
    life; after a login by password an expired one is replaced, too. A one-time code works once: its session ends when
    the server was away for longer than the token lives.
    """

    def __init__(self, url: str, trust: Trust, credentials: dict[str, str]) -> None:
        """Log in. Raises AccessError, UnreachableError, UsageError."""
        self.url = url
        self.trust = trust
        self._transport = Transport(url, trust, patience=LOGIN_PATIENCE)
        self._credentials = credentials
        self._lock = threading.Lock()
        reply = self._transport.call("POST", "/v1/login", data=msgspec.json.encode(credentials))
        self._accept(reply)
        self.clock_lag = clock.lag(reply.headers.get("Date"))
        if self.clock_lag:
            log.warning("The clock of this machine is %s.", clock.difference(self.clock_lag))
        if "code" in credentials:
            self._credentials = {}  # of no more use

    def _accept(self, reply: Reply) -> None:
        try:
            issued = msgspec.json.decode(reply.body, type=_Issued)
        except msgspec.MsgspecError:
            raise UnreachableError(
                f"What answers at {self.url} is not a Rekindle server.", hint="Check the address and the port."
            ) from None
        self._token, self.role, self.hosts = issued.token, issued.role, issued.hosts
        # By seconds from now: a dead host's clock may be years off the server's.
        self._renew_at = time.monotonic() + issued.seconds / 2

    def current(self) -> str:
        """The token to use now. One thread renews it when it is time; the others go on with the old one."""
        if time.monotonic() >= self._renew_at and self._lock.acquire(blocking=False):
            try:
                self._accept(self._transport.call("POST", "/v1/renew", token=self._token, patience=0.0))
            except RekindleError:
                self._renew_at = time.monotonic() + _TRY_AGAIN
            finally:
                self._lock.release()
        return self._token

    def refused(self, token: str) -> bool:
        """Log in again with the password, if there is one. Raises AccessError when that fails."""
        with self._lock:
            if token != self._token:
                return True
            if not self._credentials:
                return False
            self._accept(self._transport.call("POST", "/v1/login", data=msgspec.json.encode(self._credentials)))
            return True

    def alive(self) -> bool:
        """Whether the server still takes the token."""
        try:
            self._accept(self._transport.call("POST", "/v1/renew", token=self._token))
        except AccessError:
            return False
        return True

    def close(self) -> None:
        """End the token on the server, as far as it can be reached, and forget the password."""
        with contextlib.suppress(RekindleError):
            self._transport.call("POST", "/v1/logout", token=self._token, patience=0.0)
        self._credentials = {}
        self._transport.close()


_codes_lock = threading.Lock()
#: By server, trust and code. Kept for the life of the process: nobody else holds on to a session after a failure.
_code_sessions: dict[tuple[str, Trust, str], Session] = {}


def login_password(url: str, trust: Trust, user: str, password: str) -> Session:
    """Log in with user and password. Raises AccessError, UnreachableError, UsageError."""
    if not user or not password:
        raise AccessError("User name and password are both needed.", hint="Or use a one-time code.")
    return Session(url, trust, {"user": user, "password": password})


def login_code(url: str, trust: Trust, code: str) -> Session:
    """Log in with a one-time code; in this process again while its session lasts.

    Raises AccessError, UnreachableError, UsageError.
    """
    if not code.strip():
        raise AccessError("The one-time code is empty.", hint="The administrator issues one: 'rekindle code issue'.")
    key = (parse_url(url).base, trust, code.strip())
    with _codes_lock:
        # A code works once, but whoever mistypes the passphrase after it must be able to try again.
        known = _code_sessions.get(key)
        if known is not None and known.alive():
            return known
        # ``attempt`` lets the server recognize a repeated request when its first answer was lost.
        session = Session(url, trust, {"code": code, "attempt": secrets.token_hex(16)})
        _code_sessions[key] = session
        return session
