"""Many parts of packs in one answer: a virtual object that consists of them, one after another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from recovery.errors import IntegrityError, UsageError
from recovery.repository.parts import MAX_PARTS
from recovery.repository.protocols import Part
from recovery.units import KIB, MIB
from rekindle_server.app import HttpError
from rekindle_server.objects import Objects

MAX_BODY = 64 * KIB
#: Bytes in all parts.
MAX_TOTAL = 256 * MIB


def decode_parts(body: bytes) -> list[Part]:
    """The parts that a request names. Raises UsageError."""
    try:
        parts = msgspec.json.decode(body, type=list[Part])
    except msgspec.MsgspecError:
        raise UsageError("Parts are a JSON list of [name, offset, length].") from None
    if not 0 < len(parts) <= MAX_PARTS:
        raise UsageError(f"Between 1 and {MAX_PARTS} parts can be read at once.")
    if any(part.offset < 0 or part.length <= 0 for part in parts) or sum(part.length for part in parts) > MAX_TOTAL:
        raise UsageError(f"Parts have an offset, a length, and {MAX_TOTAL} bytes at most.")
    return parts


def check_parts(objects: Objects, parts: Sequence[Part]) -> int:
    """Bytes of all parts, when all of them are there. Raises NotFoundError, HttpError 416."""
    sizes: dict[str, int] = {}
    for part in parts:
        if part.name not in sizes:
            file, sizes[part.name] = objects.open(part.name)
            file.close()
        if part.offset + part.length > sizes[part.name]:
            error = IntegrityError(
                f"The object {part.name} has only {sizes[part.name]} bytes.",
                hint="Check the repository with 'rekindle repo check'.",
            )
            raise HttpError(416, error)
    return sum(part.length for part in parts)


def cut(parts: Sequence[Part], start: int, end: int) -> Iterator[Part]:
    """What of the parts lies between ``start`` and ``end`` of the virtual object. Pure."""
    at = 0
    for part in parts:
        first, last = max(start, at), min(end, at + part.length)
        if first < last:
            yield Part(part.name, part.offset + first - at, last - first)
        at += part.length
