"""What lies in a byte range: filesystems, swap, PVs, LUKS, md members, by ``blkid`` low-level probing at an offset."""

from __future__ import annotations

from pathlib import Path

from recovery.commands import run
from recovery.layout import Content


def probe_content(path: Path, offset: int, size: int) -> Content:
    """What ``blkid`` recognises in ``size`` bytes at ``offset``; ``Content()`` for nothing. Raises CommandError."""
    argv = ["blkid", "-p", "-o", "export", "-O", str(offset), "-S", str(size), str(path)]
    done = run(argv, check=False, timeout=120)
    # 2: nothing recognised. 8: two signatures at once (leftovers); nothing certain can be said.
    return parse_blkid(done.stdout) if done else Content()


def parse_blkid(text: str) -> Content:
    """The Content in blkid's ``export`` output (``KEY=value`` lines, shell escapes)."""
    facts: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition("=")
        facts[key] = value.replace("\\ ", " ").replace("\\", "")
    if "TYPE" not in facts:
        return Content()
    block_size = facts.get("BLOCK_SIZE", "")
    return Content(
        kind=facts["TYPE"],
        uuid=facts.get("UUID", ""),
        label=facts.get("LABEL", ""),
        block_size=int(block_size) if block_size.isdigit() else 0,
    )
