"""Object names as they come from the network: checked against the grammar of the format, refused otherwise. Pure."""

from __future__ import annotations

import re

from recovery.errors import UsageError
from recovery.format import names
from recovery.format.names import ObjectName

#: Each part ends where its slash is, so there is one way only to match: no text takes more than one pass.
_PREFIX = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9._-]*/)*(?:[A-Za-z0-9][A-Za-z0-9._-]*)?")

#: The folders and the file that hold objects; nothing else in the directory is ever listed or served.
TOP_LEVEL = ("journals", "keys", "maps", "packs", "points", names.REPOSITORY)


def parse_name(name: str) -> ObjectName:
    """The parts of an object's name. Raises UsageError for anything outside the grammar."""
    parsed = names.parse_name(name)
    if parsed is None:
        raise UsageError("This is not the name of an object.", hint="See docs/format.md, 'Objects'.")
    return parsed


def check_prefix(prefix: str) -> str:
    """The prefix itself. Raises UsageError when it could not begin an object's name."""
    if len(prefix) > 512 or _PREFIX.fullmatch(prefix) is None:
        raise UsageError("This is not the beginning of an object's name.")
    return prefix
