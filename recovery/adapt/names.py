"""Pure: device names that cannot survive a move become UUIDs in fstab, crypttab, kernel command lines.

Each function takes a file's text and a ``Lookup`` and returns the new text with one sentence per change and one per
name that could not be resolved. Comments, blanks and order of the files stay; what need not change does not.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from recovery.adapt.devices import is_unstable

#: (device name of the host, filesystem type it expects or "") -> a name that survives (``UUID=...``), or None.
Lookup = Callable[[str, str], str | None]
#: Whether a name means a device that was restored.
Exists = Callable[[str], bool]


@dataclass(frozen=True)
class Rewrite:
    """A file's new text, and what was changed and what could not be, in sentences."""

    text: str
    changes: tuple[str, ...] = ()
    unresolved: tuple[str, ...] = ()


@dataclass(frozen=True)
class Mount:
    """A line of fstab."""

    spec: str
    point: str
    kind: str
    options: tuple[str, ...]


def parse_fstab(text: str) -> list[Mount]:
    """The entries in the order of the file; broken lines are left out."""
    mounts = []
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 3 and not words[0].startswith("#"):
            options = tuple(words[3].split(",")) if len(words) > 3 else ()
            mounts.append(Mount(words[0], _unescape(words[1]), words[2], options))
    return mounts


def rewrite_fstab(text: str, lookup: Lookup, lost: Exists = is_unstable) -> Rewrite:
    """First column of fstab. ``lost`` says which names do not survive."""
    return _rewrite_column(text, 0, lambda words: words[2] if len(words) > 2 else "", lookup, "fstab", lost)


def rewrite_crypttab(text: str, lookup: Lookup, lost: Exists = is_unstable) -> Rewrite:
    """Second column of crypttab."""
    return _rewrite_column(text, 1, lambda words: "", lookup, "crypttab", lost)


def _rewrite_column(
    text: str, column: int, expected: Callable[[list[str]], str], lookup: Lookup, file: str,
    lost: Exists,
) -> Rewrite:  # fmt: skip
    lines, changes, unresolved = [], [], []
    for line in text.splitlines(keepends=True):
        words = line.split()
        if len(words) > column and not words[0].startswith("#") and lost(words[column]):
            old = words[column]
            new = lookup(old, expected(words))
            if new is None:
                unresolved.append(f"{file}: {old} names no device of this machine and could not be replaced.")
            else:
                line = _replace_word(line, column, new)
                changes.append(f"{file}: {old} became {new}.")
        lines.append(line)
    return Rewrite("".join(lines), tuple(changes), tuple(unresolved))


def _replace_word(line: str, column: int, new: str) -> str:
    match = re.match(rf"\s*(?:\S+\s+){{{column}}}(\S+)", line)
    return line if match is None else line[: match.start(1)] + new + line[match.end(1) :]


_PARAMETER = re.compile(
    r"([ \t]*)(?<![\w.-])(root|resume|real_root|rd\.luks\.\w+|cryptdevice)="
    r"((?:/dev/|(?:PART)?(?:UUID|LABEL)=)[^\s\"':,]+)"
)


def rewrite_parameters(
    text: str, lookup: Lookup, file: str, exists: Exists | None = None, root: str | None = None,
    lost: Exists = is_unstable,
) -> Rewrite:  # fmt: skip
    """``root=`` and ``resume=`` of kernel command lines, wherever they stand in a file; comments stay.

    ``root`` is the name of the root that was found and mounted: no guess, whatever the command line calls it.

    A ``resume=`` that names nothing here (a swap on a disk that is gone) is taken out: the boot would wait for it.
    """
    changes: list[str] = []
    unresolved: list[str] = []

    def replace(match: re.Match[str]) -> str:
        blank, key, old = match[1], match[2], match[3]
        unstable = lost(old)
        # With an offset it means the filesystem that a swap file lies on.
        expected = "swap" if key == "resume" and "resume_offset=" not in match.string else ""
        if key == "resume" and (_gone(old, exists) or (unstable and lookup(old, expected) is None)):
            changes.append(f"{file}: resume={old} was taken out, because it names nothing here.")
            return blank if match.end() < len(match.string) and not match.string[match.end()].isspace() else ""
        if not unstable:
            return match[0]
        new = root if root and key in ("root", "real_root") else lookup(old, expected)
        if new is None:
            unresolved.append(f"{file}: {key}={old} names no device of this machine and could not be replaced.")
            return match[0]
        changes.append(f"{file}: {key}={old} became {key}={new}.")
        return f"{blank}{key}={new}"

    lines = [
        line if line.lstrip().startswith("#") else _PARAMETER.sub(replace, line)
        for line in text.splitlines(keepends=True)
    ]
    return Rewrite("".join(lines), tuple(changes), tuple(unresolved))


def rewrite_resume(text: str, lookup: Lookup, exists: Exists | None = None, lost: Exists = is_unstable) -> Rewrite:
    """``RESUME=/dev/sda3`` of initramfs-tools. An unresolved one would only delay the boot: it becomes ``none``."""
    lines, changes = [], []
    for line in text.splitlines(keepends=True):
        match = re.match(r"RESUME=(\S+)", line)
        gone = bool(match) and _gone(match[1], exists) if match else False
        if match and (gone or lost(match[1])):
            new = (None if gone else lookup(match[1], "swap")) or "none"
            changes.append(f"initramfs: RESUME={match[1]} became {new}.")
            line = line.replace(match[1], new, 1)
        lines.append(line)
    return Rewrite("".join(lines), tuple(changes))


def _gone(spec: str, exists: Exists | None) -> bool:
    """Whether a name that would survive a move names nothing that was restored."""
    named = re.match(r"(PART)?(UUID|LABEL)=|/dev/(disk/by-(uuid|label|partuuid|partlabel)|mapper)/", spec)
    return exists is not None and bool(named) and not exists(spec)


def allow_uuid_root(text: str) -> Rewrite:
    """GRUB_DISABLE_LINUX_UUID=true makes update-grub write root=/dev/sdXn: it is commented out."""
    new = re.sub(r"(?m)^(\s*GRUB_DISABLE_LINUX_(?:PART)?UUID=[\"']?true[\"']?.*)$", r"#\1", text)
    changes = ("default/grub: GRUB finds the root filesystem by its UUID now.",) if new != text else ()
    return Rewrite(new, changes)


def _unescape(text: str) -> str:
    """fstab writes a blank as ``\\040``."""
    return re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), text)
