"""Users and their tokens. Passwords are kept as Argon2id hashes, tokens as SHA-256 of 256 random bits."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import sqlite3
import threading

import msgspec
from cryptography.exceptions import InvalidKey
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from recovery.errors import AccessError, NotFoundError, UsageError
from rekindle_server.policy import Grant, Role, as_role
from rekindle_server.state import State

#: Seconds a token lasts; a renewal starts it anew, up to MAX_LIFETIME after the login.
TOKEN_SECONDS = 3600.0
MAX_LIFETIME = 7 * 86400.0
#: RFC 9106's second choice: 64 MiB, three passes, four lanes.
_MEMORY_KIB, _PASSES, _LANES = 65536, 3, 4
MIN_PASSWORD = 10
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_GLOB = re.compile(r"[A-Za-z0-9._*?\[\]!-]{1,255}")
#: At most this many passwords and codes are hashed at once: each takes up to 64 MiB.
hashing = threading.BoundedSemaphore(2)


class User(msgspec.Struct, frozen=True, kw_only=True):
    """A user as lists show it."""

    name: str
    role: Role
    hosts: tuple[str, ...]
    created: float


class IssuedToken(msgspec.Struct, frozen=True, kw_only=True):
    """A token as it is handed out, once. ``expires`` and ``renewable_until`` are seconds since the epoch, ``seconds``
    is how long it lasts from now: the client's clock may be wrong."""

    token: str
    role: Role
    hosts: tuple[str, ...]
    expires: float
    seconds: float
    renewable_until: float


def hash_password(password: str) -> str:
    """The Argon2id hash in PHC form. Raises UsageError for a password that is too short."""
    if len(password) < MIN_PASSWORD:
        raise UsageError(
            f"The password is shorter than {MIN_PASSWORD} characters.", hint="Choose a longer one; a sentence is fine."
        )
    with hashing:
        kdf = Argon2id(salt=os.urandom(16), length=32, iterations=_PASSES, lanes=_LANES, memory_cost=_MEMORY_KIB)
        return kdf.derive_phc_encoded(password.encode())


#: Compared against when there is no such user, so that the answer takes as long.
_NOBODY = (
    f"$argon2id$v=19$m={_MEMORY_KIB},t={_PASSES},p={_LANES}$AAAAAAAAAAAAAAAAAAAAAA"
    "$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
)


def check_hosts(globs: tuple[str, ...]) -> tuple[str, ...]:
    """The globs; all hosts when there are none. Raises UsageError."""
    for glob in globs:
        if _GLOB.fullmatch(glob) is None:
            raise UsageError(
                f"'{glob}' is not a host name or pattern.", hint="Write a name, or a pattern such as pve-*."
            )
    return globs or ("*",)


class Users:
    """The users of a server."""

    def __init__(self, state: State) -> None:
        self._state = state

    def add(self, name: str, role: Role, hosts: tuple[str, ...], password: str) -> User:
        """A new user. Raises UsageError when the name is taken or bad, or the password too short."""
        if _NAME.fullmatch(name) is None:
            raise UsageError(f"'{name}' is not a user name.", hint="Use letters, digits and . _ @ - (at most 64).")
        user = User(name=name, role=role, hosts=check_hosts(hosts), created=self._state.clock())
        hashed = hash_password(password)
        with self._state.transaction() as db:
            taken = db.execute("SELECT 1 FROM users WHERE name = ?", (name,)).fetchone()
            if taken:
                raise UsageError(f"There is a user '{name}' already.", hint="See 'rekindle user list'.")
            row = (name, role, json.dumps(user.hosts), hashed, user.created)
            db.execute("INSERT INTO users VALUES (?, ?, ?, ?, ?)", row)
        self._state.audit("console", "", "user added", f"{name} {role} {' '.join(user.hosts)}")
        return user

    def remove(self, name: str) -> None:
        """Remove the user and its tokens. Raises NotFoundError."""
        with self._state.transaction() as db:
            if db.execute("DELETE FROM users WHERE name = ?", (name,)).rowcount == 0:
                raise unknown_user(name)
            end_tokens(db, name)
        self._state.audit("console", "", "user removed", name)

    def set_password(self, name: str, password: str) -> None:
        """Change the password and end every token of the user. Raises NotFoundError, UsageError."""
        hashed = hash_password(password)
        with self._state.transaction() as db:
            if db.execute("UPDATE users SET password = ? WHERE name = ?", (hashed, name)).rowcount == 0:
                raise unknown_user(name)
            end_tokens(db, name)
        self._state.audit("console", "", "password changed", name)

    def list(self) -> list[User]:
        """All users by name."""
        rows = self._state.rows("SELECT * FROM users ORDER BY name")
        return [
            User(name=r["name"], role=as_role(r["role"]), hosts=tuple(json.loads(r["hosts"])), created=r["created"])
            for r in rows
        ]

    def verify(self, name: str, password: str) -> Grant | None:
        """The user's grant, or None when name or password is wrong; both take the same time."""
        rows = self._state.rows("SELECT * FROM users WHERE name = ?", name)
        stored = rows[0]["password"] if rows else _NOBODY
        try:
            with hashing:
                Argon2id.verify_phc_encoded(password.encode(), stored)
        except InvalidKey:
            return None
        if not rows:
            return None
        return Grant(actor=name, role=as_role(rows[0]["role"]), hosts=tuple(json.loads(rows[0]["hosts"])))


def unknown_user(name: str) -> NotFoundError:
    """The error for a user that does not exist."""
    return NotFoundError(f"There is no user '{name}'.", hint="See 'rekindle user list'.")


class Tokens:
    """Opaque bearer tokens. They survive a restart of the server."""

    def __init__(self, state: State, lifetime: float = TOKEN_SECONDS) -> None:
        self._state = state
        self._lifetime = lifetime

    def revocations(self) -> int:
        """How often tokens of somebody were ended. To be asked before a password or code is compared, for issue()."""
        rows = self._state.rows("SELECT value FROM meta WHERE key = 'revocations'")
        return int(rows[0]["value"]) if rows else 0

    def issue(self, grant: Grant, revocations: int | None = None) -> IssuedToken:
        """A new token for the grant. Raises SpaceError, and AccessError when tokens were ended since ``revocations``.

        Comparing a password takes long enough for its user to be removed meanwhile, and such a token would live on.
        """
        token = "rkt_" + secrets.token_urlsafe(32)
        now = self._state.clock()
        row = (_hash(token), grant.actor, grant.role, json.dumps(grant.hosts), now, now + self._lifetime, MAX_LIFETIME)
        with self._state.transaction() as db:
            if revocations is not None and revocations != self.revocations():
                raise AccessError("Users or codes were changed during this login.", hint="Log in again.")
            db.execute("DELETE FROM tokens WHERE expires < ?", (now - 86400,))
            db.execute("INSERT INTO tokens VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        return IssuedToken(
            token=token,
            role=grant.role,
            hosts=grant.hosts,
            expires=now + self._lifetime,
            seconds=self._lifetime,
            renewable_until=now + MAX_LIFETIME,
        )

    def check(self, token: str) -> Grant:
        """What the token allows. Raises AccessError when it is unknown, expired or revoked."""
        rows = self._state.rows("SELECT * FROM tokens WHERE hash = ?", _hash(token))
        if not rows:
            raise AccessError("This access token is not valid.", hint="Log in again.")
        if rows[0]["expires"] <= self._state.clock():
            raise AccessError(
                "This access token has expired.",
                hint="Log in again, or ask the administrator for a new one-time code.",
            )
        row = rows[0]
        return Grant(actor=row["actor"], role=as_role(row["role"]), hosts=tuple(json.loads(row["hosts"])))

    def revoke(self, token: str) -> None:
        """End the token."""
        with self._state.transaction() as db:
            db.execute("DELETE FROM tokens WHERE hash = ?", (_hash(token),))

    def renew(self, token: str) -> IssuedToken:
        """Start the token's lifetime anew, up to its end. Raises AccessError as check() does."""
        grant = self.check(token)
        now = self._state.clock()
        with self._state.transaction() as db:
            db.execute(
                "UPDATE tokens SET expires = min(?, issued + lifetime) WHERE hash = ?",
                (now + self._lifetime, _hash(token)),
            )
            row = db.execute(
                "SELECT expires, issued + lifetime FROM tokens WHERE hash = ?", (_hash(token),)
            ).fetchone()
        return IssuedToken(
            token=token,
            role=grant.role,
            hosts=grant.hosts,
            expires=row["expires"],
            seconds=max(0.0, row["expires"] - now),
            renewable_until=row[1],
        )


def end_tokens(db: sqlite3.Connection, actor: str) -> None:
    """End every token of a user or code, and of whoever is logging in at this moment."""
    db.execute("DELETE FROM tokens WHERE actor = ?", (actor,))
    db.execute("INSERT INTO meta VALUES ('revocations', 1) ON CONFLICT (key) DO UPDATE SET value = meta.value + 1")


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
