"""What each request does, apart from sockets: the server's parts put together, and one method a route."""

from __future__ import annotations

import math
from http import HTTPStatus
from pathlib import Path
from typing import Protocol

import msgspec

from recovery import __version__
from recovery.errors import (
    AccessError,
    BusyError,
    IntegrityError,
    NotFoundError,
    RekindleError,
    SpaceError,
    UsageError,
)
from recovery.format.names import ObjectName
from recovery.format.pack import PackEntry
from recovery.format.point import decode_header, verify_point
from recovery.repository.protocols import ObjectInfo
from recovery.units import KIB, MIB
from rekindle_server.checks import CommitChecks, pack_entries, read_journal_header, read_map_header
from rekindle_server.codes import Codes
from rekindle_server.lookup import ChunkLookup
from rekindle_server.metrics import Metrics
from rekindle_server.names import check_prefix, parse_name
from rekindle_server.objects import Objects
from rekindle_server.policy import Action, Grant, allows, may_look_up
from rekindle_server.ratelimit import RateLimiter, address_key, user_key
from rekindle_server.reports import Reports
from rekindle_server.state import State
from rekindle_server.users import IssuedToken, Tokens, Users

#: The largest bodies, by kind of object. A map of a 20 TiB disk has about 1 GiB.
MAX_BODY = {
    "repository": 64 * KIB,
    "key": 64 * KIB,
    "pack": 256 * MIB,
    "map": 2048 * MIB,
    "journal": 512 * MIB,
    "point": 64 * MIB,
}
LIST_PAGE = 5000

_STATUS: dict[type[RekindleError], int] = {
    UsageError: 400,
    AccessError: 403,
    NotFoundError: 404,
    BusyError: 409,
    IntegrityError: 422,
    SpaceError: 507,
}


class HttpError(Exception):
    """An error with the status and headers it is answered with."""

    def __init__(self, status: int, error: RekindleError, headers: dict[str, str] | None = None) -> None:
        super().__init__(error.message)
        self.status = status
        self.error = error
        self.headers = headers or {}


def status_of(error: RekindleError) -> int:
    """The HTTP status of an error."""
    return _STATUS.get(type(error), 500)


class Login(msgspec.Struct, forbid_unknown_fields=True):
    """The body of ``POST /v1/login``: user and password, or a one-time code with the secret of this attempt."""

    user: str = ""
    password: str = ""
    code: str = ""
    attempt: str = ""


class Page(msgspec.Struct):
    """A page of a listing; ``next`` is what to give as ``after`` for the next one, empty on the last."""

    objects: list[ObjectInfo]
    next: str = ""


class Upload(Protocol):
    """The body of a request."""

    length: int

    def readinto(self, view: memoryview, /) -> int: ...


class App:
    """The server without its sockets. Thread-safe."""

    def __init__(self, objects: Objects, state: State, lookup: ChunkLookup, limiter: RateLimiter) -> None:
        self.objects = objects
        self.state = state
        self.lookup = lookup
        self.users = Users(state)
        self.tokens = Tokens(state)
        self.codes = Codes(state)
        self.reports = Reports(state)
        self.checks = CommitChecks(objects)
        self.limiter = limiter
        self.metrics = Metrics()
        facts = msgspec.json.decode(objects.read("repo.json"))
        self.repository_id = str(facts.get("id", "")) if isinstance(facts, dict) else ""
        self._public_key = _unhex(str(facts.get("public_key", ""))) if isinstance(facts, dict) else b""

    # -- access ---------------------------------------------------------------------------------------------------

    def login(self, body: bytes, address: str) -> IssuedToken:
        """A token for a password or a one-time code. Raises HttpError 401 or 429."""
        try:
            login = msgspec.json.decode(body, type=Login)
        except msgspec.MsgspecError:
            raise UsageError("A login is JSON with user and password, or with code.") from None
        if bool(login.code) == bool(login.user):
            raise UsageError("A login needs either user and password, or a one-time code.")
        way = "code" if login.code else "password"
        keys = [address_key(address)] if login.code else [address_key(address), user_key(login.user)]
        wait = math.ceil(self.limiter.wait_time(*keys))
        if wait:
            self.metrics.add("rekindle_logins_total", way=way, result="delayed")
            error = AccessError("Too many failed attempts to log in.", hint=f"Wait {wait} s, then try again.")
            raise HttpError(429, error, {"Retry-After": str(wait)})
        # Counted before the answer is known, or many attempts at once would all be free.
        self.limiter.failed(*keys)
        revocations = self.tokens.revocations()
        try:
            grant = self._redeem(login, address)
            issued = self.tokens.issue(grant, revocations)
        except AccessError as error:
            self.metrics.add("rekindle_logins_total", way=way, result="refused")
            self.state.audit(login.user[:64], address, "login refused", way)
            raise HttpError(401, error) from error
        self.limiter.succeeded(*keys)
        self.metrics.add("rekindle_logins_total", way=way, result="accepted")
        self.state.audit(grant.actor, address, "login", f"{way} {grant.role} {' '.join(grant.hosts)}")
        return issued

    def _redeem(self, login: Login, address: str) -> Grant:
        if login.code:
            grant = self.codes.redeem(login.code, address, login.attempt)
            if grant is None:
                raise AccessError(
                    "This one-time code is not known to the server.",
                    hint="Check it letter by letter (12 characters); the administrator can issue a new one.",
                )
            return grant
        grant = self.users.verify(login.user, login.password)
        if grant is None:
            raise AccessError("User name or password is wrong.", hint="Check both, also the keyboard layout.")
        return grant

    def grant(self, authorization: str | None) -> tuple[Grant, str]:
        """The grant of a request and its token. Raises HttpError 401."""
        scheme, _, token = (authorization or "").partition(" ")
        try:
            if scheme.lower() != "bearer" or not token:
                raise AccessError("The server wants an access token.", hint="Log in first.")
            return self.tokens.check(token), token
        except AccessError as error:
            raise HttpError(401, error, {"WWW-Authenticate": "Bearer"}) from error

    def _require(self, grant: Grant, action: Action, name: str) -> ObjectName:
        parsed = parse_name(name)
        if not allows(grant, action, parsed, lambda digest: digest in self.checks.maps_of(grant.covers)):
            about = f" of host {parsed.host}" if parsed.host else ""
            raise AccessError(
                f"The role '{grant.role}' for hosts {', '.join(grant.hosts)} may not {action} a {parsed.kind}{about}.",
                hint="Log in as a user with another role or for this host; see 'rekindle user list' on the server.",
            )
        return parsed

    # -- objects --------------------------------------------------------------------------------------------------

    def readable(self, grant: Grant, name: str, action: Action) -> str:
        """The name, when it may be read (or stat'ed). Raises UsageError, AccessError."""
        self._require(grant, action, name)
        return name

    def list_page(self, grant: Grant, prefix: str, after: str) -> Page:
        """Objects the grant may know of, LIST_PAGE at most. Raises AccessError for the points of a host not granted.

        An empty answer would let a capture upload everything before it learns that it may not commit.
        """
        check_prefix(prefix)
        top, _, rest = prefix.partition("/")
        host, slash, _ = rest.partition("/")
        if top == "points" and slash and grant.role != "admin" and not grant.covers(host):
            raise AccessError(
                f"The role '{grant.role}' is for hosts {', '.join(grant.hosts)}, not for {host}.",
                hint="Log in as a user for this host; see 'rekindle user list' on the server.",
            )
        own: set[str] | None = None

        def own_map(digest: str) -> bool:
            nonlocal own
            own = self.checks.maps_of(grant.covers) if own is None else own
            return digest in own

        page = Page([])
        for info in self.objects.list(prefix, after):
            if not allows(grant, "stat", parse_name(info.name), own_map):
                continue
            if len(page.objects) == LIST_PAGE:
                page.next = page.objects[-1].name
                break
            page.objects.append(info)
        return page

    def writable(self, grant: Grant, name: str, length: int) -> ObjectName:
        """The name's parts when it may be written with that many bytes. Raises AccessError, HttpError 413."""
        parsed = self._require(grant, "write", name)
        if length > MAX_BODY[parsed.kind]:
            raise HttpError(413, UsageError(f"A {parsed.kind} has at most {MAX_BODY[parsed.kind]} bytes."))
        return parsed

    def put(self, grant: Grant, name: str, parsed: ObjectName, body: Upload, address: str) -> int:
        """Store an upload; 201 when it is new, 200 when it was there."""
        if parsed.kind == "point":
            with self.lookup.store.exclusive(parsed.host):  # of two captures one wins, also against a local one
                outcome = self._receive(name, parsed, body)
        else:
            outcome = self._receive(name, parsed, body)
        self.metrics.add("rekindle_objects_stored_total", kind=parsed.kind, outcome=outcome)
        if parsed.kind not in ("pack", "map", "journal") or outcome == "repaired":
            self.state.audit(grant.actor, address, f"{parsed.kind} {outcome}", name)
        return HTTPStatus.OK if outcome == "same" else HTTPStatus.CREATED

    def _receive(self, name: str, parsed: ObjectName, body: Upload) -> str:
        entries: list[PackEntry] = []

        def check(path: Path) -> None:
            if parsed.kind == "pack":
                entries.extend(pack_entries(path))
            elif parsed.kind == "map":
                self.checks.check_map(read_map_header(path))
            elif parsed.kind == "journal":
                self.checks.check_journal(parsed, read_journal_header(path))
            elif parsed.kind == "point" and self.objects.size(name) is None:
                # A point that is there already is a repeated request, not a second capture.
                data = path.read_bytes()
                header = decode_header(data)
                # A stolen password without the repository's key must not put a forged point on top of the host's.
                verify_point(data, self._public_key)
                self.checks.check_point(parsed, header)

        try:
            outcome = self.objects.receive(name, parsed, body.length, body.readinto, check)
        except NotFoundError as error:
            raise HttpError(HTTPStatus.CONFLICT, error) from error
        if entries:
            self.lookup.add(parsed.digest, entries)
        return outcome

    def delete(self, grant: Grant, name: str, address: str) -> None:
        """Remove an object. Raises NotFoundError, AccessError."""
        self._require(grant, "delete", name)
        self.objects.delete(name)
        self.checks.forget()
        self.lookup.refresh_soon()
        self.state.audit(grant.actor, address, "object deleted", name)

    def look_up(self, grant: Grant, body: bytes) -> bytes:
        """The answer to a chunk look-up."""
        if not may_look_up(grant):
            raise AccessError(f"The role '{grant.role}' may not look up chunks.", hint="Log in with the role capture.")
        return self.lookup.answer(body)

    def info(self) -> dict[str, object]:
        """What anybody may know."""
        return {"server": "rekindle", "version": __version__, "api": 1, "repository": self.repository_id}


def _unhex(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        return b""  # a repo.json that is damaged: no point can be verified, none is taken
