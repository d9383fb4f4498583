"""Packs that a check found damaged: they stay, for what is still good in them, but no new point builds on them.

A mark is an empty object ``distrusted/<pack>`` beside the packs (docs/format.md, "Objects"). It is kept outside the
names that servers list and serve, and needs no keys.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from recovery.repository.protocols import ObjectReader, ObjectStore

_PREFIX = "distrusted/"
_DIGEST = re.compile(r"[0-9a-f]{64}")


def distrusted(store: ObjectReader) -> set[bytes]:
    """The names (32 bytes) of the packs that are marked."""
    digests = (info.name.removeprefix(_PREFIX) for info in store.list(_PREFIX))
    return {bytes.fromhex(digest) for digest in digests if _DIGEST.fullmatch(digest)}


def distrust(store: ObjectStore, digests: Iterable[str]) -> int:
    """Mark these packs (hex digests); returns how many were not marked before. Raises what the store raises."""
    return sum(store.put_if_absent(_PREFIX + digest, b"") for digest in digests)
