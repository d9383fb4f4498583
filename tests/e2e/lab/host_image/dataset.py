"""The host's data with known checksums, and how it differs between the two points. Deterministic, so that checks can
be computed without asking the host."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

from recovery.units import KIB, MIB

FOLDER = "srv/data"
SUMS = "SHA256SUMS"


def files(state: str) -> dict[str, bytes]:
    """Name -> content in ``state``: ``older``, or ``newer`` (a file gone, one changed, one more)."""
    content = {f"ledger-{n:02}.bin": _bytes(f"ledger {n}", 1 * MIB + n * 37 * KIB + n) for n in range(24)}
    content["notes.txt"] = b"".join(b"line %d of the notes\n" % n for n in range(20000))
    content["empty"] = b""
    if state == "newer":
        del content["ledger-03.bin"]
        content["ledger-07.bin"] = _bytes("ledger 7, encrypted by a stranger", len(content["ledger-07.bin"]))
        content["ransom.txt"] = b"Your files are ours.\n" * 4000
        content["new.bin"] = _bytes("new", 12 * MIB)
    return content


def _bytes(seed: str, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


def sums(state: str) -> str:
    """The checksum file as ``sha256sum`` writes it."""
    lines = [f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in sorted(files(state).items())]
    return "".join(lines)


def write(root: Path, state: str) -> None:
    """Put the data of ``state`` below ``root``; files of other states go."""
    folder = root / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    wanted = files(state)
    for path in folder.iterdir():
        if path.name not in wanted:
            path.unlink()
    for name, data in wanted.items():
        path = folder / name
        # A file that stays keeps its blocks: the second point must hold only what changed.
        if not path.exists() or path.read_bytes() != data:
            path.write_bytes(data)
    (folder / SUMS).write_text(sums(state))
