"""Whether an image file's own header makes QEMU open further files. Pure.

The first bytes of a raw image belong to the guest: it can write there a header of another format that names any file
of the machine that captures, and QEMU, asked to guess the format, would read that file into the recovery point.
"""

from __future__ import annotations

import re
from typing import Literal

#: How many bytes from the start of the file ``names_other_files`` wants; QEMU looks for these names in 11 KiB.
HEAD_BYTES = 128 * 1024

_EXTERNAL_DATA_FILE = 1 << 2
#: What QEMU takes for the text of a VMDK: comments and blank lines, then the version.
_VMDK_TEXT = re.compile(rb"(?:#[^\n]*\n|[ ]*\r?\n)*version=")


def names_other_files(head: bytes) -> str:
    """What the header names ("a backing file", ...), or empty. ``head`` is the file's first HEAD_BYTES, or all of it.

    When in doubt it names something: the operator can still say what the format is.
    """
    if head.startswith(b"QFI\xfb"):
        # Versions 1 to 3 have the offset of the backing file's name at the same place.
        if _number(head, 8, 8, "big"):
            return "a backing file"
        external = _number(head, 4, 4, "big") >= 3 and _number(head, 72, 8, "big") & _EXTERNAL_DATA_FILE
        return "an external data file" if external else ""
    if head.startswith(b"QED\0"):
        return "a backing file" if _number(head, 16, 8, "little") & 1 else ""
    if head.startswith((b"KDMV", b"COWD")):
        if b"parentfilenamehint" in head.lower():
            return "a parent image"
        # Without a capacity it is no disk: it wraps the text that lists the extents.
        return "other files as its extents" if head[:1] == b"K" and not _number(head, 12, 8, "little") else ""
    return "other files as its extents" if _VMDK_TEXT.match(head) else ""


def _number(head: bytes, at: int, length: int, order: Literal["big", "little"]) -> int:
    return int.from_bytes(head[at : at + length], order)
