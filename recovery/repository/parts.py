"""Many small parts of objects in one request, where the store can do that: what an old repository consists of."""

from __future__ import annotations

from collections.abc import Sequence

from recovery.repository.failover import FailoverStore
from recovery.repository.protocols import ObjectReader, Part, PartsReader

#: In one request.
MAX_PARTS = 256


def gathers(store: ObjectReader) -> bool:
    """Whether parts cost the store no request each: then nothing has to be read that is not wanted."""
    first = store.copies[0] if isinstance(store, FailoverStore) else store
    return isinstance(first, PartsReader)


def read_parts(store: ObjectReader, parts: Sequence[Part], buffer: memoryview) -> None:
    """Fill ``buffer`` with all ``parts`` one after another; a FailoverStore takes all of them from one copy.

    Raises as ObjectReader.read_into does.
    """
    if len(parts) > 1 and isinstance(store, FailoverStore):
        store.first(parts[0].name, lambda copy: read_parts(copy, parts, buffer))
    elif len(parts) > 1 and isinstance(store, PartsReader):
        store.read_parts(parts, buffer)
    else:
        start = 0
        for part in parts:
            store.read_into(part.name, part.offset, buffer[start : start + part.length])
            start += part.length
