"""The ChunkIndex that asks our server. Binary, because a capture asks about millions of chunks."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from recovery.errors import UnreachableError
from recovery.repository.protocols import ChunkLocation
from recovery.repository.transport import Transport

_ID_SIZE = 32
#: present, pack, offset, length; see docs/architecture.md
_ANSWER = struct.Struct("<B32sII")
#: Ids a request: 256 KiB out, 330 KiB back.
_BATCH = 8192


class HttpChunkIndex:
    """Answers which chunks the server has. Thread-safe."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def lookup(self, ids: Sequence[bytes]) -> list[ChunkLocation | None]:
        """The location of each chunk id, or None. Raises AccessError (role restore), UnreachableError."""
        found: list[ChunkLocation | None] = []
        for start in range(0, len(ids), _BATCH):
            batch = ids[start : start + _BATCH]
            reply = self._transport.call("POST", "/v1/chunks/lookup", data=b"".join(batch))
            if len(batch) * _ID_SIZE and len(reply.body) != len(batch) * _ANSWER.size:
                raise UnreachableError(
                    "The server's answer about chunks makes no sense.", hint="Check the address and the port."
                )
            for present, pack, offset, length in _ANSWER.iter_unpack(reply.body):
                found.append(ChunkLocation(pack, offset, length) if present else None)
        return found

    def add(self, ids: Sequence[bytes], locations: Sequence[ChunkLocation]) -> None:
        """Nothing to do: the server read the pack's footer when it took the pack."""
