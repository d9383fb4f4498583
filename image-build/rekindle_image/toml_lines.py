"""At which line of a TOML document each key stands, so that an error can name it. Pure.

The standard library's parser says what a document means, but not where. This reader knows only as much of the syntax
as it takes to tell a key from what is inside a value, and is used on documents that the parser has accepted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

Place = tuple[str | int, ...]
"""``("network", 0, "address")``; tables of an array are counted from 0."""

_NAME = re.compile(r'\s*(?:"((?:[^"\\]|\\.)*)"|\'([^\']*)\'|([A-Za-z0-9_-]+))\s*')
_STRINGS = re.compile(r'"""(?:[^\\]|\\.)*?"""|\'\'\'.*?\'\'\'|"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\'|#[^\n]*', re.DOTALL)


def key_lines(text: str) -> dict[Place, int]:
    """Each key and table -> the line (from 1) at which it is named first."""
    found: dict[Place, int] = {}
    table: Place = ()
    counts: dict[Place, int] = {}
    depth = 0
    for number, line in enumerate(_without_values(text).split("\n"), 1):
        bare = line.strip()
        if depth == 0 and bare.startswith("["):
            double = bare.startswith("[[")
            names = tuple(_names(bare.lstrip("[")))
            table = names
            if double:
                counts[names] = counts.get(names, -1) + 1
                table = (*names, counts[names])
            elif len(names) > 1 and names[:1] in counts:
                table = (names[0], counts[names[:1]], *names[1:])
            found.setdefault(names, number)
            found.setdefault(table, number)
        elif depth == 0 and "=" in bare:
            names = tuple(_names(bare))
            for length in range(1, len(names) + 1):
                found.setdefault((*table, *names[:length]), number)
            depth = _balance(bare.split("=", 1)[1])
        else:
            depth += _balance(bare)
    return found


def _without_values(text: str) -> str:
    """The text with strings that are values, and comments, emptied; line breaks stay. Quoted keys stay as they are."""

    def empty(match: re.Match[str]) -> str:
        end = text[match.end() :].lstrip(" \t")[:1]
        before = text[: match.start()].rpartition("\n")[2].strip()
        if end in ("=", ".", "]") and (not before or before.startswith("[")) and not match.group().startswith("#"):
            return match.group()
        return "\n" * match.group().count("\n")

    return _STRINGS.sub(empty, text)


def _names(text: str) -> Iterator[str]:
    position = 0
    while match := _NAME.match(text, position):
        yield next(group for group in match.groups() if group is not None)
        position = match.end()
        if text[position : position + 1] != ".":
            return
        position += 1


def _balance(text: str) -> int:
    return sum(text.count(c) for c in "[{") - sum(text.count(c) for c in "]}")
