"""Signed reads of packs: what client and server agree on. Pure.

A token never travels in the clear. Over TLS the client gets a key for the time of its login; with it it signs each
single read, so who overhears one can repeat just this read, and until it expires: bytes that he has seen already.
"""

from __future__ import annotations

import hashlib
import hmac
from urllib.parse import urlencode

import msgspec

#: The path of a pack on the port for plain reads: PACKS + its object name.
PACKS = "/v1/signed/"
#: For how many seconds a signed read is good: it goes out at once, but a busy server may answer late.
LIFETIME = 60


class SignedReads(msgspec.Struct, frozen=True):
    """What the server gives over TLS. ``key`` signs, ``session`` says whose it is; ``port`` is for plain HTTP on the
    same host; ``now`` is the server's clock in seconds since the epoch (a dead host's may be years off)."""

    session: str
    key: bytes
    port: int
    now: int


def signature(key: bytes, name: str, range: str, expires: int) -> str:
    """HMAC-SHA256 (hex) of a read of the object ``name`` (or ``parts_name``), with the Range header ``range``,
    until ``expires``."""
    # One line each: none of the three can hold a line break, so no two reads have the same text.
    text = f"rekindle signed read 1\n{name}\n{range}\n{expires}\n"
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


def parts_name(body: bytes) -> str:
    """What is signed, and stands in the path, for parts that the body names: no object has such a name."""
    return f"parts/{hashlib.sha256(body).hexdigest()}"


def signed_path(given: SignedReads, name: str, range: str, expires: int) -> str:
    """The path and query of a signed read."""
    query = {"session": given.session, "expires": expires, "signature": signature(given.key, name, range, expires)}
    return f"{PACKS}{name}?{urlencode(query)}"
