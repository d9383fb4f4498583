"""Who may do what. Pure: a grant, an action and an object's name in; yes or no out."""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Literal, get_args

import msgspec

from recovery.errors import UsageError
from recovery.format.names import ObjectName

Role = Literal["capture", "restore", "admin"]
Action = Literal["read", "stat", "write", "delete"]

ROLES: tuple[Role, ...] = get_args(Role)


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """What a token allows: a role, limited to the hosts that match one of the globs. ``actor`` is for logs."""

    actor: str
    role: Role
    hosts: tuple[str, ...]

    def covers(self, host: str) -> bool:
        """Whether the host is one of this grant's."""
        return any(fnmatchcase(host, glob) for glob in self.hosts)


def as_role(text: str) -> Role:
    """The role of that name. Raises UsageError."""
    for role in ROLES:
        if role == text:
            return role
    raise UsageError(f"'{text}' is not a role.", hint=f"Roles are {', '.join(ROLES)}.")


def allows(grant: Grant, action: Action, thing: ObjectName, own_map: Callable[[str], bool]) -> bool:
    """Whether the grant allows the action; ``stat`` is to know that an object exists and its size.

    ``own_map(digest)`` says whether a map belongs to a point of the grant's hosts; it is asked only when it matters.
    Packs are shared by all hosts (deduplication) and encrypted, so a restore may read any, but only the maps of its
    own hosts, which say what lies where; a stolen capture credential can read no pack and no journal, and can neither
    overwrite nor delete anything.
    """
    if grant.role == "admin":
        return True
    if thing.kind in ("point", "journal") and not grant.covers(thing.host):
        return False
    if grant.role == "restore":
        return action in ("read", "stat") and (thing.kind != "map" or own_map(thing.digest))
    if action == "write":
        return thing.kind in ("pack", "map", "journal", "point")
    if action == "stat" and thing.kind in ("pack", "journal"):
        return True
    if action in ("read", "stat"):
        return thing.kind in ("repository", "key", "point") or (thing.kind == "map" and own_map(thing.digest))
    return False


def may_look_up(grant: Grant) -> bool:
    """Whether the grant may ask which chunks are stored."""
    return grant.role in ("capture", "admin")
