"""Put the manifest (``recovery.medium.manifest``) into a finished ISO."""

from __future__ import annotations

import hashlib
import re
import struct
from pathlib import Path

from recovery.errors import CommandError
from recovery.medium.manifest import (
    POINTER_OFFSET,
    POINTER_SIZE,
    Image,
    Region,
    cut,
    encode,
    encode_pointer,
)
from rekindle_image.workshop import Workshop

NAME = "rekindle/MANIFEST"
#: Room for 600 lines: a medium of 2 GiB has as many pieces.
RESERVED = 64 * 1024


def reserve(tree: Path) -> None:
    """The manifest's place in the tree that becomes the ISO."""
    (tree / NAME).write_bytes(b"\n" * RESERVED)


def file_extents(report: str) -> list[tuple[int, int, str]]:
    """(offset, bytes, path) of each file, from ``xorriso -find / -type f -exec report_lba``. Pure."""
    rows = re.findall(r"^File data lba: *\d+ *, *(\d+) *, *\d+ *, *(\d+) *, *'(.*)'$", report, re.MULTILINE)
    return [(int(block) * 2048, int(size), path) for block, size, path in rows if int(size)]


def efi_partition(iso: Path) -> tuple[int, int, str]:
    """(offset, bytes, name) of the second partition of the image's GPT (UEFI 2.10, 5.3)."""
    with iso.open("rb") as file:
        file.seek(1024 + 128)
        first, last = struct.unpack_from("<QQ", file.read(128), 32)
    return first * 512, (last - first + 1) * 512, "EFI partition"


def add_manifest(shop: Workshop, iso: Path) -> None:
    """Fill the reserved place with the checksums of everything else. Raises CommandError."""
    said = shop.run(["xorriso", "-indev", iso, "-find", "/", "-type", "f", "-exec", "report_lba", "--"])
    files = file_extents(said.stdout)
    place = next(((offset, size) for offset, size, path in files if path == f"/{NAME}"), None)
    if place is None:
        raise CommandError("xorriso did not say where the list of checksums lies.", hint=f"See {shop.log}")
    known = [*(row for row in files if row[2] != f"/{NAME}"), efi_partition(iso)]
    with Image(iso) as image:
        regions = [
            Region(offset, length, hashlib.sha256(image.read(offset, length)).hexdigest(), name)
            for offset, length, name in cut(known, [place, (POINTER_OFFSET, POINTER_SIZE)], iso.stat().st_size)
        ]
    text = encode(regions)
    if len(text) > RESERVED:
        raise CommandError("The list of checksums is larger than its place.", hint="Raise checksums.RESERVED.")
    manifest = text.ljust(RESERVED, b"\n")
    with iso.open("r+b") as file:
        file.seek(place[0])
        file.write(manifest)
        file.seek(POINTER_OFFSET)
        file.write(encode_pointer(*place, manifest))
