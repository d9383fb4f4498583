"""Registry hives made from nothing: a header, one bin, the root key and its security descriptor, as hivex wants them
to begin with. No file of Microsoft is needed; keys and values are added by hivex itself."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

#: key path -> name -> value: a number becomes a REG_DWORD, a text a REG_SZ, bytes a REG_BINARY.
Keys = Mapping[str, Mapping[str, int | str | bytes]]

_PAGE = 4096
#: Self-relative, with neither owner nor group nor list: SE_SELF_RELATIVE alone.
_DESCRIPTOR = struct.pack("<BBHIIII", 1, 0, 0x8000, 0, 0, 0, 0)


def empty_hive(path: Path) -> Path:
    """A hive with nothing but a root key."""
    first = 0x20
    name = b"ROOT"
    security = first + len(_cell(bytes(0x4C) + name))
    none = 0xFFFFFFFF
    root = _cell(
        b"nk"
        + struct.pack("<HQ", 0x2C, 0)  # the root, whose name is not in UTF-16
        + struct.pack("<15I", 0, 0, 0, 0, none, none, 0, none, security, none, 0, 0, 0, 0, 0)
        + struct.pack("<HH", len(name), 0)
        + name
    )
    descriptor = _cell(b"sk" + struct.pack("<HIIII", 0, security, security, 1, len(_DESCRIPTOR)) + _DESCRIPTOR)
    used = first + len(root) + len(descriptor)
    free = struct.pack("<i", _PAGE - used).ljust(_PAGE - used, b"\0")
    bin_ = b"hbin" + struct.pack("<IIQQI", 0, _PAGE, 0, 0, 0) + root + descriptor + free
    header = bytearray(_PAGE)
    struct.pack_into("<4sIIQIIIIIII", header, 0, b"regf", 1, 1, 0, 1, 5, 0, 1, first, _PAGE, 1)
    checksum = 0
    for (word,) in struct.iter_unpack("<I", header[:508]):
        checksum ^= word
    struct.pack_into("<I", header, 508, checksum)
    path.write_bytes(bytes(header) + bin_)
    return path


def make_hive(path: Path, keys: Keys) -> Path:
    """A hive with these keys; those on the way are made."""
    import hivex

    hive: Any = hivex.Hivex(str(empty_hive(path)), write=True)
    for name, values in keys.items():
        node = hive.root()
        for part in name.split("/"):
            node = hive.node_get_child(node, part) or hive.node_add_child(node, part)
        hive.node_set_values(node, [{"key": key, "t": _kind(value), "value": _data(value)}
                                    for key, value in values.items()])  # fmt: skip
    hive.commit(None)
    return path


def _cell(data: bytes) -> bytes:
    """An allocated cell: its size, negative, in steps of 8 bytes."""
    size = (len(data) + 4 + 7) // 8 * 8
    return struct.pack("<i", -size) + data.ljust(size - 4, b"\0")


def _kind(value: int | str | bytes) -> int:
    return 4 if isinstance(value, int) else 1 if isinstance(value, str) else 3


def _data(value: int | str | bytes) -> bytes:
    if isinstance(value, int):
        return struct.pack("<I", value)
    return (value + "\0").encode("utf-16-le") if isinstance(value, str) else value
