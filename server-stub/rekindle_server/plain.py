"""Packs by plain HTTP, for networks where TLS costs too much: only single signed reads, on a port of their own.

What packs hold is encrypted and bound to its ids, so nobody on the way can read or forge it. The keys to sign with are
given out over TLS (``POST /v1/signed``); on this port there is no login, no token, and nothing but packs.
"""

from __future__ import annotations

import hmac
import secrets
import threading
from collections import OrderedDict
from typing import Any, ClassVar

from recovery.errors import AccessError, NotFoundError, UsageError
from recovery.repository.http_signed import LIFETIME, PACKS, SignedReads, parts_name, signature
from rekindle_server.app import App, HttpError
from rekindle_server.gather import MAX_BODY
from rekindle_server.handler import Handler
from rekindle_server.policy import Grant

#: Logins that may read so at once; the oldest is forgotten, and asks again.
_MOST = 4096


class PlainPacks:
    """Who may read packs by plain HTTP: lives as long as the process, as long as the login. Thread-safe."""

    def __init__(self, app: App, port: int) -> None:
        self._app = app
        self._port = port
        self._lock = threading.Lock()
        #: session -> its key and the token whose rights it has
        self._given: OrderedDict[str, tuple[bytes, str]] = OrderedDict()

    def give(self, token: str) -> SignedReads:
        """A key to sign with, for who has this (good) token."""
        session, key = secrets.token_hex(16), secrets.token_bytes(32)
        with self._lock:
            self._given[session] = key, token
            if len(self._given) > _MOST:
                self._given.popitem(last=False)
        return SignedReads(session, key, self._port, int(self._app.state.clock()))

    def check(self, name: str, range: str, query: dict[str, str]) -> Grant:
        """The grant of who signed this read. Raises HttpError 403, also when his login has ended."""
        key, token = self._given.get(query.get("session", ""), (b"", ""))
        text = query.get("expires", "")
        expires = int(text) if text.isascii() and text.isdigit() and len(text) < 16 else 0
        # Computed for unknown sessions, too: the time it takes tells nothing.
        wanted = signature(key or b"-", name, range, expires)
        good = hmac.compare_digest(wanted.encode(), query.get("signature", "").encode())
        # Nobody may sign a read that is good for ever.
        if not (key and good and 0 <= expires - self._app.state.clock() <= 2 * LIFETIME):
            raise HttpError(403, AccessError("This read is not signed, or its time is over.", hint="Ask for a key."))
        try:
            return self._app.tokens.check(token)
        except AccessError as error:
            with self._lock:
                self._given.pop(query["session"], None)
            raise HttpError(403, error) from error


class PlainHandler(Handler):
    """One connection on the port for plain reads."""

    ROUTES: ClassVar[dict[tuple[str, str], Any]] = {}

    def get_pack(self, name: str, arguments: dict[str, str]) -> None:
        """GET of one range of a pack."""
        if not name.startswith("packs/") or not self.headers.get("Range"):
            raise NotFoundError("Only ranges of packs are read here.")
        self.send_object(self.app.readable(self._signed(name, arguments), name, "read"))

    def post_parts(self, name: str, arguments: dict[str, str]) -> None:
        """POST for parts of packs: what is signed is the hash of the body that names them."""
        body = self.body.read(MAX_BODY)
        if name != parts_name(body):
            raise NotFoundError("Only parts of packs are read here.")
        self.send_parts(self._signed(name, arguments), body)

    def _signed(self, name: str, arguments: dict[str, str]) -> Grant:
        if self.headers.get("Authorization"):
            raise UsageError("A token was sent in the clear.", hint="Log in anew: it is not a secret any more.")
        if self.server.plain is None:
            raise NotFoundError("There is nothing at this address.")
        grant = self.server.plain.check(name, self.headers.get("Range", ""), arguments)
        self.actor = f"{grant.actor}:{grant.role}"
        return grant


PlainHandler.ROUTES = {("GET", PACKS): PlainHandler.get_pack, ("POST", PACKS): PlainHandler.post_parts}
