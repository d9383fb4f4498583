"""One-time codes: what an administrator reads to somebody standing in front of a dead host.

A code is 60 random bits as ``XXXX-XXXX-XXXX`` in Crockford's base32 (no I, L, O, U). It opens the repository once, for
restoring one host, before it expires. Stored is its Argon2id hash under one salt per server, so that an
attempt is hashed once and compared with every open code.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets

import msgspec
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from recovery.errors import AccessError, NotFoundError, UsageError
from recovery.format.names import check_host
from rekindle_server.policy import Grant
from rekindle_server.state import State
from rekindle_server.users import end_tokens, hashing

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
LENGTH = 12
MAX_VALID = 30 * 86400.0
#: How long the same use of a code may be repeated.
REPEAT_SECONDS = 600.0
#: What people type for what they read.
_LOOKALIKES = str.maketrans({"O": "0", "I": "1", "L": "1", "U": "V"})


class OneTimeCode(msgspec.Struct, frozen=True, kw_only=True):
    """A code as lists show it, without the code. ``state`` is open, used, expired or revoked."""

    id: str
    host: str
    issued: float
    expires: float
    state: str
    used_from: str = ""


def normalize(text: str) -> str:
    """A typed code in canonical form: upper case, no separators, look-alikes resolved."""
    return re.sub(r"[\s-]", "", text).upper().translate(_LOOKALIKES)


def pretty(code: str) -> str:
    """Grouped by four."""
    return "-".join(code[i : i + 4] for i in range(0, len(code), 4))


class Codes:
    """The one-time codes of a server."""

    def __init__(self, state: State) -> None:
        self._state = state

    def issue(self, host: str, valid: float) -> tuple[OneTimeCode, str]:
        """A new code for one host and its printable form, shown once. ``valid`` seconds. Raises UsageError."""
        check_host(host)
        if not 0 < valid <= MAX_VALID:
            raise UsageError("A one-time code lasts at most 30 days.", hint="Use --valid, for example --valid 24h.")
        code = "".join(secrets.choice(ALPHABET) for _ in range(LENGTH))
        now = self._state.clock()
        entry = OneTimeCode(id=secrets.token_hex(4), host=host, issued=now, expires=now + valid, state="open")
        hashed = self._hash(code)
        with self._state.transaction() as db:
            db.execute(
                "INSERT INTO codes VALUES (?, ?, ?, ?, ?, NULL, NULL, NULL, NULL)",
                (entry.id, hashed, host, now, now + valid),
            )
        self._state.audit("console", "", "code issued", f"{entry.id} {host}")
        return entry, pretty(code)

    def list(self) -> list[OneTimeCode]:
        """All codes of the last 30 days, newest last."""
        now = self._state.clock()
        rows = self._state.rows("SELECT * FROM codes WHERE expires > ? ORDER BY issued", now - MAX_VALID)
        return [
            OneTimeCode(
                id=r["id"],
                host=r["host"],
                issued=r["issued"],
                expires=r["expires"],
                used_from=r["used_from"] or "",
                state="revoked"
                if r["revoked"]
                else "used"
                if r["used"]
                else "expired"
                if r["expires"] <= now
                else "open",
            )
            for r in rows
        ]

    def revoke(self, code_id: str) -> None:
        """End a code and every token that came from it. Raises NotFoundError."""
        with self._state.transaction() as db:
            now = self._state.clock()
            if db.execute("UPDATE codes SET revoked = ? WHERE id = ?", (now, code_id)).rowcount == 0:
                raise NotFoundError(f"There is no one-time code '{code_id}'.", hint="See 'rekindle code list'.")
            end_tokens(db, _actor(code_id))
        self._state.audit("console", "", "code revoked", code_id)

    def redeem(self, typed: str, address: str, attempt: str = "") -> Grant | None:
        """Use up a code; None when it is unknown or misshapen. Raises AccessError when used, expired or revoked.

        ``attempt`` is a secret that the client made for this use: the same use may be repeated for a few minutes, in
        case the network lost the answer.
        """
        code = normalize(typed)
        if len(code) != LENGTH or any(c not in ALPHABET for c in code):
            return None
        hashed = self._hash(code)
        with self._state.transaction() as db:
            found = None
            # Every stored code is compared, each in constant time: how long it takes says nothing.
            for row in db.execute("SELECT * FROM codes"):
                if hmac.compare_digest(row["hash"], hashed):
                    found = row
            if found is None:
                return None
            now = self._state.clock()
            marked = hashlib.sha256(attempt.encode()).digest() if attempt else b""
            repeated = found["used"] and marked and hmac.compare_digest(found["attempt"] or b"", marked)
            if repeated and not found["revoked"] and now < found["used"] + REPEAT_SECONDS:
                return Grant(actor=_actor(found["id"]), role="restore", hosts=(found["host"],))
            if found["used"] or found["revoked"] or found["expires"] <= now:
                why = "was used already" if found["used"] else "was revoked" if found["revoked"] else "has expired"
                raise AccessError(
                    f"This one-time code {why}.", hint="Ask the administrator for a new one ('rekindle code issue')."
                )
            used = (now, address, marked, found["id"])
            db.execute("UPDATE codes SET used = ?, used_from = ?, attempt = ? WHERE id = ?", used)
        return Grant(actor=_actor(found["id"]), role="restore", hosts=(found["host"],))

    def _hash(self, code: str) -> bytes:
        salt = self._state.rows("SELECT value FROM meta WHERE key = 'code-salt'")[0]["value"]
        with hashing:
            return Argon2id(salt=salt, length=32, iterations=2, lanes=1, memory_cost=19456).derive(code.encode())


def _actor(code_id: str) -> str:
    # '#' cannot stand in a user's name.
    return f"#code-{code_id}"
