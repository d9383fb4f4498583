"""What a LUKS header says without a passphrase: version, cipher, key slots, tokens. Pure apart from the reads.

Layouts: cryptsetup's ``docs/on-disk-format.pdf`` (version 1) and ``docs/on-disk-format-luks2.pdf``.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence

from recovery.capture.ranges import Extent, read_extents
from recovery.errors import IntegrityError
from recovery.layout import LuksVolume

_MAGIC = (b"LUKS\xba\xbe", b"SKUL\xba\xbe")
_SECTOR = 512
_BINARY = 4096
#: The JSON area of LUKS2 is at most 4 MiB.
_LARGEST = 4 * 1024 * 1024
_V1_SLOTS = 8
_V1_ACTIVE = 0x00AC71F3


def read_volume(on: str, where: Sequence[Extent], disk: str, offset: int) -> LuksVolume | None:
    """The encrypted volume that lies in ``where``; None when there is no LUKS header.

    ``disk`` and ``offset`` say where it starts. Raises IntegrityError when the header makes no sense, DeviceError.
    """
    head = read_extents(where, 0, _BINARY)
    if len(head) < _BINARY or head[:6] != _MAGIC[0]:
        return None
    version = int.from_bytes(head[6:8], "big")
    uuid = head[168:208].split(b"\0")[0].decode("ascii", "replace")
    if version == 1:
        return _version_1(head, LuksVolume(on=on, uuid=uuid, version=1, disk=disk, offset=offset))
    if version != 2:
        raise IntegrityError(f"The LUKS header on {on} has the version {version}, which is not known.")
    size = int.from_bytes(head[8:16], "big")
    if not _BINARY < size <= _LARGEST:
        raise IntegrityError(f"The LUKS header on {on} makes no sense: it claims {size} bytes.")
    text = read_extents(where, _BINARY, size - _BINARY).split(b"\0")[0]
    return _version_2(text, LuksVolume(on=on, uuid=uuid, version=2, disk=disk, offset=offset))


def _version_1(head: bytes, plain: LuksVolume) -> LuksVolume:
    name, mode = (head[a:b].split(b"\0")[0].decode("ascii", "replace") for a, b in ((8, 40), (40, 72)))
    slots = sum(struct.unpack_from(">I", head, 208 + 48 * n)[0] == _V1_ACTIVE for n in range(_V1_SLOTS))
    payload = struct.unpack_from(">I", head, 104)[0] * _SECTOR
    return LuksVolume(
        on=plain.on, uuid=plain.uuid, version=1, disk=plain.disk, offset=plain.offset, header=payload,
        cipher=f"{name}-{mode}", slots=slots,
    )  # fmt: skip


def _version_2(text: bytes, plain: LuksVolume) -> LuksVolume:
    try:
        facts = json.loads(text)
        segments = [s for s in facts["segments"].values() if s["type"] == "crypt"]
        slots = facts["keyslots"].values()
        return LuksVolume(
            on=plain.on,
            uuid=plain.uuid,
            version=2,
            disk=plain.disk,
            offset=plain.offset,
            header=min((int(s["offset"]) for s in segments), default=0),
            cipher=str(segments[0]["encryption"]) if segments else "",
            slots=len(slots),
            # In KiB there.
            memory=max((int(slot["kdf"].get("memory", 0)) * 1024 for slot in slots), default=0),
            tokens=tuple(sorted({str(token["type"]) for token in facts["tokens"].values()})),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise IntegrityError(f"The LUKS2 header on {plain.on} cannot be read: {error!r}.") from error
