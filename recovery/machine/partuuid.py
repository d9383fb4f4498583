"""What a partition of an MBR is called once its disk has a GPT. Pure.

An MBR has no GUIDs: its PARTUUIDs are the disk's id and the partition's number, ``deadbeef-05``. The GUID that the
partition gets begins with both, ``deadbeef-0005-8...``, so that whoever meets the old name in a configuration can tell
which partition it meant.
"""

from __future__ import annotations

import re
from uuid import UUID

from blake3 import blake3

_MBR = re.compile(r"([0-9a-f]{8})-([0-9a-f]{2})", re.IGNORECASE)


def gpt_guid(identifier: str, number: int, salt: str) -> str:
    """The GUID of partition ``number`` (0: of the disk) of an MBR with this id (8 hex digits). ``salt`` makes it
    differ where two disks share an id. Version 8 of RFC 9562: what is in it is its maker's affair."""
    start = identifier.lower().rjust(8, "0")[-8:]
    rest = blake3(f"{salt} {start} {number}".encode()).hexdigest()
    return str(UUID(f"{start}{number:04x}8{rest[:3]}8{rest[3:18]}"))


def was_called(guid: str, former: str) -> bool:
    """Whether the partition with this GUID was ``former`` (``deadbeef-05``) before its disk got a GPT."""
    found = _MBR.fullmatch(former)
    return found is not None and guid.lower().startswith(f"{found[1].lower()}-{int(found[2], 16):04x}-8")
