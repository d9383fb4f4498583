"""The ObjectStore at the other end of HTTPS: our server. See also ``tls`` (trust), ``http_session`` (login)."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from recovery.errors import NotFoundError, UnreachableError, UsageError
from recovery.format.names import parse_name
from recovery.repository.attention import DEFAULT_PATIENCE, RetryListener
from recovery.repository.http_index import HttpChunkIndex
from recovery.repository.http_plain import PlainReads
from recovery.repository.http_session import Session, login_code, login_password
from recovery.repository.protocols import ObjectInfo, Part
from recovery.repository.tls import ServerIdentity, Trust, identify
from recovery.repository.transport import TokenProvider, Transport

if TYPE_CHECKING:
    from recovery.repository.location import Credentials

__all__ = [
    "HttpChunkIndex",
    "HttpStore",
    "ServerIdentity",
    "Session",
    "Trust",
    "connect",
    "identify",
    "login_code",
    "login_password",
]


#: Reads at once that a restore begins with, and from a server that is this many seconds away (there and back).
_READERS, _FAR_READERS, _FAR = 3, 8, 0.005


class _Page(msgspec.Struct, frozen=True):
    objects: list[ObjectInfo]
    next: str = ""


class HttpStore:
    """An ObjectStore over our server. Thread-safe: every thread has its own connection.

    ``tokens`` is a Session or another TokenProvider. A server that does not answer is waited for until ``patience``
    seconds passed without progress (UnreachableError then); ``on_retry`` is told, and ``cancel`` ends the wait
    with CancelledError. AccessError carries the server's own words. With ``plain_packs`` packs are read by plain HTTP,
    see ``http_plain``; ``surest`` is the same store without that.
    """

    def __init__(
        self,
        url: str,
        *,
        trust: Trust,
        tokens: TokenProvider,
        patience: float = DEFAULT_PATIENCE,
        on_retry: RetryListener | None = None,
        cancel: threading.Event | None = None,
        plain_packs: bool = False,
    ) -> None:
        """Raises AccessError when the server is not the one trusted, UnreachableError, UsageError; NotFoundError when
        it does not offer ``plain_packs``."""
        self.transport = Transport(url, trust, tokens=tokens, patience=patience, on_retry=on_retry, cancel=cancel)
        self.location = self.transport.address.base
        self._session: Session | None = None
        self.surest = self
        self._plain: PlainReads | None = None
        if plain_packs:
            self.surest = copy.copy(self)
            self._plain = PlainReads(self.transport)

    @property
    def readers(self) -> int:
        """See ``failover.first_readers``. A far server gives little to a connection that has just begun, and it takes
        a second to find that out."""
        return _FAR_READERS if self.transport.round_trip > _FAR else _READERS

    def attended(
        self, on_retry: RetryListener, cancel: threading.Event, patience: float | None = None
    ) -> AbstractContextManager[None]:
        """See ``recovery.repository.attention.Attentive``."""
        return self.transport.attended(on_retry, cancel, patience)

    def chunk_index(self) -> HttpChunkIndex:
        """The server's own index of its packs."""
        return HttpChunkIndex(self.transport)

    def close(self) -> None:
        """Close all connections, and the login when it is this store's own."""
        if self._plain is not None:
            self._plain.close()
        self.transport.close()
        if self._session is not None:
            self._session.close()

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """All objects whose name starts with ``prefix`` and that the login may know of, sorted by name."""
        after = ""
        while True:
            reply = self.transport.call("GET", "/v1/list", params={"prefix": prefix, "after": after})
            try:
                page = msgspec.json.decode(reply.body, type=_Page)
            except msgspec.MsgspecError:
                raise UnreachableError(
                    f"What answers at {self.location} is not a Rekindle server.",
                    hint="Check the address and the port.",
                ) from None
            yield from page.objects
            after = page.next
            if not after:
                return

    def size(self, name: str) -> int | None:
        """The object's size, or None when there is no such object."""
        try:
            reply = self.transport.call("HEAD", _path(name))
        except NotFoundError:
            return None
        length = reply.headers.get("Content-Length", "")
        if not length.isdigit():
            raise UnreachableError(
                f"What answers at {self.location} is not a Rekindle server.", hint="Check the address and the port."
            )
        return int(length)

    def get(self, name: str) -> bytes:
        """The whole object."""
        return self.transport.call("GET", _path(name)).body

    def read_into(self, name: str, offset: int, buffer: memoryview) -> None:
        """Fill ``buffer`` from ``offset``; see ObjectReader. The bytes go straight from the socket into it."""
        if self._plain is not None and len(buffer) and name.startswith("packs/"):
            _path(name)
            if self._plain.read_into(name, offset, buffer):
                return
        if len(buffer):
            self.transport.call("GET", _path(name), range_from=offset, into=buffer)

    def read_parts(self, parts: Sequence[Part], buffer: memoryview) -> None:
        """Parts of packs one after another in one request; see PartsReader."""
        for part in parts:
            _path(part.name)
        if self._plain is None or not self._plain.read_parts(parts, buffer):
            self.transport.call("POST", "/v1/read", data=msgspec.json.encode(parts), into=buffer)

    def put_if_absent(self, name: str, data: bytes | bytearray | memoryview) -> bool:
        """Store; the server syncs before it answers. See ObjectStore."""
        return self.transport.call("PUT", _path(name), data=data).status == 201

    def delete(self, name: str) -> None:
        """Remove an object (role admin)."""
        self.transport.call("DELETE", _path(name))

    def leave_report(self, data: bytes) -> None:
        """Leave a notice (JSON) of how a run ended for the server's administrator (role restore, for its host)."""
        self.transport.call("POST", "/v1/reports", data=data)


def connect(
    url: str,
    credentials: Credentials,
    *,
    patience: float = DEFAULT_PATIENCE,
    on_retry: RetryListener | None = None,
) -> HttpStore:
    """Log in and open the store, whose ``close`` ends the login. Raises AccessError, UnreachableError, UsageError;
    NotFoundError when the server does not offer what ``credentials.plain_packs`` wants."""
    trust = trust_of(credentials.ca)
    if credentials.code:
        session = login_code(url, trust, credentials.code)
    else:
        session = login_password(url, trust, credentials.user, credentials.password)
    store = HttpStore(url, trust=trust, tokens=session, patience=patience, on_retry=on_retry,
                      plain_packs=credentials.plain_packs)  # fmt: skip
    store._session = session
    return store


def trust_of(ca: str) -> Trust:
    """A CA fingerprint, or the path of a PEM file, or empty for the system's CAs. Raises UsageError."""
    path = Path(ca)
    if ca and ("/" in ca or ca.endswith((".pem", ".crt")) or path.is_file()):
        try:
            return Trust(ca_pem=path.read_text())
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not text"
            raise UsageError(f"The CA file '{ca}' cannot be read: {why}.", hint="Give a PEM file.") from error
    return Trust(fingerprint=ca)


def _path(name: str) -> str:
    # Checked here too: what is no name has no place in the line of a request.
    if parse_name(name) is None:
        raise NotFoundError(f"'{name}' is not the name of an object.")
    return f"/v1/objects/{name}"
