"""Packs that no point needs and that will be deleted after a while: until then no new point builds on them.

A mark is an empty object ``condemned/<pack>`` beside the packs, made at the time of its file (docs/format.md,
"Objects"). A capture that had found a chunk in the pack before the mark was made has until the deletion to commit its
point; then the pack is needed again and the mark goes.
"""

from __future__ import annotations

import re

from recovery.repository.protocols import ObjectReader

PREFIX = "condemned/"
_DIGEST = re.compile(r"[0-9a-f]{64}")


def condemned(store: ObjectReader) -> set[bytes]:
    """The names (32 bytes) of the packs that are marked."""
    digests = (info.name.removeprefix(PREFIX) for info in store.list(PREFIX))
    return {bytes.fromhex(digest) for digest in digests if _DIGEST.fullmatch(digest)}
