"""Pure: mdadm.conf without the names of disks that are not here any more.

Arrays are found by their UUID; a DEVICE line or ``devices=`` with names of the old disks would keep mdadm (also the
one in the initramfs, which gets a copy) from looking at the new ones.
"""

from __future__ import annotations

import re

from recovery.adapt.devices import is_unstable
from recovery.adapt.names import Rewrite


def rewrite_mdadm(text: str) -> Rewrite:
    """DEVICE lines with names that cannot survive become ``DEVICE partitions``; such ``devices=`` words go.

    Keywords may be shortened to three letters, and lines that begin with a blank continue the one before
    (mdadm.conf(5)); everything else stays as it is.
    """
    changes: list[str] = []
    lines: list[str] = []
    for entry in _entries(text):
        words = entry.split()
        keyword = words[0].lower() if words and not entry.startswith("#") else ""
        if len(keyword) >= 3 and "device".startswith(keyword) and any(_pinned(word) for word in words[1:]):
            changes.append(f"mdadm.conf: '{' '.join(words)}' became 'DEVICE partitions'.")
            entry = "DEVICE partitions\n"
        elif len(keyword) >= 3 and "array".startswith(keyword):
            for word in words[1:]:
                key, equals, value = word.partition("=")
                if equals and key.lower() == "devices" and any(_pinned(name) for name in value.split(",")):
                    entry = re.sub(rf"[ \t]*{re.escape(word)}", "", entry, count=1)
                    changes.append(f"mdadm.conf: {word} was left out; the array is found by its UUID.")
        lines.append(entry)
    return Rewrite("".join(lines), tuple(changes))


def _entries(text: str) -> list[str]:
    entries: list[str] = []
    for line in text.splitlines(keepends=True):
        if entries and line[:1] in (" ", "\t") and line.strip() and not entries[-1].startswith("#"):
            entries[-1] += line
        else:
            entries.append(line)
    return entries


def _pinned(name: str) -> bool:
    """A name, or a pattern of names (``/dev/sd[ab]1``), of disks by bus or port."""
    return is_unstable(name) or bool(re.match(r"/dev/(?:[svh]d|xvd|nvme|mmcblk|disk/by-(?:id|path)/)", name))
