"""Object names: what may be stored under which name. Exact grammar: docs/format.md, "Objects".

``repo.json`` · ``keys/<id>.json`` · ``packs/<aa>/<name>`` · ``maps/<name>`` · ``journals/<host>/<name>`` ·
``points/<host>/<created>-<id>``, where ``<name>`` and a point's ``<id>`` are the hex BLAKE3-256 of the object's bytes,
``<aa>`` is the name's first two characters, and ``<created>`` is 16 digits: microseconds since the epoch (UTC).
"""

from __future__ import annotations

import re
from typing import Literal

import blake3
import msgspec

from recovery.errors import UsageError

Kind = Literal["repository", "key", "pack", "map", "journal", "point"]

REPOSITORY = "repo.json"
_HEX = r"[0-9a-f]{64}"
_HOST = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
_PATTERNS: tuple[tuple[Kind, re.Pattern[str]], ...] = (
    ("repository", re.compile(r"repo\.json")),
    ("key", re.compile(r"keys/(?P<digest>[0-9a-f]{16})\.json")),
    ("pack", re.compile(rf"packs/(?P<aa>[0-9a-f]{{2}})/(?P<digest>{_HEX})")),
    ("map", re.compile(rf"maps/(?P<digest>{_HEX})")),
    ("journal", re.compile(rf"journals/(?P<host>{_HOST})/(?P<digest>{_HEX})")),
    ("point", re.compile(rf"points/(?P<host>{_HOST})/(?P<created>[0-9]{{16}})-(?P<digest>{_HEX})")),
)


class ObjectName(msgspec.Struct, frozen=True, kw_only=True):
    """A name taken apart. ``digest`` is the hex BLAKE3-256 that the bytes must have (a key file's id is not a digest
    of its bytes); ``created`` is microseconds since the epoch."""

    kind: Kind
    digest: str = ""
    host: str = ""
    created: int = 0


def parse_name(name: str) -> ObjectName | None:
    """Take a name apart; None when no object can have it (also for traversal, absolute and odd names)."""
    for kind, pattern in _PATTERNS:
        match = pattern.fullmatch(name)
        if match:
            parts = match.groupdict()
            if kind == "pack" and not parts["digest"].startswith(parts["aa"]):
                return None
            return ObjectName(
                kind=kind,
                digest=parts.get("digest") or "",
                host=parts.get("host") or "",
                created=int(parts.get("created") or 0),
            )
    return None


def digest(data: bytes | bytearray | memoryview) -> str:
    """The hex BLAKE3-256 that names an object."""
    return blake3.blake3(data).hexdigest()


def pack_name(digest: str) -> str:
    """The object name of the pack with this digest."""
    return f"packs/{digest[:2]}/{digest}"


def map_name(digest: str) -> str:
    """The object name of the chunk map with this digest."""
    return f"maps/{digest}"


def journal_name(host: str, digest: str) -> str:
    """The object name of a journal of one of the host's disks."""
    return f"journals/{host}/{digest}"


def key_name(key_id: str) -> str:
    """The object name of a wrapped key."""
    return f"keys/{key_id}.json"


def point_name(host: str, created: float, digest: str) -> str:
    """The object name of a recovery point; ``created`` is seconds since the epoch."""
    return f"points/{host}/{round(created * 1e6):016d}-{digest}"


def check_host(host: str) -> str:
    """The host name itself when it can name a host in a repository. Raises UsageError."""
    if not re.fullmatch(_HOST, host):
        raise UsageError(
            f"'{host}' cannot be a host's name.",
            hint="Use letters, digits, '.', '-' and '_', at most 64 characters, beginning with a letter or digit.",
        )
    return host
